"""Pictures of anomaly maps, on a scale that means the same in every picture."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from AnomalyCLIP_lib.files import atomic_write

MOST_OPACITY = 0.75
OUTLINE, OUTLINE_EDGE = (0, 255, 255), (0, 0, 0)
LEAST_SHARE = 1 / 3  # of that opacity, where the value is 0
COLOUR_MAP = cv2.COLORMAP_INFERNO  # perceptually uniform, readable with every kind of colour vision


def overlay(image: Image.Image, values: np.ndarray, opacity: float = MOST_OPACITY) -> np.ndarray:
    """The heat map over the image, at the image's own size.

    Values are drawn from 0 to 1, never stretched to their own range: a flawless product stays dark, and equal colours
    mean equal values in all pictures. Low values are drawn thinner than high ones.

    Args:
        image: RGB.
        values: (height, width) float32 in [0, 1], from `findings.values_at`.
        opacity: of the value 1, in [0, 1]; 0 shows the image alone.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    picture = np.asarray(image.convert("RGB"))
    colours = cv2.applyColorMap(np.round(values * 255).astype(np.uint8), COLOUR_MAP)[..., ::-1]
    weight = (opacity * (LEAST_SHARE + (1 - LEAST_SHARE) * values))[..., None]
    return np.round(picture * (1 - weight) + colours * weight).astype(np.uint8)


def outline(picture: np.ndarray, values: np.ndarray, pixel_threshold: float) -> np.ndarray:
    """A copy of the picture with a line around the regions whose values reach the threshold.

    Args:
        picture: (height, width, 3) uint8 RGB.
        values: (height, width) float32 in [0, 1], from `findings.values_at`.
        pixel_threshold: see `thresholds.Thresholds`.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    drawn = picture.copy()
    reached = (values >= np.float32(pixel_threshold)).astype(np.uint8)
    contours, _ = cv2.findContours(reached, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(min(values.shape) / 200))
    cv2.drawContours(drawn, contours, -1, OUTLINE_EDGE, 3 * width)  # seen on bright and on dark pictures
    cv2.drawContours(drawn, contours, -1, OUTLINE, width)
    return drawn


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write an (height, width, 3) uint8 RGB array as PNG, atomically."""
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
