"""Long and many-parted objects of the pretraining set. Each function draws (rng, size) -> Drawing."""

from __future__ import annotations

import numpy as np

from demo.drawing.canvas import Canvas, Drawing, circle_points, rounded_box, shifted
from demo.drawing.noise import Generator, colour, fractal, hsv, metal_colour, palette
from demo.drawing.objects import Renderer


def _dark(rng: Generator) -> np.ndarray:
    return np.full(3, rng.uniform(0.08, 0.3), np.float32)


def screw(rng: Generator, size: int) -> Drawing:
    """A wood screw from the side: flat head, thread, tip."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng))
    canvas.polygon(np.array([[-0.75, -0.12], [0.75, -0.12], [1.0, 0.0], [0.75, 0.12], [-0.75, 0.12]]), metal, 0.6)
    for x in np.arange(-0.35, 0.8, rng.uniform(0.11, 0.15)):
        canvas.line(np.array([[x, -0.19], [x + 0.09, 0.19]]), 0.05, metal * 1.15)
        canvas.line(np.array([[x + 0.05, -0.12], [x + 0.12, 0.12]]), 0.03, metal * 0.5)
    canvas.polygon(
        np.array([[-1.0, -0.34], [-0.9, -0.34], [-0.68, -0.12], [-0.68, 0.12], [-0.9, 0.34], [-1.0, 0.34]]), metal, 0.6
    )
    return canvas.drawing()


def bolt(rng: Generator, size: int) -> Drawing:
    """A machine bolt from the side: block head, smooth shank, fine thread."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng))
    canvas.box(-0.65, -0.2, 1.0, 0.2, metal, 0.8)
    for x in np.arange(rng.uniform(0.0, 0.3), 0.98, 0.1):
        canvas.line(np.array([[x, -0.2], [x + 0.02, 0.2]]), 0.04, metal * 0.55)
    canvas.polygon(shifted(rounded_box(0.2, 0.44, 0.06), -0.8, 0), metal, 0.5)
    canvas.line(np.array([[-0.98, -0.18], [-0.62, -0.18]]), 0.03, metal * 0.6)
    canvas.line(np.array([[-0.98, 0.18], [-0.62, 0.18]]), 0.03, metal * 0.6)
    return canvas.drawing()


def fuse(rng: Generator, size: int) -> Drawing:
    """A glass fuse: metal ends and a wire inside."""
    canvas = Canvas(rng, size)
    glass = canvas.visible(hsv(rng.uniform(0.45, 0.6), rng.uniform(0.05, 0.25), rng.uniform(0.7, 0.95)))
    metal = canvas.visible(metal_colour(rng))
    canvas.box(-0.7, -0.24, 0.7, 0.24, glass, 0.5)
    sway = rng.uniform(-0.1, 0.1)
    canvas.line(np.array([[-0.7, sway], [0, -sway], [0.7, sway]]), 0.05, metal * 0.4)
    canvas.box(-0.65, -0.16, 0.65, -0.1, np.clip(glass * 1.2, 0, 1))
    for side in (-1, 1):
        canvas.polygon(shifted(rounded_box(0.2, 0.28, 0.05), side * 0.8, 0), metal, 0.9)
    return canvas.drawing()


def resistor(rng: Generator, size: int) -> Drawing:
    """A resistor with colour bands and two leads."""
    canvas = Canvas(rng, size)
    body = canvas.visible(hsv(rng.choice([0.1, 0.55, 0.08]), rng.uniform(0.2, 0.5), rng.uniform(0.6, 0.9)))
    canvas.line(np.array([[-1.05, 0], [1.05, 0]]), 0.07, canvas.visible(metal_colour(rng)), 0.4)
    canvas.polygon(rounded_box(0.62, 0.22, 0.12), body, 0.9)
    for side in (-1, 1):
        canvas.polygon(shifted(rounded_box(0.16, 0.28, 0.13), side * 0.48, 0), body, 0.9)
    for x in (-0.5, -0.25, 0.0, 0.5):
        half = 0.28 if abs(x) == 0.5 else 0.22
        canvas.box(x - 0.05, -half, x + 0.05, half, colour(rng, rng.uniform(0.4, 1.0)), 0.3)
    return canvas.drawing()


def key(rng: Generator, size: int) -> Drawing:
    """A door key: bow with a slot, blade with notches."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng))
    places = np.linspace(-0.1, 0.95, 8)
    notches = rng.uniform(0.04, 0.18, 8)
    lower = np.stack([places, notches], axis=1)[::-1]
    canvas.polygon(np.concatenate([[[-0.4, -0.17], [0.9, -0.17], [1.0, -0.05]], lower, [[-0.4, 0.17]]]), metal, 0.5)
    canvas.line(np.array([[-0.3, -0.06], [0.85, -0.06]]), 0.05, metal * 0.6)
    canvas.polygon(shifted(circle_points(int(rng.choice([6, 30])), 0.42), -0.6, 0), metal, 0.5)
    canvas.disc((-0.8, 0), 0.1, np.full(3, 0.12, np.float32))
    return canvas.drawing()


def led(rng: Generator, size: int) -> Drawing:
    """A light-emitting diode: coloured dome with a flange and two legs."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng))
    canvas.line(np.array([[0.1, -0.14], [1.0, -0.14]]), 0.07, metal, 0.3)
    canvas.line(np.array([[0.1, 0.14], [0.85, 0.14]]), 0.07, metal, 0.3)
    tint = canvas.visible(hsv(rng.random(), rng.uniform(0.5, 0.95), rng.uniform(0.5, 0.95)))
    dome = circle_points(24, 0.36)
    canvas.polygon(np.concatenate([shifted(dome[6:19], -0.55, 0), [[0.15, -0.36], [0.15, 0.36]]]), tint, 0.8)
    canvas.polygon(shifted(rounded_box(0.09, 0.46, 0.04), 0.18, 0), tint * 0.8, 0.5)
    canvas.box(-0.45, -0.2, -0.1, 0.05, tint * 0.6)
    canvas.line(np.array([[-0.6, -0.2], [0.0, -0.2]]), 0.06, np.clip(tint * 1.3 + 0.15, 0, 1))
    return canvas.drawing()


def chip(rng: Generator, size: int) -> Drawing:
    """An integrated circuit: black body, two rows of legs, print."""
    canvas = Canvas(rng, size)
    metal, body = canvas.visible(metal_colour(rng)), canvas.visible(_dark(rng))
    count = int(rng.integers(5, 10))
    for x in (np.arange(count) + 0.5) / count * 1.8 - 0.9:
        canvas.box(x - 0.5 / count, -0.68, x + 0.5 / count, 0.68, metal, 0.3)
    canvas.polygon(rounded_box(0.98, 0.45, 0.05), body * (0.9 + 0.2 * fractal(rng, size, 30, 2))[..., None], 0.3)
    canvas.disc((-0.82, 0.26), 0.08, body * 0.4)
    ink = np.full(3, rng.uniform(0.6, 0.9), np.float32)
    for row in (-0.15, 0.1):
        for x in np.arange(-0.55, rng.uniform(0.1, 0.7), 0.16):
            canvas.box(x, row, x + rng.uniform(0.06, 0.12), row + 0.13, ink)
    return canvas.drawing()


def battery(rng: Generator, size: int) -> Drawing:
    """A round cell lying on its side, with a coloured sleeve."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng))
    canvas.box(-0.98, -0.12, -0.85, 0.12, metal, 0.5)
    canvas.polygon(shifted(rounded_box(0.92, 0.38, 0.06), 0.05, 0), metal, 0.9)
    first, second = canvas.visible(colour(rng)), colour(rng)
    split = rng.uniform(-0.5, 0.3)
    canvas.box(-0.8, -0.38, split, 0.38, first, 0.9)
    canvas.box(split, -0.38, 0.88, 0.38, second, 0.9)
    canvas.box(split + 0.15, -0.08, split + 0.45, 0.05, np.clip(1 - second, 0, 1))
    canvas.box(-0.8, -0.2, 0.88, -0.12, np.clip(first * 0.5 + 0.5, 0, 1) * 0.98, 0)
    return canvas.drawing()


def brush(rng: Generator, size: int) -> Drawing:
    """The head of a brush: tufts in rows on a handle."""
    canvas = Canvas(rng, size)
    body = canvas.visible(colour(rng))
    canvas.polygon(rounded_box(1.0, 0.42, 0.2), body, 0.5)
    first, second = palette(rng, 2, (0.15, 0.5))
    rows, columns = int(rng.integers(3, 5)), int(rng.integers(6, 11))
    for row, y in enumerate((np.arange(rows) + 0.5) / rows * 0.7 - 0.35):
        for x in (np.arange(columns) + 0.5) / columns * 1.8 - 0.9:
            canvas.disc((x, y), 0.32 / max(rows, columns / 2.4), first if row % 2 else second, 0.5)
    return canvas.drawing()


def zipper(rng: Generator, size: int) -> Drawing:
    """A closed zipper: two tapes and interlocking teeth."""
    canvas = Canvas(rng, size)
    tape = canvas.visible(colour(rng))
    weave = tape * (0.9 + 0.2 * fractal(rng, size, 40, 1))[..., None]
    canvas.box(-1.15, -0.6, 1.15, 0.6, weave, 0.3)
    metal = metal_colour(rng)
    step = rng.uniform(0.11, 0.16)
    canvas.box(-1.15, -0.14, 1.15, 0.14, tape * 0.4)
    for number, x in enumerate(np.arange(-1.12, 1.1, step)):
        shift = 0.06 if number % 2 else -0.06
        canvas.box(x, shift - 0.14, x + step * 0.7, shift + 0.14, metal, 0.4)
    return canvas.drawing()


def pencil(rng: Generator, size: int) -> Drawing:
    """A sharpened pencil with a ferrule and a rubber."""
    canvas = Canvas(rng, size)
    paint, wood = canvas.visible(colour(rng, rng.uniform(0.3, 0.9))), hsv(0.1, 0.35, 0.88)
    canvas.box(-0.85, -0.16, 0.6, 0.16, paint, 0.7)
    canvas.box(-0.85, -0.05, 0.6, 0.05, np.clip(paint * 1.15, 0, 1))
    canvas.polygon(np.array([[0.6, -0.16], [1.05, 0.0], [0.6, 0.16]]), wood, 0.3)
    canvas.polygon(np.array([[0.9, -0.055], [1.05, 0.0], [0.9, 0.055]]), np.full(3, 0.1, np.float32))
    canvas.box(-0.95, -0.17, -0.7, 0.17, metal_colour(rng), 0.8)
    canvas.polygon(shifted(rounded_box(0.1, 0.15, 0.05), -0.98, 0), hsv(0.97, 0.4, 0.85), 0.5)
    return canvas.drawing()


def spoon(rng: Generator, size: int) -> Drawing:
    """A spoon from above."""
    canvas = Canvas(rng, size)
    metal = canvas.visible(metal_colour(rng) if rng.random() < 0.7 else colour(rng))
    canvas.line(np.array([[-0.3, 0], [1.0, 0]]), rng.uniform(0.12, 0.2), metal, 0.6)
    canvas.polygon(shifted(circle_points(30) * [0.45, 0.34], -0.6, 0), metal, 0.6)
    canvas.polygon(shifted(circle_points(30) * [0.34, 0.25], -0.6, 0), metal * 0.8, 0.6)
    return canvas.drawing()


def leaf(rng: Generator, size: int) -> Drawing:
    """A leaf with veins."""
    canvas = Canvas(rng, size)
    green = canvas.visible(hsv(rng.uniform(0.12, 0.4), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.75)))
    along = np.linspace(0, np.pi, 16)
    half = rng.uniform(0.35, 0.55) * np.sin(along) ** rng.uniform(0.7, 1.3)
    edge = np.stack([-np.cos(along), half], axis=1)
    tone = green * (0.85 + 0.3 * fractal(rng, size, 8, 3))[..., None]
    canvas.polygon(np.concatenate([edge, edge[::-1] * [1, -1]]), tone, 0.4)
    vein = np.clip(green * 1.35, 0, 1)
    canvas.line(np.array([[-1.0, 0], [0.95, 0]]), 0.05, vein)
    for place in np.linspace(-0.7, 0.6, int(rng.integers(5, 9))):
        reach = 0.7 * float(np.interp(place, edge[:, 0], half))
        for side in (-1, 1):
            canvas.line(np.array([[place, 0], [place + 0.22, side * reach]]), 0.025, vein)
    return canvas.drawing()


def connector(rng: Generator, size: int) -> Drawing:
    """A plug with a block of square contacts."""
    canvas = Canvas(rng, size)
    body = canvas.visible(colour(rng))
    columns, rows = int(rng.integers(3, 7)), int(rng.integers(2, 4))
    canvas.polygon(rounded_box(1.0, 0.6, 0.1), body, 0.6)
    canvas.box(-0.2, -0.72, 0.2, -0.55, body * 0.9, 0.3)
    contact = metal_colour(rng)
    half = min(0.85 / columns, 0.48 / rows) * 0.7
    for x in (np.arange(columns) + 0.5) / columns * 1.8 - 0.9:
        for y in (np.arange(rows) + 0.5) / rows * 1.0 - 0.5:
            canvas.box(x - half, y - half, x + half, y + half, body * 0.3)
            canvas.box(x - half * 0.5, y - half * 0.5, x + half * 0.5, y + half * 0.5, contact, 0.3)
    return canvas.drawing()


LONG_OBJECTS: dict[str, Renderer] = {
    "screw": screw,
    "bolt": bolt,
    "fuse": fuse,
    "resistor": resistor,
    "key": key,
    "diode": led,
    "chip": chip,
    "battery": battery,
    "brush": brush,
    "zipper": zipper,
    "pencil": pencil,
    "spoon": spoon,
    "leaf": leaf,
    "connector": connector,
}
