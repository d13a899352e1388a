"""Metrics against cases whose value is known, against scikit-learn and against a slow loop."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import naive
from metrics import image_ap, image_auroc, pixel_aupro, pixel_auroc

MASK = np.zeros((2, 12, 12), np.uint8)
MASK[0, 2:5, 2:5] = 1
MASK[0, 8:10, 7:11] = 1


def random_case(seed=0):
    rng = np.random.default_rng(seed)
    masks = np.stack([gaussian_filter(rng.standard_normal((40, 40)), 3) > 0.12 for _ in range(4)])
    maps = gaussian_filter(rng.standard_normal((4, 40, 40)), (0, 2, 2)) * 4 + masks * 0.5
    return masks, maps.astype(np.float32)


def test_aupro_equals_the_loop():
    for seed in range(3):
        masks, maps = random_case(seed)
        assert pixel_aupro(masks, maps) == pytest.approx(naive.aupro(masks, maps), abs=1e-6)


def test_pixel_and_image_metrics_equal_sklearn():
    masks, maps = random_case()
    assert pixel_auroc(masks, maps) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    labels, scores = np.array([0, 1, 1, 0, 1]), np.array([0.1, 0.7, 0.3, 0.4, 0.4])
    assert image_auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    assert image_ap(labels, scores) == pytest.approx(average_precision_score(labels, scores))


def test_perfect_inverted_and_constant():
    assert pixel_auroc(MASK, MASK.astype(float)) == 1
    assert pixel_aupro(MASK, MASK.astype(float)) == 1
    assert pixel_auroc(MASK, 1.0 - MASK) == 0
    assert pixel_aupro(MASK, 1.0 - MASK) == 0
    assert pixel_auroc(MASK, np.full(MASK.shape, 0.5)) == 0.5
    assert pixel_aupro(MASK, np.full(MASK.shape, 0.5)) == 0
    assert image_auroc([0, 1], [0.2, 0.9]) == image_ap([0, 1], [0.2, 0.9]) == 1
    assert image_auroc([0, 1], [0.9, 0.2]) == 0


def test_every_region_counts_the_same():
    """Finding the small region entirely and the large one not at all gives one half, whatever their sizes."""
    maps = np.zeros(MASK.shape)
    maps[0, 8:10, 7:11] = 1
    assert pixel_aupro(MASK, maps) == pytest.approx(0.5)


def test_corners_join_a_region():
    masks = np.zeros((1, 6, 6), np.uint8)
    masks[0, 1:3, 1:3] = masks[0, 3, 3] = 1  # one region of five pixels, since corners touch
    maps = np.zeros(masks.shape)
    maps[0, 3, 3] = 1
    assert pixel_aupro(masks, maps) == pytest.approx(0.2)


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_undefined_with_one_label(labels):
    assert image_auroc(labels, [0.1, 0.2, 0.3]) is None
    assert image_ap(labels, [0.1, 0.2, 0.3]) is None
    masks = np.full((1, 3, 3), labels[0])
    assert pixel_auroc(masks, np.random.default_rng(0).random((1, 3, 3))) is None
    assert pixel_aupro(masks, np.random.default_rng(0).random((1, 3, 3))) is None


def test_order_of_values_decides_auroc_and_scale_does_not_decide_aupro():
    masks, maps = random_case()
    assert pixel_auroc(masks, np.exp(maps)) == pytest.approx(pixel_auroc(masks, maps), abs=1e-6)
    assert pixel_aupro(masks, 3 * maps + 5) == pytest.approx(pixel_aupro(masks, maps), abs=1e-4)


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        image_auroc([0, 1], [0.5])
    with pytest.raises(ValueError, match="not finite"):
        pixel_aupro(MASK, np.full(MASK.shape, np.nan))
