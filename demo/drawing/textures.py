"""Regular surfaces: patterns that repeat.

Each function draws (rng, size) -> float32 RGB (size, size, 3), about 0..1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from demo.drawing.noise import (
    Array,
    Generator,
    cell_values,
    coordinates,
    field,
    fractal,
    grain,
    lit,
    log_uniform,
    metal_colour,
    mix,
    palette,
    random_angle,
    random_period,
    smoothstep,
)

Texture = Callable[[Generator, int], Array]


def _light(rng: Generator) -> float:
    return float(rng.uniform(0, 2 * np.pi))


def _soiled(rng: Generator, picture: Array, most: float = 0.12) -> Array:
    """Give a pattern the faint unevenness and grain every real surface has."""
    size = picture.shape[0]
    uneven = 1.0 + rng.uniform(0, most) * (fractal(rng, size, 3, 3) - 0.5) * 2
    return picture * uneven[..., None] + (rng.uniform(0, 0.02) * grain(rng, size))[..., None]


def _border(across: Array, down: Array) -> tuple[Array, Array, Array]:
    """Distance to the border of the unit cell (0..0.5), and the cell's column and row numbers."""
    columns, rows = np.floor(across), np.floor(down)
    part_x, part_y = across - columns, down - rows
    border = np.minimum(np.minimum(part_x, 1 - part_x), np.minimum(part_y, 1 - part_y))
    return border, columns, rows


def stripes(rng: Generator, size: int) -> Array:
    """Parallel bands of two or three colours."""
    x, _ = coordinates(rng, size, random_period(rng, 0.08, 0.3), warp=rng.uniform(0, 0.4))
    first, second, third = palette(rng, 3)
    part = x % 1
    soft = rng.uniform(0.02, 0.2)
    band = smoothstep(0.5 - soft, 0.5 + soft, np.abs(part - 0.5) * 2)
    picture = mix(first, second, band)
    if rng.random() < 0.5:
        picture = mix(picture, third, smoothstep(0.1, 0.05, np.abs(part - rng.random())))
    return _soiled(rng, picture)


def tiles(rng: Generator, size: int) -> Array:
    """Square ceramic tiles with joints."""
    x, y = coordinates(rng, size, random_period(rng, 0.14, 0.4))
    border, columns, rows = _border(x, y)
    first, joint, other = palette(rng, 3)
    values = cell_values(rng, columns, rows)
    face = mix(first, other, values * rng.uniform(0, 0.5))
    width = rng.uniform(0.03, 0.08)
    height = smoothstep(width * 0.6, width * 1.6, border)
    return _soiled(rng, lit(mix(joint, face, height), height, rng.uniform(0, 0.12), _light(rng)))


def paving(rng: Generator, size: int) -> Array:
    """Long slabs in rows shifted against each other, with joints and uneven faces."""
    x, y = coordinates(rng, size, random_period(rng, 0.12, 0.25), warp=rng.uniform(0, 0.25))
    row = np.floor(y)
    shift = rng.uniform(0.25, 0.6)
    border, columns, rows = _border(x / rng.uniform(1.3, 2.6) + row * shift, y)
    first, joint, other = palette(rng, 3)
    face = mix(
        first, other, np.clip(cell_values(rng, columns, rows) * 0.6 + 0.4 * fractal(rng, size, 12, 3) - 0.1, 0, 1)
    )
    width = rng.uniform(0.04, 0.1)
    height = smoothstep(width * 0.4, width * 1.6, border + 0.04 * (field(rng, size, 24) - 0.5))
    height = height + 0.3 * fractal(rng, size, 16, 3)
    return _soiled(rng, lit(mix(joint, face, np.clip(height, 0, 1)), height, rng.uniform(0.02, 0.12), _light(rng)))


def mesh(rng: Generator, size: int) -> Array:
    """A grid of wires over a plain ground."""
    x, y = coordinates(rng, size, random_period(rng, 0.08, 0.2), warp=rng.uniform(0, 0.3))
    ground, wire = palette(rng, 2, (0.25, 0.6))
    if rng.random() < 0.5:
        wire = metal_colour(rng)
    width = rng.uniform(0.12, 0.25)
    lines = np.maximum(
        smoothstep(width, width * 0.5, np.abs(x % 1 - 0.5)), smoothstep(width, width * 0.5, np.abs(y % 1 - 0.5))
    )
    return _soiled(rng, lit(mix(ground, wire, lines), lines, rng.uniform(0, 0.15), _light(rng)))


def rings(rng: Generator, size: int) -> Array:
    """Concentric circles around a point, as on a turned surface."""
    x, y = coordinates(rng, size, random_period(rng, 0.06, 0.16), warp=rng.uniform(0, 0.4))
    radius = np.hypot(x - x.mean() - rng.uniform(-5, 5), y - y.mean() - rng.uniform(-5, 5))
    first, second = palette(rng, 2)
    wave = 0.5 + 0.5 * np.sin(radius * 2 * np.pi)
    return _soiled(rng, mix(first, second, smoothstep(rng.uniform(0, 0.4), rng.uniform(0.6, 1), wave)))


def checker(rng: Generator, size: int) -> Array:
    """A two-coloured chessboard pattern."""
    x, y = coordinates(rng, size, random_period(rng, 0.15, 0.4), warp=rng.uniform(0, 0.2))
    first, second = palette(rng, 2, (0.2, 0.6))
    wave = np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y)
    soft = rng.uniform(0.08, 0.25)
    return _soiled(rng, mix(first, second, smoothstep(-soft, soft, wave)))


def dots(rng: Generator, size: int) -> Array:
    """Round spots in a square or hexagonal order."""
    x, y = coordinates(rng, size, random_period(rng, 0.09, 0.25))
    if rng.random() < 0.5:
        x, y = x + 0.5 * np.floor(y), y
    border, columns, rows = _border(x, y)
    del border
    ground, spot, other = palette(rng, 3, (0.2, 0.6))
    distance = np.hypot(x - columns - 0.5, y - rows - 0.5)
    radius = rng.uniform(0.2, 0.38)
    picture = mix(
        ground,
        mix(spot, other, cell_values(rng, columns, rows) * rng.uniform(0, 0.5)),
        smoothstep(radius + 0.07, radius - 0.07, distance),
    )
    return _soiled(rng, picture)


def perforated_sheet(rng: Generator, size: int) -> Array:
    """A metal sheet with a lattice of punched holes."""
    x, y = coordinates(rng, size, random_period(rng, 0.1, 0.22))
    if rng.random() < 0.6:
        x = x + 0.5 * (np.floor(y) % 2)
    sheet = metal_colour(rng) * rng.uniform(0.8, 1.1)
    distance = np.hypot(x % 1 - 0.5, y % 1 - 0.5)
    radius = rng.uniform(0.2, 0.34)
    solid = smoothstep(radius - 0.05, radius + 0.06, distance)
    brushed = 1 + 0.08 * (fractal(rng, size, (40, 3), 2) - 0.5)
    picture = mix(sheet * rng.uniform(0.05, 0.3), sheet * brushed[..., None], solid)
    return _soiled(rng, lit(picture, solid, rng.uniform(0.03, 0.15), _light(rng)))


def honeycomb(rng: Generator, size: int) -> Array:
    """Hexagonal cells with walls."""
    x, y = coordinates(rng, size, random_period(rng, 0.12, 0.28), warp=rng.uniform(0, 0.2))
    root = np.float32(np.sqrt(3))
    y = y * 2 / root / 1.1547
    first_x, first_y = x % 1 - 0.5, y % root - root / 2
    second_x, second_y = (x + 0.5) % 1 - 0.5, (y + root / 2) % root - root / 2
    nearer = np.hypot(first_x, first_y) < np.hypot(second_x, second_y)
    part_x, part_y = np.abs(np.where(nearer, first_x, second_x)), np.abs(np.where(nearer, first_y, second_y))
    depth = np.maximum(part_x, part_x * 0.5 + part_y * root / 2)  # 0 in the middle, 0.5 on the wall
    cell, wall = palette(rng, 2, (0.2, 0.5))
    width = rng.uniform(0.06, 0.13)
    height = smoothstep(0.5 - width * 1.4, 0.5 - width * 0.5, depth)
    inside = cell * (1 - 0.4 * smoothstep(0.2, 0.5, depth))[..., None]
    return _soiled(rng, lit(mix(inside, wall, height), height, rng.uniform(0, 0.12), _light(rng)))


def waves(rng: Generator, size: int) -> Array:
    """Sinuous parallel lines."""
    x, y = coordinates(rng, size, random_period(rng, 0.08, 0.22))
    bend = rng.uniform(0.2, 0.7) * np.sin(y * 2 * np.pi * rng.uniform(0.25, 0.6))
    first, second = palette(rng, 2)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (x + bend))
    return _soiled(rng, lit(mix(first, second, wave), wave, rng.uniform(0, 0.15), _light(rng)))


def corduroy(rng: Generator, size: int) -> Array:
    """Raised, slightly hairy parallel ribs of cloth."""
    x, y = coordinates(rng, size, random_period(rng, 0.06, 0.14), warp=rng.uniform(0, 0.5))
    del y
    rib = np.abs(np.sin(np.pi * x))
    first, second = palette(rng, 2)
    fuzz = grain(rng, size, 0.7)
    picture = mix(second * 0.6, first, np.clip(rib + 0.12 * fuzz, 0, 1))
    return _soiled(rng, picture)


def knitted(rng: Generator, size: int) -> Array:
    """Rows of V-shaped stitches."""
    x, y = coordinates(rng, size, random_period(rng, 0.1, 0.2), warp=rng.uniform(0, 0.3))
    side = np.abs(x % 1 - 0.5)
    along = (y * rng.uniform(1.2, 1.8) + side * rng.uniform(1.2, 1.8)) % 1
    stitch = smoothstep(0.0, 0.3, along) * smoothstep(1.0, 0.7, along)
    stitch = stitch * smoothstep(0.5, 0.42, side) * smoothstep(0.0, 0.08, side)
    yarn, gap, other = palette(rng, 3)
    yarn_picture = mix(yarn, other, smoothstep(0.4, 0.6, fractal(rng, size, 3, 2)) * rng.uniform(0, 0.3))
    picture = mix(gap * 0.5, yarn_picture * (1 + 0.06 * grain(rng, size, 0.6))[..., None], stitch)
    return _soiled(rng, lit(picture, stitch, rng.uniform(0, 0.08), _light(rng)))


def plaid(rng: Generator, size: int) -> Array:
    """Cloth with crossing bands of several widths."""
    x, y = coordinates(rng, size, random_period(rng, 0.25, 0.5), warp=rng.uniform(0, 0.1))
    colours = palette(rng, 4, (0.15, 0.5))
    picture = np.broadcast_to(colours[0], (size, size, 3))
    for other in colours[1:]:
        place, width, weight = rng.random(), rng.uniform(0.04, 0.18), rng.uniform(0.4, 0.7)
        for axis in (x, y):
            picture = mix(picture, other, weight * smoothstep(width, width - 0.03, np.abs((axis + place) % 1 - 0.5)))
    thread = np.sin((x + y) * 2 * np.pi * rng.integers(8, 14))
    return _soiled(rng, picture * (1 + rng.uniform(0, 0.1) * thread)[..., None])


def herringbone(rng: Generator, size: int) -> Array:
    """Parquet of blocks twice as long as wide, laid at right angles."""
    x, y = coordinates(rng, size, random_period(rng, 0.09, 0.18))
    columns, rows = np.floor(x), np.floor(y)
    part_x, part_y = x - columns, y - rows
    step = (columns - rows) % 4  # 0 and 1: halves of a lying block; 3 and 2: halves of a standing one
    lying = step < 2
    along = np.where(step == 0, part_x, np.where(step == 1, part_x + 1, np.where(step == 3, part_y, part_y + 1)))
    across = np.where(lying, part_y, part_x)
    border = np.minimum(np.minimum(along, 2 - along), np.minimum(across, 1 - across))
    values = cell_values(rng, columns - (step == 1), rows - (step == 2))
    first, second, joint = palette(rng, 3)
    streak = np.where(lying, fractal(rng, size, (30, 5), 2), fractal(rng, size, (5, 30), 2))
    face = mix(first, second, np.clip(0.7 * values + 0.4 * streak - 0.1, 0, 1))
    return _soiled(rng, mix(joint * 0.6, face, smoothstep(0.0, rng.uniform(0.08, 0.16), border)))


def scales(rng: Generator, size: int) -> Array:
    """Overlapping round shingles."""
    x, y = coordinates(rng, size, random_period(rng, 0.13, 0.28), warp=rng.uniform(0, 0.15))
    row = np.floor(y * 2)
    depth = np.zeros((size, size), np.float32)
    values = np.zeros((size, size), np.float32)
    table_seed = int(rng.integers(2**31))
    for behind in (2, 1, 0):  # nearer rows are painted later, over the ones behind
        base = row - behind
        shifted = x + 0.5 * (base % 2)
        column = np.floor(shifted)
        distance = np.hypot(shifted - column - 0.5, (y * 2 - base) / 2 - 0.0)
        inside = distance < 0.56
        depth = np.where(inside, distance / 0.56, depth)
        values = np.where(inside, cell_values(np.random.default_rng(table_seed), column, base), values)
    first, second = palette(rng, 2)
    face = mix(first, second, values * 0.6)
    dark = 1 - rng.uniform(0.4, 0.7) * smoothstep(0.75, 1.0, depth) - 0.15 * depth
    return _soiled(rng, face * dark[..., None])


def weathered_boards(rng: Generator, size: int) -> Array:
    """Planks side by side, with gaps and a little grain."""
    x, y = coordinates(rng, size, random_period(rng, 0.16, 0.4))
    column = np.floor(x)
    values = cell_values(rng, column, np.zeros_like(column))
    first, second = palette(rng, 2, (0.08, 0.3))
    lines = np.sin((x * rng.uniform(5, 9) + 0.6 * fractal(rng, size, 3, 3) * 6 + values * 40) * 2)
    face = mix(first, second, np.clip(values + 0.2 * lines, 0, 1))
    part = x % 1
    gap = smoothstep(0.0, rng.uniform(0.05, 0.1), np.minimum(part, 1 - part))
    del y
    return _soiled(rng, face * (0.25 + 0.75 * gap)[..., None])


def studded_rubber(rng: Generator, size: int) -> Array:
    """Round studs raised on a mat, shaded by the light."""
    x, y = coordinates(rng, size, random_period(rng, 0.14, 0.28))
    x = x + 0.5 * (np.floor(y) % 2) * (rng.random() < 0.5)
    distance = np.hypot(x % 1 - 0.5, y % 1 - 0.5)
    height = smoothstep(0.4, rng.uniform(0.15, 0.3), distance)
    (ground,) = palette(rng, 1)
    picture = np.broadcast_to(ground, (size, size, 3)) * (0.85 + 0.15 * height)[..., None]
    return _soiled(rng, lit(picture, height, rng.uniform(0.2, 0.5), _light(rng)))


def diamond_plate(rng: Generator, size: int) -> Array:
    """Sheet metal with raised bars in alternating directions."""
    x, y = coordinates(rng, size, random_period(rng, 0.14, 0.28))
    columns, rows = np.floor(x), np.floor(y)
    part_x, part_y = x - columns - 0.5, y - rows - 0.5
    turn = np.where((columns + rows) % 2 > 0, 1.0, -1.0).astype(np.float32)
    along, across = (part_x + turn * part_y) * 0.7071, (part_x - turn * part_y) * 0.7071
    height = smoothstep(1.0, 0.5, np.hypot(along / 0.46, across / 0.15))
    picture = metal_colour(rng) * (0.8 + 0.2 * height + 0.05 * fractal(rng, size, 20, 2))[..., None]
    return _soiled(rng, lit(picture, height, rng.uniform(0.1, 0.3), _light(rng)))


def lattice_print(rng: Generator, size: int) -> Array:
    """A wallpaper of repeated small ornaments (interfering waves, cut at a level)."""
    x, y = coordinates(rng, size, random_period(rng, 0.2, 0.45))
    total = np.zeros((size, size), np.float32)
    for _ in range(4):
        turns_x, turns_y = rng.integers(-3, 4, 2)
        total += np.cos(2 * np.pi * (turns_x * x + turns_y * y + rng.random())).astype(np.float32)
    first, second, third = palette(rng, 3)
    soft = rng.uniform(0.1, 0.5)
    picture = mix(mix(first, second, smoothstep(-soft, soft, total)), third, smoothstep(1.2, 1.2 + soft, total))
    return _soiled(rng, picture, log_uniform(rng, 0.03, 0.15))


def ribbed_plastic(rng: Generator, size: int) -> Array:
    """Narrow ribs with gloss."""
    x, _ = coordinates(rng, size, random_period(rng, 0.08, 0.2), angle=random_angle(rng))
    height = smoothstep(0.2, 0.5, np.abs(x % 1 - 0.5))
    (ground,) = palette(rng, 1)
    gloss = smoothstep(0.8, 1.0, np.sin(2 * np.pi * (x + 0.2))) * rng.uniform(0.1, 0.4)
    picture = np.broadcast_to(ground, (size, size, 3)) * (0.6 + 0.4 * height)[..., None] + gloss[..., None]
    return _soiled(rng, picture)


REGULAR: dict[str, Texture] = {
    "stripes": stripes,
    "tiles": tiles,
    "paving": paving,
    "mesh": mesh,
    "rings": rings,
    "checker": checker,
    "dots": dots,
    "perforated sheet": perforated_sheet,
    "honeycomb": honeycomb,
    "waves": waves,
    "corduroy": corduroy,
    "knitted": knitted,
    "plaid": plaid,
    "herringbone": herringbone,
    "scales": scales,
    "boards": weathered_boards,
    "rubber mat": studded_rubber,
    "tread plate": diamond_plate,
    "wallpaper": lattice_print,
    "ribbed plastic": ribbed_plastic,
}
