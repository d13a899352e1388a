"""Random crops of photographs that ship inside the scikit-image and scikit-learn wheels (nothing is downloaded)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from demo.drawing.noise import Array, Generator

# What a crop of each photograph shows -> (package, file inside it). Brick, grass and gravel are kept for the test.
PRETRAINING_PHOTOGRAPHS: dict[str, tuple[str, str]] = {
    "portrait": ("skimage", "data/astronaut.png"),
    "cat fur": ("skimage", "data/chelsea.png"),
    "coffee cup": ("skimage", "data/coffee.png"),
    "old coins": ("skimage", "data/coins.png"),
    "starry sky": ("skimage", "data/hubble_deep_field.jpg"),
    "stained tissue": ("skimage", "data/ihc.png"),
    "moon": ("skimage", "data/moon.png"),
    "engine": ("skimage", "data/motorcycle_left.png"),
    "printed page": ("skimage", "data/page.png"),
    "building": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
}
TEST_PHOTOGRAPHS: dict[str, tuple[str, str]] = {
    "brick": ("skimage", "data/brick.png"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
}


@cache
def photograph(name: str) -> Array:
    """The whole photograph, (height, width, 3) uint8 RGB."""
    package, file = (PRETRAINING_PHOTOGRAPHS | TEST_PHOTOGRAPHS)[name]
    folder = Path(__import__(package).__file__).parent
    picture = cv2.imread(str(folder / file), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(f"{folder / file} is missing from the installed {package}")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def photograph_crop(name: str, rng: Generator, size: int) -> Array:
    """A random crop, (size, size, 3) float32 RGB in 0..1, turned, mirrored, and changed a little in its colours."""
    whole = photograph(name)
    shorter = min(whole.shape[:2])
    side = int(np.clip(rng.uniform(0.3, 1.0) * min(shorter, 6 * size), min(size, shorter), shorter))
    top = int(rng.integers(whole.shape[0] - side + 1))
    left = int(rng.integers(whole.shape[1] - side + 1))
    crop = whole[top : top + side, left : left + side]
    method = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    crop = cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=method)
    crop = np.rot90(crop, int(rng.integers(4)))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    picture = np.ascontiguousarray(crop).astype(np.float32) / 255.0
    grey = picture.mean(axis=2, keepdims=True)
    tint = rng.normal(1.0, 0.08, 3).astype(np.float32)
    picture = (grey + (picture - grey) * rng.uniform(0.3, 1.2)) * tint
    mean = float(picture.mean())
    return (picture - mean) * rng.uniform(0.75, 1.25) + mean + rng.uniform(-0.08, 0.08)
