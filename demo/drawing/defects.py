"""Local defects. Each function draws (rng, scene, spot) -> (changed picture, region it was applied to).

The changed picture is (size, size, 3) float32; the region is a field (size, size) in 0..1. The caller keeps both within
the object and measures what has really changed.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from demo.drawing.canvas import Drawing
from demo.drawing.natural_textures import IRREGULAR
from demo.drawing.noise import Array, Generator, colour, fractal, hsv, log_uniform, mix, shade, smoothstep
from demo.drawing.shapes import (
    Spot,
    blob,
    contrasting_colour,
    darker_or_lighter,
    filled,
    mean_colour,
    path,
    polyline,
    warped,
)
from demo.drawing.textures import REGULAR

Change = tuple[Array, Array]
Defect = Callable[[Generator, Drawing, Spot], Change]


def scratch(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """Thin light or dark lines, straight or curved, one or several side by side."""
    length = np.clip(spot.radius * rng.uniform(2.5, 5), spot.size * 0.3, spot.size * 0.8)
    first = path(rng, spot, length, rng.choice([0.05, 0.4, 1.2]))
    mask = polyline(spot.size, first, int(rng.choice([1, 1, 2])))
    for _ in range(int(rng.choice([0, 0, 1, 3]))):
        polyline(spot.size, first + rng.normal(0, spot.size * 0.03, 2) + rng.normal(0, 0.4, first.shape), 1, mask)
    region = mask.astype(np.float32) / 255.0
    wanted = darker_or_lighter(rng, mean_colour(scene, region), 0.45)
    return mix(scene.image, wanted, region * rng.uniform(0.75, 1.0)), region


def crack(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A dark jagged line with branches."""
    length = np.clip(spot.radius * rng.uniform(2.5, 4.5), spot.size * 0.25, spot.size * 0.8)
    trunk = path(rng, spot, length, 0.6, 0.6, 14)
    thickness = int(rng.integers(1, 3))
    mask = polyline(spot.size, trunk, thickness)
    for _ in range(int(rng.integers(0, 5))):
        start = trunk[rng.integers(len(trunk))]
        branch = path(rng, spot, length * rng.uniform(0.2, 0.5), 0.5, 0.5, 7)
        polyline(spot.size, branch - branch[0] + start, 1, mask)
    region = mask.astype(np.float32) / 255.0
    local = mean_colour(scene, region)
    wanted = local * rng.uniform(0.0, 0.35) if local.mean() > 0.2 else local + 0.4
    return mix(scene.image, wanted, region * rng.uniform(0.8, 1.0)), region


def stain(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A soft-edged tint; the surface still shows through."""
    region = blob(rng, spot, 0.4, rng.uniform(0.08, 0.35))
    uneven = region * (0.7 + 0.3 * fractal(rng, spot.size, 12, 3))
    wanted = contrasting_colour(rng, mean_colour(scene, region))
    if rng.random() < 0.5:  # a wet stain multiplies, a spilt one covers
        tint = np.clip(wanted * 0.8, 0.1, 1.0)
        return mix(scene.image, scene.image * tint, uneven), region
    return mix(scene.image, wanted, uneven * rng.uniform(0.4, 0.9)), region


def hole(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A dark opening with a lighter or shaded rim."""
    region = blob(rng, spot, rng.uniform(0.0, 0.4), 0.06)
    depth = cv2.GaussianBlur(region, (0, 0), max(0.5, spot.radius * 0.15))
    dark = mean_colour(scene, region) * rng.uniform(0.0, 0.3)
    if scene.image[region > 0.5].mean() < 0.25:
        dark = dark + 0.45
    picture = mix(scene.image, dark, smoothstep(0.3, 0.9, depth))
    rim = smoothstep(0.05, 0.4, depth) * smoothstep(0.9, 0.5, depth)
    return picture * (1 + rng.uniform(-0.4, 0.5) * rim)[..., None], smoothstep(0.0, 0.3, depth)


def dent(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A pressed-in or raised place: the pattern bends and the light changes."""
    x, y = spot.offsets()
    radius = max(spot.radius * 1.2, 5.0)
    squared = (x * x + y * y) / (radius * radius)
    region = np.clip(1 - squared, 0, 1)
    bend = region * rng.uniform(0.3, 0.7) * rng.choice([-1, 1])
    picture = warped(scene.image, x * bend, y * bend)
    relief = shade(region * region, radius * rng.uniform(0.02, 0.05) * rng.choice([-1, 1]), rng.uniform(0, 2 * np.pi))
    return picture * relief[..., None], smoothstep(0.0, 0.1, region)


def bubble(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """One or more small blisters with a highlight and a shadow side."""
    picture, total = scene.image, np.zeros((spot.size, spot.size), np.float32)
    light = rng.uniform(0, 2 * np.pi)
    for _ in range(int(rng.integers(1, 5))):
        centre = np.array(spot.centre) + rng.normal(0, spot.radius * 0.8, 2)
        part = Spot((float(centre[0]), float(centre[1])), max(3.0, spot.radius * rng.uniform(0.35, 0.8)), spot.size)
        x, y = part.offsets()
        region = np.sqrt(np.clip(1 - (x * x + y * y) / part.radius**2, 0, 1))
        side = (x * np.float32(np.cos(light)) + y * np.float32(np.sin(light))) / part.radius
        picture = picture * (1 + region * (0.6 * side))[..., None]
        spark = smoothstep(
            0.45, 0.1, np.hypot(x / part.radius - np.cos(light) * 0.45, y / part.radius - np.sin(light) * 0.45)
        )
        picture = mix(picture, np.ones(3, np.float32), spark * 0.6)
        total = np.maximum(total, region)
    return picture, smoothstep(0.0, 0.25, total)


def missing_part(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A piece broken off: what lies behind shows."""
    region = blob(rng, spot, rng.uniform(0.2, 0.6), 0.04)
    shadow = cv2.GaussianBlur(region, (0, 0), 1.5)
    picture = mix(
        scene.image * (1 - rng.uniform(0, 0.4) * shadow)[..., None], scene.behind, smoothstep(0.3, 0.7, region)
    )
    return picture, smoothstep(0.0, 0.3, shadow)


def contamination(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """Foreign specks scattered around the place."""
    region = np.zeros((spot.size, spot.size), np.float32)
    for _ in range(int(rng.integers(3, 12))):
        centre = np.array(spot.centre) + rng.normal(0, spot.radius, 2)
        speck = Spot(
            (float(centre[0]), float(centre[1])), log_uniform(rng, 1.4, max(2.5, spot.radius * 0.5)), spot.size
        )
        region = np.maximum(region, blob(rng, speck, 0.4))
    wanted = contrasting_colour(rng, mean_colour(scene, region), 0.3)
    tone = 0.8 + 0.4 * fractal(rng, spot.size, 20, 2)
    return mix(scene.image, np.clip(wanted * tone[..., None], 0, 1), region), region


def hair(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A foreign thread or hair lying on the object, with its shadow."""
    length = max(spot.radius * rng.uniform(3, 6), spot.size * 0.3)
    points = path(rng, spot, length, rng.uniform(1.5, 4.5), 0, 24)
    thickness = int(rng.integers(1, 3))
    region = polyline(spot.size, points, thickness).astype(np.float32) / 255.0
    shadow = polyline(spot.size, points + 1.2, thickness).astype(np.float32) / 255.0
    wanted = contrasting_colour(rng, mean_colour(scene, region), 0.3)
    return mix(scene.image * (1 - 0.25 * shadow)[..., None], wanted, region), np.maximum(region, shadow)


def misprint(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """Print where none belongs: a letter, a bar or a cross of one ink."""
    mask = np.zeros((spot.size, spot.size), np.uint8)
    side = max(4.0, spot.radius * 1.3)
    kind = rng.integers(3)
    if kind == 0:
        letter = "ABEHKMRSX258&#?"[int(rng.integers(15))]
        scale = side / 10.0
        place = (round(spot.centre[0] - side), round(spot.centre[1] + side))
        cv2.putText(mask, letter, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(scale * 2.5)), cv2.LINE_AA)
    else:
        box = np.array([[-1, -0.3], [1, -0.3], [1, 0.3], [-1, 0.3]]) * side
        for turn in (rng.uniform(0, np.pi),) if kind == 1 else (0.7, 0.7 + np.pi / 2):
            rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            mask = np.maximum(mask, (filled(spot.size, box @ rotation + spot.centre) * 255).astype(np.uint8))
    region = mask.astype(np.float32) / 255.0
    return mix(
        scene.image, contrasting_colour(rng, mean_colour(scene, region), 0.3), region * rng.uniform(0.8, 1.0)
    ), region


def cut(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A straight slit that gapes: dark inside, one lip in the light."""
    half = max(spot.radius * rng.uniform(1.2, 2.2), spot.size * 0.1)
    width = rng.uniform(0.08, 0.2) * half + 0.8
    turn = rng.uniform(0, np.pi)
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    outline = np.stack([-half * along, width * across, half * along, -width * across]) + spot.centre
    inside, lip = filled(spot.size, outline), filled(spot.size, outline + across * 1.5)
    inner = mean_colour(scene, inside) * rng.uniform(0.0, 0.3) if rng.random() < 0.7 else scene.behind.mean(axis=(0, 1))
    picture = scene.image * (1 + rng.uniform(0.2, 0.6) * lip)[..., None]
    return mix(picture, inner, inside), np.maximum(inside, lip)


def burn(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """Charred: dark in the middle, brown at the edge."""
    region = blob(rng, spot, 0.4, rng.uniform(0.15, 0.4))
    rough = np.clip(region + 0.25 * (fractal(rng, spot.size, 14, 3) - 0.5) * (region > 0.02), 0, 1)
    brown = mix(scene.image, scene.image * hsv(0.07, 0.6, 0.7), smoothstep(0.1, 0.5, rough))
    return mix(brown, hsv(0.06, 0.4, 0.08), smoothstep(0.35, 0.95, rough) * rng.uniform(0.6, 0.95)), region


def discolouration(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """The pattern stays, its colour is wrong: bleached, turned grey, darkened or of another hue."""
    region = blob(rng, spot, 0.3, rng.uniform(0.03, 0.2))
    kind = rng.integers(3)
    if kind == 0:
        changed = scene.image[..., ::-1] if rng.random() < 0.5 else scene.image[..., [1, 2, 0]]
        changed = changed * rng.uniform(0.6, 1.4)
    elif kind == 1:
        changed = scene.image + (1 - scene.image) * rng.uniform(0.3, 0.7)
    else:
        changed = scene.image * rng.uniform(0.3, 0.65)
    return mix(scene.image, changed, region), region


def displaced_patch(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A piece of the same surface in the wrong place or direction (cut and paste)."""
    region = blob(rng, spot, 0.25, 0.04)
    if rng.random() < 0.5:
        rotation = cv2.getRotationMatrix2D(spot.centre, float(rng.uniform(25, 155)), rng.choice([1.0, 0.7, 1.4]))
        source = cv2.warpAffine(scene.image, rotation, (spot.size, spot.size), borderMode=cv2.BORDER_REFLECT)
    else:
        shift = rng.uniform(0.1, 0.5, 2) * spot.size * rng.choice([-1, 1], 2)
        source = np.roll(scene.image, (round(shift[0]), round(shift[1])), axis=(0, 1))
    # Its edge casts a shadow and its tone is a little off: on grainy surfaces nothing else would give it away.
    edge = smoothstep(0.0, 0.5, region) * smoothstep(1.0, 0.5, cv2.GaussianBlur(region, (0, 0), 1.0))
    tone = rng.uniform(0.7, 0.88) if rng.random() < 0.5 else rng.uniform(1.12, 1.35)
    source = source * (tone * (1 - rng.uniform(0.2, 0.7) * edge))[..., None]
    return mix(scene.image, source, region), region


def foreign_patch(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A piece of another material."""
    region = blob(rng, spot, 0.25, 0.04)
    library = REGULAR if rng.random() < 0.3 else IRREGULAR
    names = tuple(library)
    other = library[names[int(rng.integers(len(names)))]](rng, spot.size)
    return mix(scene.image, other, region * rng.uniform(0.7, 1.0)), region


def fold(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A wrinkle: the pattern is pushed sideways along a ridge, which is lit on one side and dark on the other."""
    x, y = spot.offsets()
    turn = rng.uniform(0, 2 * np.pi)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = x * cosine + y * sine, y * cosine - x * sine
    length, width = max(spot.radius * 2.2, 10.0), max(spot.radius * 0.45, 3.0)
    across = across + along * along / length * rng.uniform(-0.3, 0.3)
    region = np.clip(1 - (along / length) ** 2, 0, 1) * np.clip(1 - (across / width) ** 2, 0, 1)
    push = region * width * rng.uniform(0.4, 0.9) * rng.choice([-1, 1])
    picture = warped(scene.image, -sine * push, cosine * push)
    lit = 1 + region * (across / width) * rng.uniform(0.5, 1.2) * rng.choice([-1, 1])
    return picture * lit[..., None], smoothstep(0.0, 0.1, region)


def poke(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A small deep prick with a torn, lighter surrounding."""
    x, y = spot.offsets()
    radius = np.clip(spot.radius * 0.6, spot.size * 0.045, spot.size * 0.09)
    distance = np.hypot(x, y) / radius * (1 + 0.4 * (fractal(rng, spot.size, 10, 2) - 0.5))
    around, core = smoothstep(1.0, 0.7, distance), smoothstep(0.75, 0.4, distance)
    local = mean_colour(scene, around)
    picture = mix(scene.image, local + (1 - local) * 0.5, around * rng.uniform(0.3, 0.8))
    return mix(picture, local * rng.uniform(0, 0.25), core), around


def smear(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """Worn or rubbed: the detail is dragged along or blurred away, and a little faded."""
    region = blob(rng, spot, 0.3, 0.12)
    length = int(np.clip(spot.radius * 1.2, 5, spot.size / 5)) | 1
    if rng.random() < 0.5:
        blurred = cv2.blur(scene.image, (length, 1) if rng.random() < 0.5 else (1, length))
    else:
        blurred = cv2.GaussianBlur(scene.image, (0, 0), length / 3)
    fade = colour(rng, 0.2)
    return mix(scene.image, blurred + (fade - blurred) * rng.uniform(0.0, 0.5), region), region


def torn_threads(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """The surface pulled apart: neighbouring detail thrown into disorder, with loose ends."""
    region = blob(rng, spot, 0.4, 0.1)
    shift_x, shift_y = ((fractal(rng, spot.size, 16, 2) - 0.5) * spot.size * 0.3 for _ in range(2))
    picture = mix(scene.image, warped(scene.image, shift_x, shift_y) * rng.uniform(0.6, 1.1), region)
    mask = np.zeros((spot.size, spot.size), np.uint8)
    for _ in range(int(rng.integers(1, 6))):
        centre = np.array(spot.centre) + rng.normal(0, spot.radius * 0.4, 2)
        loose = Spot((float(centre[0]), float(centre[1])), spot.radius, spot.size)
        polyline(spot.size, path(rng, loose, spot.radius * rng.uniform(1, 2), 2.0), 1, mask)
    ends = mask.astype(np.float32) / 255.0
    wanted = darker_or_lighter(rng, mean_colour(scene, region))
    return mix(picture, wanted, ends), np.maximum(region, ends)


def chipped_edge(rng: Generator, scene: Drawing, spot: Spot) -> Change:
    """A flaked-off layer with angular outline: the lighter or darker inside shows, with a bright broken edge."""
    count = int(rng.integers(5, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    radii = spot.radius * rng.uniform(0.7, 1.3, count)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None] + spot.centre
    region, shifted = filled(spot.size, points), filled(spot.size, points + rng.choice([-1.5, 1.5], 2))
    inside = (
        darker_or_lighter(rng, mean_colour(scene, region)) * (0.85 + 0.3 * fractal(rng, spot.size, 16, 3))[..., None]
    )
    picture = mix(scene.image, inside, region)
    return picture * (1 + 0.35 * (np.clip(shifted - region, 0, 1) - np.clip(region - shifted, 0, 1)))[
        ..., None
    ], np.maximum(region, shifted)


DEFECTS: dict[str, Defect] = {
    "scratch": scratch,
    "crack": crack,
    "stain": stain,
    "hole": hole,
    "dent": dent,
    "bubble": bubble,
    "missing part": missing_part,
    "contamination": contamination,
    "hair": hair,
    "misprint": misprint,
    "cut": cut,
    "burn": burn,
    "discolouration": discolouration,
    "displaced patch": displaced_patch,
    "foreign patch": foreign_patch,
    "fold": fold,
    "poke": poke,
    "smear": smear,
    "tear": torn_threads,
    "chip": chipped_edge,
}
