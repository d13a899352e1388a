"""Pictures of anomaly maps, on a scale that means the same in every picture."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from AnomalyCLIP_lib.decisions import Decision, Thresholds
from AnomalyCLIP_lib.files import atomic_write
from pipeline.reporting.margins import ColourBar, arranged, text_size, with_margin, with_title

MOST_OPACITY = 0.75
OUTLINE, OUTLINE_EDGE = (0, 255, 255), (0, 0, 0)  # in no place of the colour map, seen on bright and on dark ground
LINE_SHARE = 1 / 200
LEAST_SHARE = 1 / 3  # of that opacity, where the value is 0
COLOUR_MAP = cv2.COLORMAP_INFERNO  # perceptually uniform, readable with every kind of colour vision
LEAST_PANEL_SIDE, MOST_PANEL_SIDE = 256, 1024
SCREEN_ASPECT = 16 / 10
COMPRESSION = 2
"""Of PNG: four times as fast as the usual 6, and a tenth larger."""


def heat_colours(values: np.ndarray) -> np.ndarray:
    """The colours of values in [0, 1]: (height, width) float -> (height, width, 3) uint8 RGB."""
    return cv2.applyColorMap(np.round(values * 255).astype(np.uint8), COLOUR_MAP)[..., ::-1]


def overlay(image: Image.Image, values: np.ndarray, opacity: float = MOST_OPACITY) -> np.ndarray:
    """The heat map over the image, at the image's own size.

    Values are drawn from 0 to 1, never stretched to their own range: a flawless product stays dark, and equal colours
    mean equal values in all pictures. Low values are drawn thinner than high ones.

    Args:
        image: RGB.
        values: (height, width) float32 in [0, 1], from `decisions.map_values`.
        opacity: of the value 1, in [0, 1]; 0 shows the image alone.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    picture = np.asarray(image.convert("RGB"))
    colours = heat_colours(values)
    weight = (opacity * (LEAST_SHARE + (1 - LEAST_SHARE) * values))[..., None]
    return np.round(picture * (1 - weight) + colours * weight).astype(np.uint8)


def outline(picture: np.ndarray, values: np.ndarray, pixel_threshold: float) -> np.ndarray:
    """A copy of the picture with a line around the regions whose values reach the threshold.

    The line lies outside of the regions, so that they can be seen. Only where a large region is cut by the picture's
    edge, which has no outside, the line closes along that edge.

    Args:
        picture: (height, width, 3) uint8 RGB.
        values: (height, width) float32 in [0, 1], from `decisions.map_values`.
        pixel_threshold: see `thresholds.Thresholds`.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    drawn = picture.copy()
    reached = (values >= np.float32(pixel_threshold)).astype(np.uint8)
    if not reached.any():
        return drawn
    width = math.ceil(math.sqrt(reached.size) * LINE_SHARE)
    edge = math.ceil(width / 2)
    whole = width + 2 * edge
    distance = cv2.distanceTransform(1 - reached, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)  # 1 in the first pixels outside
    # Regions so large that a line along the edge of the picture does not hide them.
    large = cv2.morphologyEx(reached, cv2.MORPH_OPEN, np.ones((4 * whole, 4 * whole), np.uint8))
    rows, columns = np.ogrid[: reached.shape[0], : reached.shape[1]]
    to_edge = np.minimum(
        np.minimum(rows, reached.shape[0] - 1 - rows), np.minimum(columns, reached.shape[1] - 1 - columns)
    )
    distance = np.where((large > 0) & (to_edge < whole), to_edge + 1, distance)
    drawn[(distance > 0) & (distance <= whole)] = OUTLINE_EDGE
    drawn[(distance > edge) & (distance <= edge + width)] = OUTLINE
    return drawn


def marked_overlay(
    image: Image.Image, decision: Decision, values: np.ndarray, truth: np.ndarray | None = None, note: str = ""
) -> np.ndarray:
    """Heat map and outline over the image, pixel for pixel, and the conclusion in a margin below.

    Args:
        image: RGB.
        decision: from `decisions.decide`.
        values: (height, width) float32 in [0, 1], from `decisions.map_values`.
        truth: not shown; here so that all kinds of pictures are called alike.
        note: what else the margin says, first.

    Returns:
        (taller, at least as wide, 3) uint8 RGB, see `margins.with_margin`.
    """
    drawn = outline(overlay(image, values), values, decision.thresholds.pixel.value)
    return with_margin(drawn, [*([note] if note else []), *conclusion(decision)], _colour_bar(decision.thresholds))


def panel(
    image: Image.Image, decision: Decision, values: np.ndarray, truth: np.ndarray | None = None, note: str = ""
) -> np.ndarray:
    """Image, heat map, outlined image and, where it is known, ground truth; the conclusion in a margin below.

    In a row or in a column, whichever is nearer to a screen's shape. Images with a longer side of more than
    `MOST_PANEL_SIDE` pixels are reduced to it, and small ones enlarged by a whole number to about `LEAST_PANEL_SIDE`;
    the margin says so.

    Args:
        image: RGB.
        decision: from `decisions.decide`.
        values: (height, width) float32 in [0, 1], from `decisions.map_values`.
        truth: (height, width) bool or 0 and 1; None: unknown.
        note: what else the margin says, first.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    lines = [*([note] if note else []), *conclusion(decision)]
    longer = max(image.size)
    enlarged = max(1, round(LEAST_PANEL_SIDE / longer))
    if enlarged > 1:
        image = image.resize((image.width * enlarged, image.height * enlarged), Image.Resampling.NEAREST)
        values = _enlarged(values, enlarged)
        truth = None if truth is None else _enlarged(truth, enlarged)
        lines.append(f"shown {enlarged} times as large as it is")
    plain = np.asarray(image.convert("RGB"))
    pictures = {
        "image": plain,
        "heat map": overlay(image, values),
        "outline": outline(plain, values, decision.thresholds.pixel.value),
    }
    if truth is not None:
        pictures["ground truth"] = mask_picture(truth)
    if longer > MOST_PANEL_SIDE:  # after the drawing: a region of a few pixels keeps its outline
        share = MOST_PANEL_SIDE / longer
        size = max(1, round(image.width * share)), max(1, round(image.height * share))
        pictures = {name: cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for name, picture in pictures.items()}
        lines.append(f"shown at {share:.0%} of its size")
    height, width = pictures["image"].shape[:2]
    count = len(pictures)
    across = _from_screen(count * width, height) <= _from_screen(width, count * height)
    size = text_size(*((count * width, height) if across else (width, count * height)))
    titled = [with_title(picture, name, size) for name, picture in pictures.items()]
    return with_margin(arranged(titled, across, gap=size // 2), lines, _colour_bar(decision.thresholds))


KINDS: dict[str, Callable[[Image.Image, Decision, np.ndarray, np.ndarray | None, str], np.ndarray]] = {
    "overlay": marked_overlay,
    "panel": panel,
}
"""The kinds of pictures of one image, by the name that the user gives."""


def mask_picture(mask: np.ndarray) -> np.ndarray:
    """A mask (height, width), bool or 0 and 1, in black and white: (height, width, 3) uint8 RGB."""
    return np.repeat((mask > 0).astype(np.uint8)[..., None] * 255, 3, axis=2)


def conclusion(decision: Decision) -> list[str]:
    """What was found and from which thresholds, in lines for a margin."""
    image, pixel = decision.thresholds.image, decision.thresholds.pixel
    score, limit = _told_apart(decision.anomaly_score, image.value)
    reaches = "reaches" if decision.anomaly_score >= image.value else "is below"
    lines = [f"{decision.called}: score {score} {reaches} the threshold {limit}"]
    if decision.map_max is not None and decision.area_fraction is not None and decision.regions is not None:
        most, limit = _told_apart(decision.map_max, pixel.value)
        if decision.regions:
            count = f"{len(decision.regions)} region{'s' if len(decision.regions) > 1 else ''}"
            area = f"{decision.area_fraction:.1%}" if decision.area_fraction >= 0.001 else "less than 0.1%"
            lines.append(f"outlined from {limit} on: {count}, {area} of the image; highest value {most}")
        else:
            lines.append(f"outlined from {limit} on: nothing; highest value {most}")
    if image.source == pixel.source:
        lines.append(f"thresholds by {image.source}")
    else:
        lines += [f"threshold of the score by {image.source}", f"threshold of the outline by {pixel.source}"]
    return lines


@dataclass(frozen=True)
class PictureOptions:
    """What a run leaves to be looked at.

    Attributes:
        visualize: which of `KINDS`, or "none".
        every_image: of a dataset, not only the most telling ones.
        save_maps: also write every smoothed map as (S, S) float32 .npy.
    """

    visualize: str
    every_image: bool = False
    save_maps: bool = False


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write an (height, width, 3) uint8 RGB array as PNG, atomically."""
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", compress_level=COMPRESSION)


def _colour_bar(thresholds: Thresholds) -> ColourBar:
    value = thresholds.pixel.value
    scale = np.linspace(0, 1, 256, dtype=np.float32)[None]
    return ColourBar(heat_colours(scale)[0], value, _limit(value, 2))


def _enlarged(array: np.ndarray, times: int) -> np.ndarray:
    return array.repeat(times, axis=0).repeat(times, axis=1)


def _told_apart(value: float, limit: float) -> tuple[str, str]:
    """Value and threshold with as many digits as it takes to see which is larger, at least two."""
    digits = 2
    while value != limit and digits < 9 and f"{value:.{digits}f}" == f"{limit:.{digits}f}":
        digits += 1
    return f"{value:.{digits}f}", _limit(limit, digits)


def _limit(value: float, digits: int) -> str:
    return "above 1" if value > 1 else f"{value:.{digits}f}"


def _from_screen(width: int, height: int) -> float:
    """How far a shape is from a screen's: 0 for the same."""
    return abs(math.log(width / height / SCREEN_ASPECT))
