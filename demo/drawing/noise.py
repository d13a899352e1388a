"""What every picture is made of: noise fields, coordinates, colours, cells and shading.

Pictures are float32 RGB arrays (size, size, 3) with values in 0..1; fields are float32 arrays (size, size).
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray
Generator = np.random.Generator


def smoothstep(low: float, high: float, value: Array) -> Array:
    """Rise smoothly from 0 to 1 while `value` goes from `low` to `high` (or falls, when `low` > `high`)."""
    fraction = np.clip((value - low) / (high - low), 0.0, 1.0)
    return fraction * fraction * (3.0 - 2.0 * fraction)


def mix(first: Array, second: Array, weight: Array) -> Array:
    """Blend two colours (3,) or pictures (size, size, 3) with the field `weight` (size, size), 0 giving the first."""
    weight = weight[..., None].astype(np.float32, copy=False)
    return first + (second - first) * weight


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """Draw a positive number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def field(rng: Generator, size: int, cells: int | tuple[int, int]) -> Array:
    """Smooth random field (size, size), about 0..1, varying over `cells` cells per side (rows, columns)."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    small = rng.random((max(rows, 1) + 1, max(columns, 1) + 1), dtype=np.float32)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def fractal(
    rng: Generator, size: int, cells: int | tuple[int, int] = 4, octaves: int = 4, persistence: float = 0.55
) -> Array:
    """Fractal noise (size, size) stretched to exactly 0..1: octaves of `field`, each twice as fine as the last."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    total = np.zeros((size, size), np.float32)
    amplitude = 1.0
    for _ in range(octaves):
        total += amplitude * field(rng, size, (min(rows, size), min(columns, size)))
        rows, columns, amplitude = rows * 2, columns * 2, amplitude * persistence
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def grain(rng: Generator, size: int, blur: float = 0.0) -> Array:
    """White noise (size, size) of mean 0 and standard deviation 1, optionally smoothed by `blur` pixels."""
    noise = rng.standard_normal((size, size), dtype=np.float32)
    if blur > 0:
        noise = cv2.GaussianBlur(noise, (0, 0), blur)
        noise /= max(float(noise.std()), 1e-6)
    return noise


def random_angle(rng: Generator) -> float:
    """An angle in radians: half of the time near an axis, as photographs are, otherwise anything."""
    if rng.random() < 0.5:
        return float(rng.integers(4) * np.pi / 2 + rng.normal(0, 0.05))
    return float(rng.uniform(0, 2 * np.pi))


def pixel_grid(size: int) -> tuple[Array, Array]:
    """Column and row numbers of every pixel, each (size, size) float32."""
    steps = np.arange(size, dtype=np.float32)
    return np.broadcast_to(steps, (size, size)), np.broadcast_to(steps[:, None], (size, size))


def coordinates(
    rng: Generator, size: int, period: float, warp: float = 0.0, angle: float | None = None
) -> tuple[Array, Array]:
    """Rotated and shifted coordinates (x, y), in periods of `period` picture sides, bent by up to about `warp`."""
    angle = random_angle(rng) if angle is None else angle
    columns, rows = pixel_grid(size)
    scale = 1.0 / (period * size)
    cosine, sine = np.float32(np.cos(angle) * scale), np.float32(np.sin(angle) * scale)
    shift = rng.uniform(50, 60, 2).astype(np.float32)  # positive, so that whole parts stay positive
    x = columns * cosine + rows * sine + shift[0]
    y = rows * cosine - columns * sine + shift[1]
    if warp > 0:
        x = x + warp * (field(rng, size, 3) - 0.5)
        y = y + warp * (field(rng, size, 3) - 0.5)
    return x, y


def random_period(rng: Generator, low: float = 0.07, high: float = 0.22) -> float:
    """Repeat distance of a pattern, in picture sides."""
    return log_uniform(rng, low, high)


def cell_values(rng: Generator, columns: Array, rows: Array) -> Array:
    """One random number in 0..1 per lattice cell: (size, size) float32, equal inside a cell."""
    table = rng.random(1021, dtype=np.float32)
    index = (columns.astype(np.int64) * 73 + rows.astype(np.int64) * 179) % len(table)
    return table[index]


def hsv(hue: float, saturation: float, value: float) -> Array:
    """An RGB colour (3,) float32 from hue, saturation and value, each in 0..1."""
    offsets = (np.array([5.0, 3.0, 1.0]) + hue * 6.0) % 6.0
    ramp = np.clip(np.minimum(offsets, 4.0 - offsets), 0.0, 1.0)
    return (value - value * saturation * ramp).astype(np.float32)


def colour(rng: Generator, saturation: float | None = None) -> Array:
    """A random RGB colour (3,): mostly muted, as materials are, sometimes vivid."""
    if saturation is None:
        saturation = rng.uniform(0.0, 0.35) if rng.random() < 0.6 else rng.uniform(0.3, 0.95)
    return hsv(rng.random(), saturation, rng.uniform(0.15, 0.95))


def palette(rng: Generator, count: int, contrast: tuple[float, float] = (0.12, 0.5)) -> list[Array]:
    """`count` colours that go together: mostly lighter or darker relatives of one, sometimes unrelated."""
    base = colour(rng)
    colours = [base]
    unrelated = rng.random() < 0.25
    for _ in range(count - 1):
        step = rng.uniform(*contrast)
        room_above = float(1.0 - base.mean())
        direction = 1.0 if rng.random() < room_above else -1.0
        if unrelated:
            other = colour(rng)
        else:
            other = np.clip(base + direction * step + rng.normal(0, 0.05, 3), 0.02, 0.98).astype(np.float32)
        if abs(float(other.mean() - base.mean())) < contrast[0]:  # too near to be told apart: push away
            other = np.clip(other + (0.25 if base.mean() < 0.5 else -0.25), 0.02, 0.98)
        colours.append(other.astype(np.float32))
    return colours


def metal_colour(rng: Generator) -> Array:
    """Colour of steel, brass, copper or dark metal."""
    kind = rng.random()
    if kind < 0.6:
        return hsv(rng.uniform(0.5, 0.7), rng.uniform(0, 0.1), rng.uniform(0.4, 0.85))
    if kind < 0.85:
        return hsv(rng.uniform(0.08, 0.14), rng.uniform(0.3, 0.6), rng.uniform(0.55, 0.85))
    return hsv(rng.uniform(0.03, 0.08), rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.8))


def shade(height: Array, strength: float, angle: float) -> Array:
    """Light falling from `angle` on a height field: factors (size, size) around 1, within 0.5..1.5."""
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3)
    down = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3)
    return 1.0 + np.clip(strength * (np.float32(np.cos(angle)) * across + np.float32(np.sin(angle)) * down), -0.5, 0.5)


def lit(picture: Array, height: Array, strength: float, angle: float) -> Array:
    """The picture (size, size, 3) with the relief of `height` shaded on it."""
    return picture * shade(height, strength, angle)[..., None]


def scattered(rng: Generator, size: int, spacing: float) -> Array:
    """Points (count, 2), column and row in pixels, one per jittered lattice cell of `spacing` pixels, with a margin."""
    steps = np.arange(-spacing, size + spacing, spacing)
    columns, rows = np.meshgrid(steps, steps)
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    return points + rng.uniform(0, spacing, points.shape)


def cells(rng: Generator, size: int, spacing: float, warp: float = 1.5) -> tuple[Array, Array]:
    """Irregular (Voronoi) cells of about `spacing` pixels.

    Returns the distance to the nearest border in pixels and a random number in 0..1 per cell, each (size, size).
    """
    scale = 2 if spacing < size / 5 else 1  # small cells are cut finer, or their borders would be staircases
    side = size * scale
    points = np.clip(np.round(scattered(rng, side, spacing * scale)), 0, side - 1).astype(int)
    seeds = np.full((side, side), 255, np.uint8)
    seeds[points[:, 1], points[:, 0]] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    if warp > 0:
        columns, rows = pixel_grid(side)
        bend = warp * scale * 2
        shift_x, shift_y = ((field(rng, side, int(size / spacing) + 2) - 0.5) * bend for _ in range(2))
        labels = cv2.remap(
            labels.astype(np.float32),
            columns + shift_x,
            rows + shift_y,
            cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REFLECT,
        ).astype(np.int32)
    inside = np.ones((side, side), np.uint8)
    inside[:, 1:] &= labels[:, 1:] == labels[:, :-1]
    inside[1:] &= labels[1:] == labels[:-1]
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3) / scale
    values = rng.random(int(labels.max()) + 1, dtype=np.float32)[np.asarray(labels, np.int32)]
    if scale > 1:
        distance, values = (cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA) for part in (distance, values))
    return distance, values


def strokes(
    rng: Generator, size: int, count: int, length: tuple[float, float], angle: float, spread: float, thickness: int = 1
) -> Array:
    """Short straight anti-aliased strokes of random greys on mid-grey: field (size, size) in 0..1.

    `length` is a range in picture sides; directions scatter by `spread` radians around `angle`.
    """
    canvas = np.full((size, size), 128, np.uint8)
    centres = rng.uniform(-0.1, 1.1, (count, 2)) * size
    angles = rng.normal(angle, spread, count)
    halves = rng.uniform(*length, count)[:, None] * size / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    starts = np.round((centres - halves) * 8).astype(int)
    ends = np.round((centres + halves) * 8).astype(int)
    greys = rng.integers(0, 256, count)
    for start, end, grey in zip(starts.tolist(), ends.tolist(), greys.tolist(), strict=True):
        cv2.line(canvas, start, end, grey, thickness, cv2.LINE_AA, 3)
    return canvas.astype(np.float32) / 255.0
