"""Categories drawn for the test alone: nothing here may be used in pretraining."""

from __future__ import annotations

import numpy as np

from demo.drawing.canvas import Canvas, Drawing, circle_points, shifted
from demo.drawing.noise import (
    Array,
    Generator,
    cell_values,
    colour,
    coordinates,
    fractal,
    grain,
    hsv,
    lit,
    metal_colour,
    mix,
    palette,
    random_period,
    smoothstep,
)


def woven(rng: Generator, size: int) -> Array:
    """Basket work: strips passing over and under each other. (size, size, 3) float32."""
    x, y = coordinates(rng, size, random_period(rng, 0.09, 0.2), warp=rng.uniform(0, 0.2))
    columns, rows = np.floor(x), np.floor(y)
    part_x, part_y = x - columns - 0.5, y - rows - 0.5
    over = (columns + rows) % 2 > 0
    across, along = np.where(over, part_y, part_x), np.where(over, part_x, part_y)
    height = np.cos(np.pi * along) * smoothstep(0.5, 0.36, np.abs(across)) * (1 - 0.6 * np.abs(across))
    first, second = palette(rng, 2, (0.06, 0.3))
    strip = np.where(over, cell_values(rng, rows, rows * 0), cell_values(rng, columns, columns * 0))
    face = mix(first, second, 0.5 * over + 0.5 * strip)
    picture = face * (0.3 + 0.75 * height + 0.04 * grain(rng, size, 0.6))[..., None]
    return lit(picture, height, rng.uniform(0, 0.08), float(rng.uniform(0, 2 * np.pi)))


def marble(rng: Generator, size: int) -> Array:
    """Polished stone with clouds and soft veins. (size, size, 3) float32."""
    base, vein = palette(rng, 2, (0.15, 0.45))
    x, y = coordinates(rng, size, rng.uniform(0.35, 0.7))
    turbulence = fractal(rng, size, 3, 5)
    wave = np.abs(np.sin(np.pi * (x + 0.3 * y + rng.uniform(1.5, 3) * turbulence)))
    veins = smoothstep(rng.uniform(0.25, 0.45), 0.0, wave) * (0.4 + 0.6 * fractal(rng, size, 3, 3))
    return mix(base * (0.9 + 0.2 * turbulence)[..., None], vein, veins) + 0.008 * grain(rng, size)[..., None]


def washer(rng: Generator, size: int) -> Drawing:
    """A flat metal disc with a round opening."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng))
    canvas.disc((0, 0), 1.0, metal * (0.9 + 0.2 * fractal(rng, size, (50, 4), 2))[..., None], 0.4)
    canvas.remove((0, 0), rng.uniform(0.38, 0.58))
    return canvas.drawing()


def capsule(rng: Generator, size: int) -> Drawing:
    """A two-coloured medicine capsule."""
    canvas = Canvas(rng, size)
    first, second = canvas.visible(colour(rng)), canvas.visible(colour(rng))
    radius, half = 0.36, 0.64
    arc = circle_points(24, radius)
    right = shifted(np.concatenate([arc[18:], arc[:7]]), half, 0)
    body = np.concatenate([right, shifted(arc[6:19], -half, 0)])
    canvas.polygon(body, first, 0.9)
    cap = np.concatenate([right, [[0, radius * 1.04], [0, -radius * 1.04]]])
    canvas.polygon(cap, second, 0.9)
    gloss = np.clip(np.maximum(first, second) * 0.4 + 0.6, 0, 1)
    canvas.line(np.array([[-0.55, -0.15], [0.55, -0.15]]), 0.06, gloss)
    return canvas.drawing()


def nut(rng: Generator, size: int) -> Drawing:
    """A hexagonal nut from above."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng) if rng.random() < 0.8 else hsv(rng.random(), 0.5, 0.6))
    canvas.polygon(circle_points(6), metal, 0.5)
    canvas.disc((0, 0), 0.8, metal * 1.06, 0.3)
    canvas.disc((0, 0), 0.54, metal * 0.6)
    canvas.remove((0, 0), 0.46)
    return canvas.drawing()


UNSEEN_TEXTURES = {"woven": woven, "marble": marble}
UNSEEN_OBJECTS = {"washer": washer, "capsule": capsule, "nut": nut}
