"""Pictures of anomaly maps, on a scale that means the same in every picture."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from AnomalyCLIP_lib.files import atomic_write

LEAST_OPACITY, MOST_OPACITY = 0.25, 0.75
COLOUR_MAP = cv2.COLORMAP_INFERNO  # perceptually uniform, readable with every kind of colour vision


def overlay(image: Image.Image, anomaly_map: np.ndarray, layers: int) -> np.ndarray:
    """The heat map over the image, at the image's own size.

    The map is divided by its number of layers and drawn from 0 to 1, never stretched to its own range: a flawless
    product stays dark, and equal colours mean equal values in all pictures.

    Args:
        image: RGB.
        anomaly_map: (S, S) float32, in [0, layers].
        layers: how many layers were summed.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    picture = np.asarray(image.convert("RGB"))
    value = cv2.resize(anomaly_map / layers, image.size, interpolation=cv2.INTER_LINEAR).clip(0, 1)
    colours = cv2.applyColorMap(np.round(value * 255).astype(np.uint8), COLOUR_MAP)[..., ::-1]
    opacity = (LEAST_OPACITY + (MOST_OPACITY - LEAST_OPACITY) * value)[..., None]
    return np.round(picture * (1 - opacity) + colours * opacity).astype(np.uint8)


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write an (height, width, 3) uint8 RGB array as PNG, atomically."""
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
