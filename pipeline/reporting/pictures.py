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
COLOUR_MAP = cv2.COLORMAP_INFERNO  # perceptually uniform, readable with every kind of colour vision
LEAST_PANEL_SIDE, MOST_PANEL_SIDE = 256, 1024
SCREEN_ASPECT = 16 / 10
COMPRESSION = 2
"""Of PNG: four times as fast as the usual 6, and a tenth larger."""
MOST_PNG_PIXELS = 2**20
"""Beyond, PNG takes twenty times as long as JPEG, and ten times the space."""
JPEG_QUALITY = 92
MOST_SIDE = 2048


def heat_colours(values: np.ndarray) -> np.ndarray:
    """The colours of values in [0, 1]: (height, width) float -> (height, width, 3) uint8 RGB."""
    return cv2.applyColorMap(_steps(values), COLOUR_MAP)[..., ::-1]


def overlay(image: Image.Image, values: np.ndarray, opacity: float = MOST_OPACITY) -> np.ndarray:
    """The heat map over the image, at the image's own size.

    Values are drawn from 0 to 1, never stretched to their own range: a flawless product stays as it is, and equal
    colours mean equal values in all pictures. The opacity follows the value, so that what is normal can be seen.

    Args:
        image: RGB.
        values: (height, width) float32 in [0, 1], from `decisions.map_values`.
        opacity: of the value 1, in [0, 1]; 0 shows the image alone.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    steps = np.arange(256, dtype=np.uint8)
    weights = opacity * steps[:, None] / 255
    colours = np.round(heat_colours(steps[:, None] / np.float32(255))[:, 0] * weights).astype(np.uint8)
    kept = np.repeat(np.round(255 * (1 - weights)).astype(np.uint8), 3, axis=1)
    places = _steps(values)
    picture = cv2.multiply(np.asarray(image.convert("RGB")), cv2.applyColorMap(places, kept[:, None]), scale=1 / 255)
    return cv2.add(picture, cv2.applyColorMap(places, colours[:, None]))


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
    distance = cv2.distanceTransform(1 - reached, cv2.DIST_L2, cv2.DIST_MASK_5)  # 1 in the first pixels outside
    border = np.ones(reached.shape, bool)
    border[whole:-whole, whole:-whole] = False
    if (border & (reached > 0)).any():
        # Regions so large that a line along the edge of the picture does not hide them.
        large = cv2.morphologyEx(reached, cv2.MORPH_OPEN, np.ones((4 * whole, 4 * whole), np.uint8))
        rows, columns = np.nonzero(border & (large > 0))
        height, length = reached.shape
        to_edge = np.minimum.reduce([rows, height - 1 - rows, columns, length - 1 - columns])
        distance[rows, columns] = to_edge + 1
    for colour, low, high in ((OUTLINE_EDGE, 0, whole), (OUTLINE, edge, edge + width)):
        drawn[(distance > low) & (distance <= high)] = colour
    return drawn


def reduced(image: Image.Image, most_side: int) -> Image.Image:
    """The image, made smaller where its longer side has more pixels than that."""
    if max(image.size) <= most_side:
        return image
    share = most_side / max(image.size)
    size = max(1, round(image.width * share)), max(1, round(image.height * share))
    return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_AREA))


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
        pictures = {
            name: np.asarray(reduced(Image.fromarray(picture), MOST_PANEL_SIDE)) for name, picture in pictures.items()
        }
        lines.append(f"shown at {MOST_PANEL_SIDE / longer:.0%} of its size")
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
        format: of pictures: "png", "jpg", or "auto": JPEG where they have more than `MOST_PNG_PIXELS`.
        most_side: larger images are drawn with a longer side of so many pixels.
    """

    visualize: str
    every_image: bool = False
    save_maps: bool = False
    format: str = "auto"
    most_side: int = MOST_SIDE

    def suffix(self, picture: np.ndarray) -> str:
        """Of the file of this picture."""
        large = picture.shape[0] * picture.shape[1] > MOST_PNG_PIXELS
        return ".jpg" if self.format == "jpg" or (self.format == "auto" and large) else ".png"


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write an (height, width, 3) uint8 RGB array, atomically, as PNG or JPEG by the ending of `path`."""
    with atomic_write(path) as temporary:
        if path.suffix == ".jpg":
            Image.fromarray(picture).save(temporary, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        else:
            Image.fromarray(picture).save(temporary, format="PNG", compress_level=COMPRESSION)


def _steps(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as whole numbers from 0 to 255, uint8."""
    return cv2.convertScaleAbs(values, alpha=255)


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
