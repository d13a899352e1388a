"""Round and flat objects of the pretraining set. Each function draws (rng, size) -> Drawing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from demo.drawing.canvas import Canvas, Drawing, circle_points, rounded_box, shifted
from demo.drawing.noise import Generator, colour, fractal, hsv, metal_colour, mix, palette, smoothstep

Renderer = Callable[[Generator, int], Drawing]


def pill(rng: Generator, size: int) -> Drawing:
    """A round tablet in one colour, often with a score line or speckles."""
    canvas = Canvas(rng, size)
    base = canvas.visible(hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.6, 0.97)))
    width = rng.choice([1.0, rng.uniform(0.55, 0.8)])
    outline = circle_points(40) * [1.0, width]
    speckles = smoothstep(0.6, 0.75, fractal(rng, size, 24, 2)) * rng.uniform(0, 0.35)
    canvas.polygon(outline, base * (1 - speckles)[..., None], 0.5)
    canvas.polygon(outline * 0.8, base * 1.03 * (1 - speckles)[..., None], 0.15)
    if rng.random() < 0.5:
        canvas.line(np.array([[0, -0.7 * width], [0, 0.7 * width]]), 0.06, base * 0.7)
    return canvas.drawing()


def bottle_cap(rng: Generator, size: int) -> Drawing:
    """A crown cap from above: wavy rim and a printed emblem."""
    canvas = Canvas(rng, size)
    count = int(rng.integers(18, 24))
    rim = canvas.visible(colour(rng))
    waves = 0.95 + 0.05 * np.cos(np.arange(count * 6) * 2 * np.pi / 6)
    canvas.polygon(circle_points(count * 6, waves), rim, 0.6)
    for angle in np.arange(count) * 2 * np.pi / count:
        direction = np.array([np.cos(angle), np.sin(angle)])
        canvas.line(np.stack([direction * 0.78, direction * 0.92]), 0.04, rim * 0.65)
    canvas.disc((0, 0), 0.74, rim * rng.uniform(0.9, 1.1), 0.3)
    emblem = colour(rng)
    points = int(rng.integers(3, 7))
    canvas.polygon(circle_points(points * 2, np.tile([0.5, rng.uniform(0.2, 0.5)], points)), emblem)
    return canvas.drawing()


def gear(rng: Generator, size: int) -> Drawing:
    """A toothed wheel with a hub and holes or spokes."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng) if rng.random() < 0.7 else colour(rng))
    teeth = int(rng.integers(9, 18))
    profile = np.tile([1.0, 1.0, 0.82, 0.82], teeth)
    canvas.polygon(circle_points(teeth * 4, profile), metal, 0.5)
    canvas.disc((0, 0), rng.uniform(0.55, 0.68), metal * rng.uniform(0.75, 0.95), 0.3)
    holes = int(rng.integers(3, 7))
    for place in circle_points(holes, 0.42):
        canvas.disc(tuple(place), rng.uniform(0.095, 0.1), metal * 0.3)
    canvas.disc((0, 0), 0.2, metal * 1.1, 0.4)
    canvas.disc((0, 0), 0.09, metal * 0.25)
    return canvas.drawing()


def jewel_ring(rng: Generator, size: int) -> Drawing:
    """A thin finger ring with a stone."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng))
    hoop = circle_points(48, 0.72)
    hoop = shifted(np.concatenate([hoop, hoop[:1]]), 0, 0.2)
    canvas.line(hoop, rng.uniform(0.09, 0.16), metal, 0.8)
    stone = hsv(rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.5, 0.95))
    facets = shifted(circle_points(int(rng.integers(5, 9)), rng.uniform(0.3, 0.4)), 0, -0.6)
    canvas.polygon(facets, canvas.visible(stone), 0.7)
    canvas.polygon(shifted(shifted(facets, 0, 0.6) * 0.5, 0, -0.6), np.clip(stone * 1.3, 0, 1))
    return canvas.drawing()


def button(rng: Generator, size: int) -> Drawing:
    """A sewing button with a rim and two or four thread holes."""
    canvas = Canvas(rng, size)
    first, second = palette(rng, 2, (0.1, 0.3))
    base = canvas.visible(first)
    swirl = mix(base, second, fractal(rng, size, 4, 3) * rng.uniform(0, 0.5))
    canvas.disc((0, 0), 1.0, swirl, 0.5)
    canvas.disc((0, 0), rng.uniform(0.68, 0.8), swirl * rng.uniform(0.82, 0.95), 0.35)
    holes = circle_points(int(rng.choice([2, 4])), rng.uniform(0.22, 0.3))
    for place in holes:
        canvas.disc(tuple(place), 0.1, base * 0.2)
    return canvas.drawing()


def coin(rng: Generator, size: int) -> Drawing:
    """A coin with a raised rim, an emblem and rays or pearls."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng))
    worn = metal * (0.9 + 0.2 * fractal(rng, size, 8, 4))[..., None]
    canvas.disc((0, 0), 1.0, worn, 0.5)
    canvas.disc((0, 0), 0.88, worn * 0.85, 0.4)
    for place in circle_points(int(rng.integers(14, 30)), 0.76):
        canvas.disc(tuple(place), 0.045, metal * 1.1)
    blocks = int(rng.integers(5, 9))
    emblem = circle_points(blocks, rng.uniform(0.25, 0.55, blocks))
    canvas.polygon(emblem, worn * 1.08, 0.7)
    return canvas.drawing()


def cookie(rng: Generator, size: int) -> Drawing:
    """A baked biscuit with an uneven rim and chips."""
    canvas = Canvas(rng, size)
    dough = canvas.visible(hsv(rng.uniform(0.06, 0.11), rng.uniform(0.3, 0.6), rng.uniform(0.55, 0.9)))
    outline = circle_points(36, 0.96 + 0.03 * np.convolve(rng.normal(0, 1, 38), np.ones(3) / 2, "valid"))
    crumb = dough * (0.8 + 0.3 * fractal(rng, size, 12, 4, 0.7))[..., None]
    canvas.polygon(outline, crumb, 0.5)
    chip = hsv(rng.uniform(0.02, 0.08), 0.5, rng.uniform(0.15, 0.3))
    for place in circle_points(5, 0.25).tolist() + circle_points(9, 0.65, rng.random()).tolist():
        jitter = np.array(place) + rng.normal(0, 0.05, 2)
        canvas.polygon(circle_points(7, rng.uniform(0.07, 0.12, 7)) + jitter, chip, 0.3)
    return canvas.drawing()


def plate(rng: Generator, size: int) -> Drawing:
    """A dinner plate with a wide border and a decorated band."""
    canvas = Canvas(rng, size)
    base = canvas.visible(hsv(rng.random(), rng.uniform(0, 0.25), rng.uniform(0.75, 0.97)))
    accent = colour(rng)
    canvas.disc((0, 0), 1.0, base, 0.35)
    canvas.disc((0, 0), 0.95, accent)
    canvas.disc((0, 0), rng.uniform(0.88, 0.92), base)
    canvas.disc((0, 0), 0.62, base * 0.9, 0.25)
    canvas.disc((0, 0), 0.58, base * rng.uniform(0.95, 1.02))
    if rng.random() < 0.5:
        for place in circle_points(int(rng.integers(8, 16)), 0.76):
            canvas.disc(tuple(place), 0.06, accent)
    return canvas.drawing()


def bottle(rng: Generator, size: int) -> Drawing:
    """A glass bottle from above, as a camera over a filling line sees it."""
    canvas = Canvas(rng, size)
    glass = canvas.visible(hsv(rng.choice([0.08, 0.3, 0.33, 0.55]), rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.6)))
    canvas.disc((0, 0), 1.0, glass, 0.6)
    canvas.disc((0, 0), 0.86, glass * 0.5, 0.3)
    canvas.disc((0, 0), 0.74, glass * rng.uniform(1.1, 1.5), 0.4)
    x, y = canvas.coordinates()
    depth = smoothstep(0.0, 0.6, np.hypot(x + 0.1, y - 0.1))
    canvas.disc((0, 0), 0.6, glass * (0.25 + 0.5 * depth)[..., None])
    canvas.disc((rng.uniform(-0.1, 0.1), 0), 0.16, np.clip(glass * 1.8, 0, 1))
    return canvas.drawing()


def cable(rng: Generator, size: int) -> Drawing:
    """Cross-section of a cable: jacket, insulated cores, strands."""
    canvas = Canvas(rng, size)
    jacket = canvas.visible(colour(rng))
    canvas.disc((0, 0), 1.0, jacket, 0.3)
    canvas.disc((0, 0), 0.86, np.full(3, rng.uniform(0.7, 0.95), np.float32))
    copper = hsv(rng.uniform(0.04, 0.1), rng.uniform(0.4, 0.65), rng.uniform(0.6, 0.9))
    cores = int(rng.choice([3, 4]))
    for place in circle_points(cores, 0.44):
        canvas.disc(tuple(place), 0.37, colour(rng, rng.uniform(0.2, 0.9)), 0.2)
        canvas.disc(tuple(place), 0.25, copper * 0.5)
        for strand in np.concatenate([circle_points(6, 0.16, rng.random()), [[0, 0]]]):
            canvas.disc(tuple(place + strand), 0.075, copper)
    return canvas.drawing()


def blister(rng: Generator, size: int) -> Drawing:
    """A blister pack with tablets in rows."""
    canvas = Canvas(rng, size)
    foil = canvas.visible(hsv(rng.random(), rng.uniform(0, 0.15), rng.uniform(0.55, 0.85)))
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    canvas.polygon(rounded_box(1.0, 0.72, 0.12), foil * (0.9 + 0.2 * fractal(rng, size, 20, 2))[..., None], 0.4)
    tablet = colour(rng)
    radius = min(0.8 / columns, 0.58 / rows) * 0.75
    for x in (np.arange(columns) + 0.5) / columns * 1.8 - 0.9:
        for y in (np.arange(rows) + 0.5) / rows * 1.3 - 0.65:
            canvas.disc((x, y), radius * 1.12, foil * 0.75)
            canvas.disc((x, y), radius, tablet, 0.7)
    return canvas.drawing()


def label(rng: Generator, size: int) -> Drawing:
    """A hang tag with a hole, a band and lines of print."""
    canvas = Canvas(rng, size)
    card, ink = palette(rng, 2, (0.3, 0.6))
    card = canvas.visible(card)
    canvas.polygon(np.array([[-1, 0], [-0.65, -0.6], [1, -0.6], [1, 0.6], [-0.65, 0.6]]), card, 0.25)
    canvas.disc((-0.72, 0), 0.1, np.full(3, 0.1, np.float32))
    canvas.box(0.75, -0.6, 0.92, 0.6, colour(rng))
    for row in np.arange(-0.4, 0.5, rng.uniform(0.17, 0.25)):
        canvas.box(-0.4, row, rng.uniform(0.1, 0.6), row + 0.08, ink)
    return canvas.drawing()


def lens(rng: Generator, size: int) -> Drawing:
    """A camera lens from the front: barrel, coated glass, reflections."""
    canvas = Canvas(rng, size)
    barrel = canvas.visible(np.full(3, rng.uniform(0.08, 0.35), np.float32))
    canvas.disc((0, 0), 1.0, barrel, 0.7)
    for place in circle_points(36, 0.94):
        canvas.disc(tuple(place), 0.03, barrel * 1.8)
    canvas.disc((0, 0), 0.8, barrel * 0.5)
    coat = hsv(rng.random(), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.6))
    x, y = canvas.coordinates()
    canvas.disc((0, 0), 0.7, coat * (0.4 + 0.7 * np.hypot(x - 0.2, y + 0.2))[..., None], 0.4)
    canvas.disc((0, 0), 0.3, coat * 0.25, 0.3)
    canvas.disc((-0.3, -0.3), 0.12, np.clip(coat * 2 + 0.3, 0, 1))
    return canvas.drawing()


def pizza(rng: Generator, size: int) -> Drawing:
    """A pie with crust, sauce and slices of topping."""
    canvas = Canvas(rng, size)
    crust = canvas.visible(hsv(rng.uniform(0.07, 0.11), rng.uniform(0.4, 0.6), rng.uniform(0.6, 0.9)))
    canvas.disc((0, 0), 1.0, crust * (0.85 + 0.3 * fractal(rng, size, 10, 3))[..., None], 0.5)
    cheese = mix(hsv(0.13, 0.5, 0.95), hsv(0.03, 0.75, 0.75), smoothstep(0.35, 0.65, fractal(rng, size, 9, 3)))
    canvas.disc((0, 0), 0.84, cheese, 0.2)
    topping = hsv(rng.choice([0.0, 0.02, 0.3, 0.12]), rng.uniform(0.5, 0.8), rng.uniform(0.35, 0.8))
    for place in np.concatenate([circle_points(6, 0.6, rng.random()), circle_points(3, 0.24)]):
        canvas.disc(tuple(place + rng.normal(0, 0.03, 2)), 0.14, topping, 0.4)
    return canvas.drawing()


def dial(rng: Generator, size: int) -> Drawing:
    """A gauge with marks around it and one hand."""
    canvas = Canvas(rng, size)
    face, ink = palette(rng, 2, (0.35, 0.7))
    canvas.disc((0, 0), 1.0, canvas.visible(metal_colour(rng)), 0.6)
    canvas.disc((0, 0), 0.87, face)
    marks = circle_points(int(rng.integers(10, 17)))
    for place in marks:
        canvas.line(np.stack([place * 0.66, place * 0.78]), 0.05, ink)
    canvas.line(np.stack([[0, 0], marks[rng.integers(len(marks))] * 0.6]), 0.08, colour(rng, 0.9))
    canvas.disc((0, 0), 0.11, ink)
    return canvas.drawing()


ROUND_OBJECTS: dict[str, Renderer] = {
    "pill": pill,
    "bottle cap": bottle_cap,
    "gear": gear,
    "ring": jewel_ring,
    "button": button,
    "coin": coin,
    "cookie": cookie,
    "plate": plate,
    "bottle": bottle,
    "cable": cable,
    "blister pack": blister,
    "label": label,
    "lens": lens,
    "pizza": pizza,
    "dial": dial,
}
