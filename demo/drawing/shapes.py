"""Where a defect lies and what it is drawn with: spots, blobs, lines and the colours that show on a surface."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from demo.drawing.canvas import Drawing
from demo.drawing.noise import Array, Generator, colour, log_uniform, pixel_grid


@dataclass(frozen=True)
class Spot:
    """Where a defect goes: its centre (column, row) and nominal radius, in pixels of a picture `size` wide."""

    centre: tuple[float, float]
    radius: float
    size: int

    def offsets(self) -> tuple[Array, Array]:
        """Columns and rows relative to the centre, each (size, size)."""
        columns, rows = pixel_grid(self.size)
        return columns - np.float32(self.centre[0]), rows - np.float32(self.centre[1])


def filled(size: int, points: Array) -> Array:
    """The area (size, size) in 0..1 inside a polygon (count, 2) of pixel coordinates."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) / 255.0


def polyline(size: int, points: Array, thickness: int, mask: Array | None = None) -> Array:
    """A line through points (count, 2), drawn on `mask` (size, size) uint8 or on a new one."""
    mask = np.zeros((size, size), np.uint8) if mask is None else mask
    cv2.polylines(mask, [np.round(points * 16).astype(np.int32)], False, 255, thickness, cv2.LINE_AA, 4)
    return mask


def blob(rng: Generator, spot: Spot, roughness: float = 0.3, softness: float = 0.0) -> Array:
    """An irregular roundish area (size, size) in 0..1; `softness` blurs its edge by that part of the radius."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = np.ones(40)
    for turns in range(2, 7):
        radii += roughness * rng.normal() / turns * np.cos(turns * angles + rng.uniform(0, 2 * np.pi))
    stretch, turn = log_uniform(rng, 0.6, 1.6), rng.uniform(0, np.pi)
    shape = np.stack([np.cos(angles) * radii * stretch, np.sin(angles) * radii / stretch], axis=1) * spot.radius
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    mask = filled(spot.size, shape @ rotation + spot.centre)
    if softness > 0:
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.3, softness * spot.radius))
    return mask


def path(rng: Generator, spot: Spot, length: float, bend: float, jag: float = 0.0, count: int = 12) -> Array:
    """A curved or jagged line (count, 2) of `length` pixels through the spot."""
    direction = rng.uniform(0, 2 * np.pi)
    turns = np.cumsum(rng.normal(0, bend / np.sqrt(count), count)) + rng.normal(0, jag, count)
    steps = np.stack([np.cos(direction + turns), np.sin(direction + turns)], axis=1) * (length / count)
    points = np.cumsum(steps, axis=0)
    return points - points.mean(axis=0) + spot.centre


def mean_colour(scene: Drawing, region: Array) -> Array:
    """The average colour (3,) of the picture where `region` (size, size) lies."""
    weight = region[..., None]
    return (scene.image * weight).sum(axis=(0, 1)) / max(float(region.sum()), 1e-3)


def contrasting_colour(rng: Generator, local: Array, least: float = 0.25) -> Array:
    """A colour that differs from `local` by at least `least` on average."""
    for _ in range(5):
        wanted = colour(rng)
        if np.abs(wanted - local).mean() >= least:
            return wanted
    return np.full(3, 0.05 if local.mean() > 0.5 else 0.95, np.float32)


def darker_or_lighter(rng: Generator, local: Array, dark_chance: float = 0.6) -> Array:
    """The local colour made clearly darker or lighter."""
    dark = rng.random() < dark_chance
    dark = local.mean() > 0.35 if dark else local.mean() > 0.7
    return local * rng.uniform(0.05, 0.5) if dark else local + (1 - local) * rng.uniform(0.5, 0.95)


def warped(image: Array, shift_x: Array, shift_y: Array) -> Array:
    """The picture (size, size, 3), each pixel taken from as far away as the shifts (size, size) say."""
    columns, rows = pixel_grid(image.shape[0])
    places = (columns + shift_x).astype(np.float32), (rows + shift_y).astype(np.float32)
    return cv2.remap(image, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
