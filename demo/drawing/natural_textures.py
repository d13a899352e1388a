"""Irregular surfaces: materials without a repeating pattern.

Each function draws (rng, size) -> float32 RGB (size, size, 3), about 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np

from demo.drawing.noise import (
    Array,
    Generator,
    cells,
    colour,
    coordinates,
    fractal,
    grain,
    hsv,
    lit,
    log_uniform,
    metal_colour,
    mix,
    palette,
    random_angle,
    random_period,
    smoothstep,
    strokes,
)
from demo.drawing.textures import Texture


def _turned(rng: Generator, values: Array, angle: float) -> Array:
    """Rotate a field about its centre; the corners are mirrored in."""
    size = values.shape[0]
    centre = ((size - 1) / 2, (size - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, float(np.degrees(angle)), rng.uniform(1.0, 1.3))
    return cv2.warpAffine(values, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _light(rng: Generator) -> float:
    return float(rng.uniform(0, 2 * np.pi))


def wood(rng: Generator, size: int) -> Array:
    """Wood grain: stretched year rings."""
    x, y = coordinates(rng, size, rng.uniform(0.3, 0.9))
    bend = rng.uniform(0.3, 1.2) * fractal(rng, size, 3, 3)
    ring = np.sin(2 * np.pi * (x * rng.uniform(2, 5) + bend * 2 + 0.15 * np.sin(y)))
    first = hsv(rng.uniform(0.05, 0.12), rng.uniform(0.2, 0.65), rng.uniform(0.35, 0.9))
    pores = _turned(rng, fractal(rng, size, (4, 40), 2), random_angle(rng))
    picture = mix(first, first * rng.uniform(0.5, 0.8), 0.6 * (0.5 + 0.5 * ring) + 0.4 * pores)
    return picture + 0.01 * grain(rng, size)[..., None]


def granite(rng: Generator, size: int) -> Array:
    """Speckled stone of three minerals."""
    first, second, third = palette(rng, 3, (0.15, 0.45))
    fine = rng.integers(12, 32)
    picture = mix(first, second, smoothstep(0.45, 0.6, fractal(rng, size, int(fine), 2, 0.8)))
    picture = mix(picture, third, smoothstep(0.62, 0.7, fractal(rng, size, int(fine), 2, 0.8)))
    return picture * (1 + 0.05 * grain(rng, size))[..., None]


def brushed_metal(rng: Generator, size: int) -> Array:
    """Metal with fine parallel brush marks and a broad reflection."""
    marks = _turned(rng, fractal(rng, size, (int(rng.integers(40, 90)), 2), 2, 0.8), random_angle(rng))
    reflection = fractal(rng, size, 2, 1)
    factor = 0.85 + rng.uniform(0.1, 0.4) * (marks - 0.5) + rng.uniform(0, 0.4) * reflection
    return metal_colour(rng) * factor[..., None] + 0.01 * grain(rng, size)[..., None]


def leather(rng: Generator, size: int) -> Array:
    """Pebbled hide: small irregular cells with soft furrows."""
    distance, _ = cells(rng, size, size * log_uniform(rng, 0.05, 0.11))
    height = smoothstep(0.0, rng.uniform(2, 4), distance) + 0.3 * fractal(rng, size, 4, 3)
    base = (
        hsv(rng.uniform(0, 0.12), rng.uniform(0.1, 0.7), rng.uniform(0.2, 0.75)) if rng.random() < 0.7 else colour(rng)
    )
    picture = base * (0.65 + 0.3 * height)[..., None]
    return lit(picture, height, rng.uniform(0.05, 0.2), _light(rng))


def carpet(rng: Generator, size: int) -> Array:
    """Tufted pile: coarse grain in one or two colours."""
    first, second = palette(rng, 2, (0.1, 0.35))
    tufts = grain(rng, size, rng.uniform(0.6, 1.4))
    tone = smoothstep(0.35, 0.65, fractal(rng, size, int(rng.integers(4, 30)), 2)) * rng.uniform(0, 0.8)
    picture = mix(first, second, tone)
    return lit(picture * (1 + 0.12 * tufts)[..., None], tufts, rng.uniform(0, 0.06), _light(rng))


def concrete(rng: Generator, size: int) -> Array:
    """Grey cast surface with clouds and small pores."""
    base = hsv(rng.random(), rng.uniform(0, 0.12), rng.uniform(0.35, 0.85))
    tone = 0.85 + rng.uniform(0.1, 0.35) * fractal(rng, size, 4, 6, 0.65)
    pores = smoothstep(rng.uniform(2.3, 3.0), 3.2, grain(rng, size, 0.8))
    return base * (tone * (1 - 0.5 * pores) + 0.025 * grain(rng, size))[..., None]


def terrazzo(rng: Generator, size: int) -> Array:
    """Stone chips of several colours in a plain ground."""
    distance, values = cells(rng, size, size * log_uniform(rng, 0.08, 0.18))
    ground, first, second, third = palette(rng, 4, (0.12, 0.5))
    chip = np.where((values > 0.66)[..., None], first, np.where((values > 0.33)[..., None], second, third))
    gap = rng.uniform(0.8, 2.2)
    return (
        mix(ground, chip.astype(np.float32), smoothstep(gap * 0.6, gap * 1.3, distance))
        + 0.01 * grain(rng, size)[..., None]
    )


def cork(rng: Generator, size: int) -> Array:
    """Pressed granules of brown tones with dark specks."""
    distance, values = cells(rng, size, size * log_uniform(rng, 0.04, 0.09))
    base = hsv(rng.uniform(0.06, 0.11), rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.85))
    tone = (
        0.75
        + 0.35 * values
        + 0.1 * smoothstep(0, 2, distance)
        - 0.35 * smoothstep(0.68, 0.78, fractal(rng, size, 20, 2))
    )
    return base * tone[..., None]


def paper(rng: Generator, size: int) -> Array:
    """Nearly plain, with faint fibres and tooth."""
    base = hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.55, 0.97))
    tooth = fractal(rng, size, 30, 2, 0.8)
    picture = base * (0.95 + rng.uniform(0.02, 0.12) * (tooth - 0.5) + 0.04 * fractal(rng, size, 3, 2))[..., None]
    return lit(picture, tooth, rng.uniform(0, 0.08), _light(rng))


def foam(rng: Generator, size: int) -> Array:
    """Open pores of varied size in a light solid."""
    distance, values = cells(rng, size, size * log_uniform(rng, 0.05, 0.12))
    (base,) = palette(rng, 1)
    pore = smoothstep(1.0, rng.uniform(2.5, 4), distance) * (0.4 + 0.6 * values)
    picture = base * (1.1 - rng.uniform(0.3, 0.7) * pore)[..., None]
    return lit(picture, 1 - pore, rng.uniform(0, 0.12), _light(rng))


def crackle_glaze(rng: Generator, size: int) -> Array:
    """Glaze with a closed net of hairlines all over."""
    distance, values = cells(rng, size, size * log_uniform(rng, 0.09, 0.2), warp=rng.uniform(0, 2))
    base, line = palette(rng, 2, (0.2, 0.5))
    face = base * (0.95 + 0.1 * values + 0.06 * fractal(rng, size, 3, 3))[..., None]
    return mix(line, face, smoothstep(0.1, rng.uniform(0.9, 1.6), distance))


def plaster(rng: Generator, size: int) -> Array:
    """Cloudy or trowelled wall (fractal noise), with relief."""
    first, second = palette(rng, 2, (0.05, 0.3))
    clouds = fractal(rng, size, int(rng.integers(2, 8)), 5, rng.uniform(0.4, 0.7))
    return lit(mix(first, second, clouds), clouds, rng.uniform(0, 0.6), _light(rng))


def sand(rng: Generator, size: int) -> Array:
    """Grains, sometimes with ripples."""
    base = hsv(rng.uniform(0.06, 0.13), rng.uniform(0.1, 0.5), rng.uniform(0.45, 0.85))
    x, _ = coordinates(rng, size, random_period(rng, 0.15, 0.4), warp=1.0)
    ripple = np.sin(2 * np.pi * x) * rng.uniform(0, 0.12)
    tone = 0.85 + ripple + rng.uniform(0.04, 0.12) * grain(rng, size, rng.uniform(0.3, 0.7))
    return base * tone[..., None]


def pebbles(rng: Generator, size: int) -> Array:
    """Rounded stones of two sizes and several tones, shaded, with dark gaps."""
    first, second, third = palette(rng, 3, (0.1, 0.4))
    light, strength = _light(rng), rng.uniform(0.06, 0.2)
    spacing = size * log_uniform(rng, 0.08, 0.2)
    fine_distance, fine_values = cells(rng, size, spacing * 0.5, warp=2)
    distance, values = cells(rng, size, spacing, warp=spacing * 0.15)
    large = values > rng.uniform(0.1, 0.7)  # elsewhere the gap is filled with small stones
    distance = np.where(large, distance, np.minimum(fine_distance, distance + 0.5))
    values = np.where(large, values, fine_values)
    roundness = spacing * rng.uniform(0.15, 0.4)
    height = np.sqrt(np.clip(distance / roundness, 0, 1))
    stone = mix(mix(first, second, values), third, 0.5 * fractal(rng, size, 16, 3))
    return lit(stone * (0.25 + 0.75 * height)[..., None], height * 2, strength, light)


def fibres(rng: Generator, size: int) -> Array:
    """A mat of many short strokes, loosely in one direction or in none."""
    first, second = palette(rng, 2, (0.2, 0.6))
    spread = rng.choice([0.15, 0.35, 3.0])
    count = int(rng.integers(150, 450))
    hairs = strokes(rng, size, count, (0.06, rng.uniform(0.12, 0.4)), random_angle(rng), float(spread), 1)
    picture = mix(first, second, hairs)
    return picture * (1 + 0.15 * (fractal(rng, size, 5, 3) - 0.5))[..., None]


def straw(rng: Generator, size: int) -> Array:
    """Broad overlapping stalks in warm or grey tones."""
    base = hsv(rng.uniform(0.04, 0.15), rng.uniform(0.1, 0.6), rng.uniform(0.55, 0.95))
    angle, thickness = random_angle(rng), int(rng.integers(2, 4))
    stalks = strokes(rng, size, int(rng.integers(80, 200)), (0.2, 0.7), angle, rng.uniform(0.1, 0.5), thickness)
    return lit(base * (0.35 + 0.65 * stalks)[..., None], stalks, rng.uniform(0, 0.12), _light(rng))


def rusty_metal(rng: Generator, size: int) -> Array:
    """Metal covered by patina all over: patches on every scale."""
    metal, oxide = metal_colour(rng), hsv(rng.uniform(0.02, 0.1), rng.uniform(0.4, 0.8), rng.uniform(0.25, 0.6))
    cover = fractal(rng, size, int(rng.integers(5, 14)), 4, 0.7)
    return mix(metal, oxide, smoothstep(0.3, 0.7, cover)) * (1 + 0.06 * grain(rng, size))[..., None]


def crumpled_foil(rng: Generator, size: int) -> Array:
    """Facets of light and dark, as on crumpled metal foil."""
    distance, values = cells(rng, size, size * log_uniform(rng, 0.08, 0.2), warp=1)
    facets = np.clip(
        0.5 + 0.6 * (cv2.GaussianBlur(values, (0, 0), 0.8) - 0.5) + 0.25 * fractal(rng, size, 8, 3) - 0.1, 0, 1
    )
    del distance
    return metal_colour(rng) * (0.5 + 0.8 * facets)[..., None]


def gradient_plate(rng: Generator, size: int) -> Array:
    """A plain painted sheet: nothing but a soft gradient."""
    first, second = palette(rng, 2, (0.02, 0.2))
    x, _ = coordinates(rng, size, 1.0)
    return (
        mix(first, second, smoothstep(float(x.min()), float(x.max()), x))
        + rng.uniform(0, 0.02) * grain(rng, size)[..., None]
    )


def bark(rng: Generator, size: int) -> Array:
    """Long irregular furrows."""
    furrows = _turned(rng, fractal(rng, size, (3, int(rng.integers(9, 18))), 4, 0.65), random_angle(rng))
    base = hsv(rng.uniform(0.03, 0.12), rng.uniform(0.1, 0.5), rng.uniform(0.4, 0.8))
    picture = base * (0.35 + 0.75 * smoothstep(0.15, 0.7, furrows))[..., None]
    return lit(picture, furrows, rng.uniform(0.1, 0.5), _light(rng))


IRREGULAR: dict[str, Texture] = {
    "wood": wood,
    "granite": granite,
    "brushed metal": brushed_metal,
    "leather": leather,
    "carpet": carpet,
    "concrete": concrete,
    "terrazzo": terrazzo,
    "cork": cork,
    "paper": paper,
    "foam": foam,
    "crackle glaze": crackle_glaze,
    "plaster": plaster,
    "sand": sand,
    "pebbles": pebbles,
    "fibres": fibres,
    "straw": straw,
    "rusty metal": rusty_metal,
    "foil": crumpled_foil,
    "painted sheet": gradient_plate,
    "bark": bark,
}
