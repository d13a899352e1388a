"""The categories: what draws each, what captions call it, and which are kept for the test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from demo.drawing.canvas import Drawing
from demo.drawing.long_objects import LONG_OBJECTS
from demo.drawing.natural_textures import IRREGULAR
from demo.drawing.noise import Array, Generator, colour, fractal, mix, smoothstep
from demo.drawing.objects import ROUND_OBJECTS, Renderer
from demo.drawing.photographs import PRETRAINING_PHOTOGRAPHS, TEST_PHOTOGRAPHS, photograph_crop
from demo.drawing.textures import REGULAR, Texture
from demo.drawing.unseen import UNSEEN_OBJECTS, UNSEEN_TEXTURES

SURFACES: dict[str, Texture] = REGULAR | IRREGULAR


def _any_surface(rng: Generator, size: int) -> Array:
    names = tuple(SURFACES)
    return SURFACES[names[int(rng.integers(len(names)))]](rng, size)


def _any_photograph(rng: Generator, size: int) -> Array:
    names = tuple(PRETRAINING_PHOTOGRAPHS)
    return photograph_crop(names[int(rng.integers(len(names)))], rng, size)


def _blend(first: Callable[[Generator, int], Array], rng: Generator, size: int) -> Array:
    """Two pictures through each other: one tints the other, or they lie side by side with a soft border."""
    below, above = first(rng, size), _any_surface(rng, size)
    if rng.random() < 0.6:
        weight = np.full((size, size), rng.uniform(0.25, 0.6), np.float32)
    else:
        level = rng.uniform(0.4, 0.6)
        weight = smoothstep(level - 0.1, level + 0.1, fractal(rng, size, int(rng.integers(2, 9)), 2))
    return mix(below, above, weight)


def _surface(texture: Texture, rng: Generator, size: int) -> Drawing:
    """A surface fills the picture; behind it lies something plain, mostly dark."""
    behind = colour(rng) * rng.uniform(0.1, 1.0)
    return Drawing(texture(rng, size), np.ones((size, size), bool), np.broadcast_to(behind, (size, size, 3)))


def _photograph(name: str, rng: Generator, size: int) -> Array:
    return photograph_crop(name, rng, size)


def _registry() -> dict[str, Renderer]:
    surfaces: dict[str, Texture] = dict(SURFACES)
    surfaces |= {name: partial(_photograph, name) for name in PRETRAINING_PHOTOGRAPHS}
    surfaces["mixed surface"] = partial(_blend, _any_surface)
    surfaces["overprinted surface"] = partial(_blend, _any_photograph)
    surfaces["photo texture"] = _any_photograph
    surfaces |= UNSEEN_TEXTURES
    surfaces |= {name: partial(_photograph, name) for name in TEST_PHOTOGRAPHS}
    drawn: dict[str, Renderer] = {name: partial(_surface, texture) for name, texture in surfaces.items()}
    return drawn | ROUND_OBJECTS | LONG_OBJECTS | UNSEEN_OBJECTS


RENDERERS: dict[str, Renderer] = _registry()
UNSEEN: tuple[str, ...] = ("woven", "marble", "washer", "capsule", "nut", "brick", "grass", "gravel")
PRETRAINING: tuple[str, ...] = tuple(name for name in RENDERERS if name not in UNSEEN)
# The prompts are learned on these: a few of each kind, among them pictures of nature.
AUXILIARY: tuple[str, ...] = (
    "tiles",
    "knitted",
    "granite",
    "leather",
    "pebbles",
    "fibres",
    "gear",
    "pill",
    "coin",
    "key",
)

# Where the category's name is not what one would call the thing in a caption.
_NOUNS: dict[str, str] = {
    "knitted": "knitted fabric",
    "paving": "paved surface",
    "checker": "checkered surface",
    "stripes": "striped surface",
    "dots": "dotted surface",
    "rings": "turned surface",
    "waves": "wavy surface",
    "mesh": "wire mesh",
    "plaid": "plaid cloth",
    "boards": "wooden boards",
    "herringbone": "herringbone parquet",
    "foil": "metal foil",
    "photo texture": "surface",
    "mixed surface": "surface",
    "woven": "woven fabric",
    "brick": "brick wall",
}


def noun(category: str) -> str:
    """What captions call the category."""
    return _NOUNS.get(category, category)
