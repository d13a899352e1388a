"""Small pictures for the report, each pair within a number of bytes."""

import io
import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from pipeline.reporting.pictures import outline, overlay

QUALITIES = (82, 60, 40, 22)
"""Of WebP, tried one after the other before the picture is made smaller; then the last one counts."""
LARGEST_SIDE, LEAST_SIDE = 320, 8
BITS_PER_PIXEL = 1.4
"""What a WebP of a textured surface needs to look well."""


@dataclass(frozen=True)
class Thumbnails:
    """Attributes:
    size: width and height of both, pixels.
    picture: WebP.
    heat_map: WebP, the overlay with its outline; None where there is no map.
    """

    size: tuple[int, int]
    picture: bytes
    heat_map: bytes | None


def side_for(byte_budget: float) -> int:
    """The side of a pair that looks well within so many bytes, pixels."""
    return int(min(max(math.sqrt(byte_budget * 8 / (2 * BITS_PER_PIXEL)), LEAST_SIDE), LARGEST_SIDE))


def make_thumbnails(
    picture: Image.Image, size: tuple[int, int], values: np.ndarray | None, pixel_threshold: float, byte_budget: int
) -> Thumbnails:
    """The picture and its heat map with the outline of what reaches the threshold.

    Args:
        picture: RGB, of any size and aspect.
        size: width and height of the picture in its file: the aspect of the result, which is never larger.
        values: (height, width) float32 in [0, 1], from `decisions.map_values`.
        pixel_threshold: see `thresholds.Thresholds`.
        byte_budget: of both together, at least 600. Quality gives way first, then size.
    """
    side, qualities = side_for(byte_budget), QUALITIES
    while True:
        scale = min(1.0, side / max(size))
        small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        shown = picture.convert("RGB").resize(small, Image.Resampling.BICUBIC)
        pictures = [shown]
        if values is not None:
            reduced = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
            pictures.append(Image.fromarray(outline(overlay(shown, reduced), reduced, pixel_threshold)))
        needed = 0
        for quality in qualities:
            if needed > 2 * byte_budget and quality != QUALITIES[-1]:
                continue  # the next one will not do
            encoded = [_webp(part, quality) for part in pictures]
            needed = sum(map(len, encoded))
            if needed <= byte_budget or side == LEAST_SIDE:
                return Thumbnails(small, encoded[0], encoded[1] if values is not None else None)
        side = max(LEAST_SIDE, int(max(small) * min(0.9, math.sqrt(byte_budget / needed))))
        qualities = QUALITIES[-1:]


def _webp(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=1)  # a third of the time of the usual 4
    return buffer.getvalue()
