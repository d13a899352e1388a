"""Small pictures for the report, each pair within a number of bytes."""

import io
import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from AnomalyCLIP_lib.preprocessing import OPENAI_MEAN, OPENAI_STANDARD_DEVIATION
from reporting.pictures import outline, overlay

QUALITIES = (82, 65, 45, 28)
"""Of WebP, tried one after the other before the picture is made smaller."""
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
        values: (height, width) float32 in [0, 1], from `findings.values_at`.
        pixel_threshold: see `thresholds.Thresholds`.
        byte_budget: of both together, at least 600. Quality gives way first, then size.
    """
    side = side_for(byte_budget)
    while True:
        scale = min(1.0, side / max(size))
        small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        shown = picture.convert("RGB").resize(small, Image.Resampling.BICUBIC)
        drawn = None
        if values is not None:
            reduced = cv2.resize(values, small, interpolation=cv2.INTER_AREA)
            drawn = Image.fromarray(outline(overlay(shown, reduced), reduced, pixel_threshold))
        for quality in QUALITIES:
            first, second = _webp(shown, quality), None if drawn is None else _webp(drawn, quality)
            needed = len(first) + len(second or b"")
            if needed <= byte_budget or max(small) <= LEAST_SIDE:
                return Thumbnails(small, first, second)
            if needed > 3 * byte_budget:
                break  # quality alone will not do
        side = max(LEAST_SIDE, int(max(small) * min(0.85, math.sqrt(byte_budget / needed))))


def picture_of(image: Tensor) -> Image.Image:
    """What the model reads, (3, S, S) float32, as an RGB picture again, S x S."""
    mean, deviation = torch.tensor(OPENAI_MEAN), torch.tensor(OPENAI_STANDARD_DEVIATION)
    pixels = image.permute(1, 2, 0).float() * deviation + mean
    return Image.fromarray((pixels * 255).round().clamp(0, 255).byte().numpy())


def _webp(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()
