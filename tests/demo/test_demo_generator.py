"""The pictures the demonstration is trained and tested on."""

from __future__ import annotations

import numpy as np
import pytest

from demo.captions import caption, caption_pair
from demo.drawing.categories import AUXILIARY, PRETRAINING, RENDERERS, UNSEEN
from demo.drawing.defects import DEFECTS
from demo.drawing.generator import picture_pair
from demo.drawing.photographs import PRETRAINING_PHOTOGRAPHS, TEST_PHOTOGRAPHS

SIZE = 64


def test_same_seed_draws_the_same_pictures() -> None:
    first, again, other = (picture_pair("gear", SIZE, seed) for seed in (3, [3], 4))
    for part in ("intact", "damaged", "mask"):
        assert np.array_equal(getattr(first, part), getattr(again, part))
    assert not np.array_equal(first.intact, other.intact)
    assert not np.array_equal(first.intact, picture_pair("gear", SIZE, [3, 1]).intact)


@pytest.mark.parametrize("minimum_difference", [0.08, 0.15])
@pytest.mark.parametrize("category", sorted(RENDERERS))
def test_mask_is_where_the_pictures_differ(category: str, minimum_difference: float) -> None:
    pair = picture_pair(category, SIZE, 11, minimum_difference)
    assert pair.intact.shape == pair.damaged.shape == (SIZE, SIZE, 3)
    assert pair.intact.dtype == pair.damaged.dtype == np.uint8
    assert pair.mask.shape == (SIZE, SIZE) and pair.mask.dtype == bool
    assert 0.005 <= pair.mask.mean() <= 0.25
    assert np.array_equal(pair.intact[~pair.mask], pair.damaged[~pair.mask])
    difference = np.abs(pair.intact[pair.mask].astype(float) - pair.damaged[pair.mask]).mean() / 255
    assert difference >= minimum_difference
    assert pair.category == category and pair.defect in DEFECTS


def test_test_categories_are_kept_out_of_pretraining() -> None:
    assert UNSEEN == ("woven", "marble", "washer", "capsule", "nut", "brick", "grass", "gravel")
    assert not set(PRETRAINING) & set(UNSEEN)
    assert set(PRETRAINING) | set(UNSEEN) == set(RENDERERS)
    assert set(AUXILIARY) <= set(PRETRAINING)
    files = {file for _, file in PRETRAINING_PHOTOGRAPHS.values()}
    assert not files & {file for _, file in TEST_PHOTOGRAPHS.values()}
    assert not any(kept in file for file in files for kept in ("brick", "grass", "gravel"))


def test_captions_tell_the_states_apart() -> None:
    rng = np.random.default_rng(0)
    for category in PRETRAINING:
        for defect in (*DEFECTS, None):
            intact, damaged = caption_pair(category, defect, rng)
            assert intact != damaged
            assert caption(category, True, defect, rng) and caption(category, False, None, rng)


def test_captions_are_short() -> None:
    open_clip = pytest.importorskip("open_clip")
    rng = np.random.default_rng(1)
    texts = [text for category in PRETRAINING for text in caption_pair(category, "displaced patch", rng)]
    tokens = open_clip.tokenize(texts)
    assert tokens.shape[1] == 77
    assert int((tokens != 0).sum(dim=1).max()) <= 22  # start and end included
