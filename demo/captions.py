"""Captions like those under pictures on the web: what is shown, and often in what state."""

from __future__ import annotations

from demo.drawing.categories import noun
from demo.drawing.noise import Generator

GENERAL_NOUNS = ("object", "object", "object", "surface", "product", "item")
GENERAL_CHANCE = 0.25
WORD_CHANCE = 0.35  # how often a damaged caption names the defect

# Pairs that differ in the state alone: (intact, damaged), {x} being the thing.
STATE_PAIRS: tuple[tuple[str, str], ...] = (
    ("{x}", "damaged {x}"),
    ("flawless {x}", "damaged {x}"),
    ("perfect {x}", "broken {x}"),
    ("intact {x}", "damaged {x}"),
    ("undamaged {x}", "damaged {x}"),
    ("unblemished {x}", "blemished {x}"),
    ("good {x}", "bad {x}"),
    ("normal {x}", "abnormal {x}"),
    ("normal {x}", "anomalous {x}"),
    ("clean {x}", "flawed {x}"),
    ("faultless {x}", "faulty {x}"),
    ("{x} without flaw", "{x} with flaw"),
    ("{x} without defect", "{x} with defect"),
    ("{x} without damage", "{x} with damage"),
    ("{x} in perfect condition", "{x} with a defect"),
    ("{x} as it should be", "{x} with an anomaly"),
    ("perfect {x}", "defective {x}"),
)
# For captions that name the defect: {d} is its word.
WORD_PAIRS: tuple[tuple[str, str], ...] = (
    ("{x} without a {d}", "{x} with a {d}"),
    ("flawless {x}", "{x} with a {d}"),
    ("{x}", "{x} with a {d}"),
    ("perfect {x}", "damaged {x}, a {d}"),
    ("intact {x}", "{x} damaged by a {d}"),
)
FRAMES: tuple[str, ...] = (
    "a photo of a {}",
    "a photo of a {}",
    "a photo of the {}",
    "a picture of a {}",
    "a close-up photo of a {}",
    "a cropped photo of the {}",
    "a bright photo of a {}",
    "a blurry photo of the {}",
    "this is a {}",
    "there is a {} in the scene",
    "a {}",
    "the {}",
    "{}",
)


def caption_pair(name: str, defect: str | None, rng: Generator) -> tuple[str, str]:
    """Captions of a category's intact and damaged picture, in the same words but for the state."""
    general = rng.random() < GENERAL_CHANCE
    thing = GENERAL_NOUNS[int(rng.integers(len(GENERAL_NOUNS)))] if general else noun(name)
    frame = FRAMES[int(rng.integers(len(FRAMES)))]
    pairs = WORD_PAIRS if defect is not None and rng.random() < WORD_CHANCE else STATE_PAIRS
    intact, damaged = (frame.format(state.format(x=thing, d=defect)) for state in pairs[int(rng.integers(len(pairs)))])
    return intact, damaged


def caption(name: str, damaged: bool, defect: str | None, rng: Generator) -> str:
    """One caption of a category in the given state; the defect's word is used now and then."""
    return caption_pair(name, defect, rng)[int(damaged)]
