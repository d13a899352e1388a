"""A sheet to draw an object on: shapes in the object's own coordinates, with relief, and where the object is."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from demo.drawing.noise import Array, Generator, colour, fractal, grain, shade

SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
UNIT = 1 << SHIFT


@dataclass(frozen=True)
class Drawing:
    """A picture before its natural variation.

    image: (size, size, 3) float32 RGB, about 0..1; foreground: (size, size) bool, where the object is (everywhere on a
    surface); behind: (size, size, 3), what shows where a part is missing.
    """

    image: Array
    foreground: Array
    behind: Array


def background(rng: Generator, size: int) -> Array:
    """A table or backdrop: one colour with a soft gradient, sometimes faintly textured."""
    base = colour(rng, rng.uniform(0, 0.35))
    if rng.random() < 0.3:  # product photographs: nearly white or nearly black
        base = np.full(3, rng.choice([rng.uniform(0.85, 0.97), rng.uniform(0.03, 0.15)]), np.float32)
    tone = 1 + rng.uniform(0, 0.15) * (fractal(rng, size, 2, 1) - 0.5)
    if rng.random() < 0.35:
        tone = tone + rng.uniform(0.02, 0.15) * (fractal(rng, size, int(rng.integers(4, 30)), 3, 0.7) - 0.5)
    return base * (tone + rng.uniform(0, 0.02) * grain(rng, size)).astype(np.float32)[..., None]


class Canvas:
    """Draws one object. Shapes take points in object units: the object fills about -1..1 in its longer direction."""

    def __init__(self, rng: Generator, size: int, turned: bool = True) -> None:
        """Choose the object's place, size, direction, the light and the backdrop."""
        self.rng, self.size = rng, size
        self.behind = background(rng, size)
        self.image = self.behind.copy()
        self.foreground = np.zeros((size, size), np.float32)
        self.scale = size * rng.uniform(0.32, 0.45)
        room = max(size / 2 - self.scale, 1.0)
        self.centre = size / 2 + rng.uniform(-room, room, 2)
        self.angle = float(rng.uniform(0, 2 * np.pi)) if turned else float(rng.normal(0, 0.15))
        self.light = float(rng.uniform(0, 2 * np.pi))
        self.ground = self.behind.mean(axis=(0, 1))
        self.shadow_shift: Array | None = None
        if rng.random() < 0.6:
            self.shadow_shift = rng.uniform(1, size / 24, 2) * rng.choice([-1, 1], 2)

    def visible(self, wanted: Array) -> Array:
        """The colour `wanted`, moved away from the backdrop if it would not be seen on it."""
        if np.abs(wanted - self.ground).mean() >= 0.15:
            return wanted
        return np.clip(wanted + (0.3 if self.ground.mean() < 0.5 else -0.3), 0.02, 0.98).astype(np.float32)

    def pixels(self, points: Array) -> Array:
        """Object coordinates (count, 2) -> fixed-point pixel coordinates for OpenCV."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        turned = np.asarray(points, float) @ np.array([[cosine, sine], [-sine, cosine]])
        return np.round((turned * self.scale + self.centre) * UNIT).astype(np.int32)

    def coordinates(self) -> tuple[Array, Array]:
        """Object coordinates (x, y) of every pixel, each (size, size)."""
        steps = np.arange(self.size, dtype=np.float32)
        columns, rows = (steps[None, :] - self.centre[0]) / self.scale, (steps[:, None] - self.centre[1]) / self.scale
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        return (columns * cosine + rows * sine).astype(np.float32), (rows * cosine - columns * sine).astype(np.float32)

    def _mask(self) -> Array:
        return np.zeros((self.size, self.size), np.uint8)

    def polygon(self, points: Array, fill: Array, relief: float = 0.0, part: bool = True) -> None:
        """Fill a polygon (count, 2) with a colour (3,) or picture (size, size, 3)."""
        mask = self._mask()
        cv2.fillPoly(mask, [self.pixels(points)], 255, cv2.LINE_AA, SHIFT)
        self.paint(mask, fill, relief, part)

    def disc(
        self, centre: tuple[float, float], radius: float, fill: Array, relief: float = 0.0, part: bool = True
    ) -> None:
        """Fill a disc."""
        mask = self._mask()
        (place,) = self.pixels(np.array([centre])).tolist()
        cv2.circle(mask, place, round(radius * self.scale * UNIT), 255, -1, cv2.LINE_AA, SHIFT)
        self.paint(mask, fill, relief, part)

    def box(
        self, left: float, top: float, right: float, bottom: float, fill: Array, relief: float = 0.0, part: bool = True
    ) -> None:
        """Fill a rectangle."""
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        return self.polygon(corners, fill, relief, part)

    def line(self, points: Array, width: float, fill: Array, relief: float = 0.0, part: bool = True) -> None:
        """Draw a round-ended line of `width` through points (count, 2)."""
        mask = self._mask()
        thickness = max(1, round(width * self.scale))
        cv2.polylines(mask, [self.pixels(points)], False, 255, thickness, cv2.LINE_AA, SHIFT)
        self.paint(mask, fill, relief, part)

    def paint(self, mask: Array, fill: Array, relief: float = 0.0, part: bool = True) -> None:
        """Lay a colour (3,) or picture (size, size, 3) where `mask` (uint8) says; `relief` rounds its edges.

        The first shape of the object casts its shadow. With `part` the shape counts as the object.
        """
        left, top, width, height = cv2.boundingRect(mask)
        if width == 0 or height == 0:  # the shape lies outside the picture
            return
        if self.shadow_shift is not None and part:
            self._cast_shadow(mask)
        margin = 2 + self.size // 16  # room for the blur that rounds the edges
        window = (
            slice(max(top - margin, 0), top + height + margin),
            slice(max(left - margin, 0), left + width + margin),
        )
        coverage = mask[window].astype(np.float32) / 255.0
        fill = fill[window] if fill.ndim == 3 else fill
        if relief > 0:
            rounded = cv2.GaussianBlur(coverage, (0, 0), self.size * 0.025)
            fill = fill * shade(rounded, relief * 0.4, self.light)[..., None]
        image = self.image[window]
        image += (fill - image) * coverage[..., None]
        if part:
            np.maximum(self.foreground[window], coverage, out=self.foreground[window])

    def _cast_shadow(self, mask: Array) -> None:
        assert self.shadow_shift is not None
        right, down = self.shadow_shift
        move = np.array([[1, 0, right], [0, 1, down]], np.float32)
        moved = cv2.warpAffine(mask, move, (self.size, self.size)).astype(np.float32) / 255.0
        self.image *= (1 - 0.45 * cv2.GaussianBlur(moved, (0, 0), self.size / 40))[..., None]
        self.behind = self.image.copy()
        self.shadow_shift = None

    def remove(self, centre: tuple[float, float], radius: float) -> None:
        """Cut a round opening through which the backdrop shows."""
        mask = self._mask()
        (place,) = self.pixels(np.array([centre])).tolist()
        cv2.circle(mask, place, round(radius * self.scale * UNIT), 255, -1, cv2.LINE_AA, SHIFT)
        coverage = mask.astype(np.float32) / 255.0
        self.image = self.image + (self.behind - self.image) * coverage[..., None]
        self.foreground = self.foreground * (1 - coverage)

    def drawing(self) -> Drawing:
        """The finished picture."""
        return Drawing(self.image, self.foreground > 0.5, self.behind)


def circle_points(count: int, radius: float | Array = 1.0, start: float = 0.0) -> Array:
    """Points (count, 2) around a circle; `radius` may differ per point."""
    angles = start + np.arange(count) * (2 * np.pi / count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.reshape(radius, (-1, 1))


def rounded_box(half_width: float, half_height: float, corner: float) -> Array:
    """Outline (count, 2) of a rectangle with rounded corners, centred on the origin."""
    quarter = np.linspace(0, np.pi / 2, 6)
    arcs = []
    for number, (sign_x, sign_y) in enumerate([(1, 1), (-1, 1), (-1, -1), (1, -1)]):
        angles = quarter + number * np.pi / 2
        middle = np.array([sign_x * (half_width - corner), sign_y * (half_height - corner)])
        arcs.append(middle + corner * np.stack([np.cos(angles), np.sin(angles)], axis=1))
    return np.concatenate(arcs)


def shifted(points: Array, x: float, y: float) -> Array:
    """The points (count, 2), moved."""
    return points + np.array([x, y])
