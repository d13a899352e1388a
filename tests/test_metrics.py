"""Metrics against cases whose value is known, against scikit-learn and against a slow loop."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from benchmarks import naive
from metrics import (
    REGISTRY,
    Counts,
    _cells,
    aupro_of_thresholds,
    decision_metrics,
    f1_max,
    image_ap,
    image_auroc,
    pixel_ap,
    pixel_aupro,
    pixel_aupro_exact,
    pixel_auroc,
)

pytestmark = pytest.mark.smoke

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


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
def test_exact_aupro_equals_the_loop(kind):
    for seed in range(3):
        masks, maps = random_case(seed)
        maps = np.round(maps, seed + 1).astype(kind)  # with many, with some and with few ties
        assert pixel_aupro_exact(masks, maps) == pytest.approx(naive.aupro_exact(masks, maps), abs=1e-6)
        assert pixel_aupro(masks, maps) == pytest.approx(naive.aupro(masks, maps), abs=1e-6)


def test_values_lie_on_the_thresholds_themselves():
    masks, _ = random_case()
    steps = np.arange(0, 1, 1 / 200)  # every value is a threshold, and what equals it is not above it
    maps = np.random.default_rng(0).choice(np.append(steps, 1), masks.shape)
    maps.flat[:2] = 0, 1
    assert pixel_aupro(masks, maps) == pytest.approx(naive.aupro(masks, maps), abs=1e-9)
    assert pixel_aupro_exact(masks, maps) == pytest.approx(naive.aupro_exact(masks, maps), abs=1e-9)


def test_pixel_and_image_metrics_equal_sklearn():
    masks, maps = random_case()
    assert pixel_auroc(masks, maps) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert pixel_ap(masks, maps) == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))
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
    assert pixel_ap(masks, np.random.default_rng(0).random((1, 3, 3))) is None
    assert f1_max(labels, [0.1, 0.2, 0.3]) is None


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.31, 0.7, 9.0])
def test_decisions_equal_sklearn(threshold):
    masks, maps = random_case()
    maps[0, :5] = np.float32(threshold)  # some are exactly at the threshold, and so anomalous
    truth, called = masks.ravel(), maps.ravel() >= np.float32(threshold)
    scores = [function(truth, called, zero_division=0) for function in (f1_score, precision_score, recall_score)]
    assert decision_metrics(masks, maps, threshold) == pytest.approx(scores)


def test_balanced_accuracy_and_iou_equal_sklearn():
    masks, maps = random_case()
    truth, values = masks.ravel(), maps.ravel()
    called = values >= 0.3
    counts = Counts(*_cells(truth, values), np.sum(truth & called), np.sum(called))
    expected = {
        "image_balanced_accuracy": balanced_accuracy_score(truth, called),
        "pixel_iou": jaccard_score(truth, called),
    }
    found = {metric.name: metric.compute(counts) for metric in REGISTRY if metric.name in expected}
    assert found == pytest.approx(expected)
    nothing = Counts(np.array([5, 5]), np.array([0, 0]), np.array(0), np.array(5))
    assert all(np.isnan(metric.compute(nothing)) for metric in REGISTRY)


def test_decisions_on_one_label():
    """Without anomalous ones nothing is defined; without normal ones only recall: nothing could be a false alarm."""
    assert decision_metrics([0, 0], [0.2, 0.9], 0.5) == (None, None, None)
    assert decision_metrics([1, 1], [0.2, 0.9], 0.5) == (None, None, 0.5)
    assert decision_metrics([1, 0], [0.2, 0.3], 0.5) == (0, 0, 0)  # nothing is called anomalous


def test_largest_f1_equals_trying_every_threshold():
    rng = np.random.default_rng(0)
    for round_to in (1, 2, 7):  # many, few and no ties
        labels, scores = rng.random(40) < 0.3, np.round(rng.random(40), round_to).astype(np.float32)
        best = f1_max(labels, scores)
        assert best.value == pytest.approx(max(f1_score(labels, scores >= value) for value in scores))
        assert decision_metrics(labels, scores, best.threshold).f1 == pytest.approx(best.value)


def test_the_threshold_of_the_largest_f1_lies_halfway_and_at_the_highest_of_equals():
    assert f1_max([0, 0, 1, 1], [0.1, 0.25, 0.75, 0.9]) == (1, 0.5)
    assert f1_max([1, 0], [0.25, 0.75]) == (pytest.approx(2 / 3), 0.25)  # everything is called anomalous
    # calling 1, 4 or all 5 of them anomalous gives 2/3, 2/3 and 4/7
    assert f1_max([0, 1, 0, 0, 1], [1, 2, 3, 4, 5]) == (pytest.approx(2 / 3), 4.5)
    lower = np.float32(0.3)
    upper = np.nextafter(lower, np.float32(1))  # no number lies between these
    best = f1_max(np.array([0, 1]), np.array([lower, upper]))
    assert best.value == 1 and np.float32(best.threshold) == upper


def test_aupro_of_several_curves_at_once():
    rates = np.sort(np.random.default_rng(0).random((3, 20)), axis=1)[:, ::-1]
    rates[1] = 0.1
    rates[2] += 1
    overlaps = np.sort(np.random.default_rng(1).random((3, 20)), axis=1)[:, ::-1]
    together = aupro_of_thresholds(rates, overlaps)
    assert together[0] == float(aupro_of_thresholds(rates[0], overlaps[0])) > 0
    assert together[1] == overlaps[1, 0] and together[2] == 0  # no width, no point below the limit


def test_order_of_values_decides_auroc_and_scale_does_not_decide_aupro():
    masks, maps = random_case()
    assert pixel_auroc(masks, np.exp(maps)) == pytest.approx(pixel_auroc(masks, maps), abs=1e-6)
    assert pixel_aupro(masks, 3 * maps + 5) == pytest.approx(pixel_aupro(masks, maps), abs=1e-4)


def test_wrong_shapes_and_values_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        image_auroc([0, 1], [0.5])
    with pytest.raises(ValueError, match="not finite"):
        pixel_aupro(MASK, np.full(MASK.shape, np.nan))
