"""Pairs of pictures: the same thing intact and with a local defect, and where they differ."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from demo.drawing.canvas import Drawing
from demo.drawing.categories import RENDERERS
from demo.drawing.defects import DEFECTS
from demo.drawing.noise import Array, Generator, field, log_uniform
from demo.drawing.shapes import Spot

DEFECT_TRIES = 12
MOST_AMPLIFICATION = 2.0
MOST_AREA = 0.2
LEAST_SALIENCE = 0.5


@dataclass(frozen=True)
class PicturePair:
    """The same picture twice, equal but for the pixels of the mask.

    intact, damaged: (size, size, 3) uint8 RGB; mask: (size, size) bool, true where they differ.
    """

    intact: Array
    damaged: Array
    mask: Array
    category: str
    defect: str


class _Variation:
    """What differs from photograph to photograph of an intact thing; the same for both pictures of a pair."""

    def __init__(self, rng: Generator, size: int) -> None:
        self.size = size
        corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
        outward = np.sign(corners - size / 2) * np.abs(rng.normal(0, 0.025 * size, (4, 2)))  # nothing from beyond shows
        moved = (corners + outward).astype(np.float32)
        self.perspective = cv2.getPerspectiveTransform(corners, moved) if rng.random() < 0.5 else None
        light = field(rng, size, 1)
        self.light = (1 + rng.uniform(0.0, 0.5) * (light - light.mean()))[..., None] * rng.uniform(0.85, 1.1)
        self.gamma = log_uniform(rng, 0.75, 1.35) if rng.random() < 0.5 else 1.0
        self.contrast = rng.uniform(0.75, 1.15)
        self.blur = rng.uniform(0.3, 0.9) if rng.random() < 0.35 else 0.0
        self.noise: Array | float = 0.0
        if rng.random() < 0.65:
            level = np.float32(rng.choice([0.008, 0.02]))
            self.noise = level * rng.standard_normal((size, size, 3), dtype=np.float32)

    def placed(self, picture: Array) -> Array:
        """Geometry and focus, for a picture or a mask (size, size[, 3]) float32."""
        if self.perspective is not None:
            picture = cv2.warpPerspective(
                picture, self.perspective, (self.size, self.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
        return cv2.GaussianBlur(picture, (0, 0), self.blur) if self.blur > 0 else picture

    def __call__(self, picture: Array) -> Array:
        """Drawn picture (size, size, 3) float32 -> photographed picture, the same in 0..1."""
        picture = np.clip(self.placed(picture.astype(np.float32, copy=False)) * self.light, 0, 1)
        if self.gamma != 1.0:
            picture = picture**self.gamma
        return np.clip((picture - 0.5) * self.contrast + 0.5 + self.noise, 0, 1)


def _quantised(picture: Array) -> Array:
    return np.round(picture * 255).astype(np.uint8)


def _spot(rng: Generator, places: Array, foreground_share: float, size: int) -> Spot:
    row, column = places[int(rng.integers(len(places)))]
    area = log_uniform(rng, 0.008, 0.09) * max(foreground_share, 0.25) ** 0.5
    return Spot((float(column), float(row)), float(np.sqrt(area / np.pi) * size), size)


def _changed(intact: Array, damaged: Array, region: Array, minimum_difference: float) -> tuple[Array, Array, float]:
    """Keep of `damaged` (0..1) what really differs inside `region` (bool).

    Returns the damaged picture (uint8, equal to `intact` outside the mask), the mask and the mean difference inside.
    """
    difference = damaged - intact.astype(np.float32) / 255.0
    strength = cv2.transform(np.abs(difference), np.full((1, 3), 1 / 3, np.float32))
    seen = ((strength > 0.4 * minimum_difference) & region).astype(np.uint8)
    mask = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(bool) & region
    mean = float(strength[mask].mean()) if mask.any() else 0.0
    if 0 < mean < minimum_difference * 1.02:
        factor = min(minimum_difference * 1.05 / mean, MOST_AMPLIFICATION)
        damaged = np.clip(intact.astype(np.float32) / 255.0 + difference * factor, 0, 1)
    result = np.where(mask[..., None], _quantised(damaged), intact)
    mean = float(np.abs(result[mask].astype(np.float32) - intact[mask]).mean() / 255.0) if mask.any() else 0.0
    return result, mask, mean


def _salience(intact: Array, damaged: Array, mask: Array) -> float:
    """Mean difference in the mask after smoothing: grain exchanged for like grain averages out, a defect does not."""
    difference = damaged.astype(np.float32) - intact.astype(np.float32)
    smoothed = cv2.GaussianBlur(difference, (0, 0), intact.shape[0] / 60)
    return float(np.abs(smoothed[mask]).mean() / 255.0) if mask.any() else 0.0


def _last_resort(rng: Generator, intact: Array, places: Array) -> tuple[Array, Array]:
    """A plain spot that always satisfies the limits: every pixel moves by half the range, away from its own value."""
    size = intact.shape[0]
    row, column = places[int(rng.integers(len(places)))]
    rows, columns = np.indices((size, size))
    mask = (
        np.hypot(rows - np.clip(row, size / 10, size * 0.9), columns - np.clip(column, size / 10, size * 0.9))
        < size / 12
    )
    moved = np.where(intact < 128, intact.astype(int) + 127, intact.astype(int) - 127).astype(np.uint8)
    return np.where(mask[..., None], moved, intact), mask


def picture_pair(
    category: str,
    size: int,
    seed: int | Sequence[int],
    minimum_difference: float = 0.08,
    minimum_area: float = 0.005,
) -> PicturePair:
    """Draw one pair, the same for the same arguments.

    Inside the mask the pictures differ by at least `minimum_difference` (mean over pixels and colours, of 0..1); the
    mask covers at least `minimum_area` of the picture; outside it they are equal.
    """
    numbers = [seed] if isinstance(seed, int | np.integer) else list(seed)
    rng = np.random.default_rng([zlib.crc32(category.encode()), *numbers])
    drawing = RENDERERS[category](rng, size)
    turned = np.clip(drawing.image, 0, 1).astype(np.float32, copy=False)
    scene = Drawing(turned, drawing.foreground, np.clip(drawing.behind, 0, 1).astype(np.float32))
    variation = _Variation(rng, size)
    intact = _quantised(variation(scene.image))

    inner = cv2.erode(scene.foreground.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
    places = np.argwhere(inner if inner.any() else np.ones_like(inner))
    margin = size // 16
    central = places[((places >= margin) & (places < size - margin)).all(axis=1)]
    places = central if len(central) else places
    allowed = cv2.dilate(scene.foreground.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    names = tuple(DEFECTS)
    share = float(scene.foreground.mean())
    for _ in range(DEFECT_TRIES):
        name = names[int(rng.integers(len(names)))]
        changed, region = DEFECTS[name](rng, scene, _spot(rng, places, share, size))
        region = region * allowed
        changed = scene.image + (np.clip(changed, 0, 1).astype(np.float32) - scene.image) * allowed[..., None]
        photographed = variation(changed)
        applied = variation.placed(region.astype(np.float32)) > 0.1
        damaged, mask, difference = _changed(intact, photographed, applied, minimum_difference)
        if not (minimum_area <= mask.mean() <= MOST_AREA and difference >= minimum_difference):
            continue
        if _salience(intact, damaged, mask) >= LEAST_SALIENCE * minimum_difference:
            break
    else:
        name = "stain"
        damaged, mask = _last_resort(rng, intact, places)
        difference = float(np.abs(damaged[mask].astype(float) - intact[mask]).mean() / 255)
    assert mask.mean() >= minimum_area and difference >= minimum_difference, (category, seed)
    return PicturePair(intact, damaged, mask, category, name)
