"""Metrics that count pixels as they come, against those that see all pixels at once."""

import pickle

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc, roc_curve

import metrics
from AnomalyCLIP_lib.decisions import map_values
from benchmarks import naive
from metrics import ALL_METRICS
from pipeline.evaluation.pixel_histogram import PixelHistogram
from pipeline.evaluation.streaming_metrics import COUNTS, ClassMetrics


def softmax_maps(count=12, side=96, layers=1, seed=0):
    """Masks, and maps whose values crowd at the whole numbers, as sums of sharp softmax maps do."""
    rng = np.random.default_rng(seed)
    masks = np.stack([gaussian_filter(rng.standard_normal((side, side)), 6) > 0.1 for _ in range(count)])
    logits = gaussian_filter(rng.standard_normal((layers, count, side, side)), (0, 0, 3, 3)) * 80 - 7 + 9 * masks
    return masks, (1 / (1 + np.exp(-logits))).sum(axis=0).astype(np.float32)


def counted(masks, maps, cells):
    histogram = PixelHistogram(cells)
    for mask, anomaly_map in zip(masks, maps, strict=True):
        histogram.add(mask, anomaly_map)
    return histogram


def results(histogram):
    best = histogram.f1_max()
    return {
        "auroc": histogram.auroc(),
        "aupro": histogram.aupro(),
        "aupro_exact": histogram.aupro_exact(),
        "average_precision": histogram.average_precision(),
        "f1_max": best.value if best else None,
    }


def exact_results(masks, maps):
    best = metrics.f1_max(masks, maps)
    return {
        "auroc": metrics.pixel_auroc(masks, maps),
        "aupro": metrics.pixel_aupro(masks, maps),
        "aupro_exact": metrics.pixel_aupro_exact(masks, maps),
        "average_precision": metrics.pixel_ap(masks, maps),
        "f1_max": best.value if best else None,
    }


def assert_within_bounds(histogram, masks, maps, tolerance=0.0):
    values, exact, bounds = results(histogram), exact_results(masks, maps), histogram.errors()
    assert values.keys() == bounds.keys()
    for name, value in values.items():
        assert abs(value - exact[name]) <= bounds[name] + tolerance, name


def test_exact_with_a_cell_for_every_value():
    masks, maps = softmax_maps()
    histogram = counted(masks, maps, 2**20)
    assert results(histogram) == pytest.approx(exact_results(masks, maps), abs=1e-12)
    assert set(histogram.errors().values()) == {0}
    assert histogram.f1_max().threshold == metrics.f1_max(masks, maps).threshold


@pytest.mark.parametrize("layers", [1, 4])
def test_within_1e_4_and_within_the_bounds_where_values_share_cells(layers):
    masks, maps = softmax_maps(layers=layers)
    histogram = counted(masks, maps, 2**15)
    bounds = histogram.errors()
    assert min(bounds[name] for name in bounds if name != "f1_max") > 0
    assert results(histogram) == pytest.approx(exact_results(masks, maps), abs=1e-4)
    assert_within_bounds(histogram, masks, maps, 1e-12)


@pytest.mark.parametrize("cells", [64, 4096])
@pytest.mark.parametrize("scale, offset", [(1, 0), (1, -0.5), (1e-6, 0), (1e7, -3)])
def test_bounds_hold_with_few_cells_and_other_ranges(cells, scale, offset):
    for seed in range(2):
        masks, maps = softmax_maps(count=4, seed=seed)
        maps = maps * np.float32(scale) + np.float32(offset)
        assert_within_bounds(counted(masks, maps, cells), masks, maps)


def test_tied_values_stay_exact():
    """Two values hold most pixels: sharing cells must not blur what is strictly above them."""
    masks, maps = softmax_maps()
    maps = np.where(maps < 0.02, np.float32(0), np.where(maps > 0.98, np.float32(1), maps))
    assert results(counted(masks, maps, 4096)) == pytest.approx(exact_results(masks, maps), abs=1e-4)


def test_order_and_division_do_not_matter():
    masks, maps = softmax_maps()
    together = counted(masks, maps, 1000)
    backwards = counted(masks[::-1], maps[::-1], 1000)
    parts = [counted(masks[i::3], maps[i::3], 1000) for i in range(3)]
    joined = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        joined.merge(part)
    assert results(backwards) == pytest.approx(results(together), abs=1e-14)
    assert results(joined) == pytest.approx(results(together), abs=1e-14)


@pytest.mark.parametrize("value", [0, 1])
def test_undefined_with_one_kind_of_pixel(value):
    maps = np.random.default_rng(0).random((2, 5, 5), dtype=np.float32)
    for histogram in (counted(np.full((2, 5, 5), value), maps, 100), PixelHistogram()):
        assert set(results(histogram).values()) == {None}
        assert histogram.curve() is None


def test_constant_and_perfect_maps():
    masks, _ = softmax_maps(count=2)
    share = masks.mean()
    constant = [0.5, 0, 0.15, share, 2 * share / (1 + share)]
    assert list(results(counted(masks, np.full(masks.shape, 0.5), 100)).values()) == pytest.approx(constant)
    assert list(results(counted(masks, masks.astype(np.float32), 100)).values()) == pytest.approx([1] * 5)


def test_bad_maps_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        PixelHistogram().add(np.ones((2, 2)), np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="shapes differ"):
        PixelHistogram().add(np.ones((2, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="cannot be merged"):
        PixelHistogram(10).merge(PixelHistogram(20))


def test_memory_stays_flat():
    """Nothing that is kept grows with the number of maps."""
    masks, maps = softmax_maps(count=4)
    histogram, sizes = PixelHistogram(1000), []
    for repetition in range(8):
        for mask, anomaly_map in zip(masks, maps, strict=True):
            histogram.add(mask, anomaly_map + np.float32(repetition * 1e-3))
        histogram.auroc()  # counts what is waiting
        sizes.append(len(pickle.dumps(histogram)))
    assert max(sizes) < 1000 * 40 + 2000


def test_curves_of_pixels():
    masks, maps = softmax_maps()
    maps[:, :5] = 0  # a large share of the pixels in one step
    histogram = counted(masks, maps, 4096)
    curve = histogram.curve()
    rates, recalls = curve.false_positive_rate, curve.true_positive_rate
    assert len(rates) == len(recalls) == len(curve.precision) and 100 < len(rates) <= 200
    assert (rates[0], recalls[0], curve.precision[0]) == (0, 0, 1)
    assert (rates[-1], recalls[-1]) == (1, 1) and curve.precision[-1] == pytest.approx(masks.mean())
    assert (np.diff(rates) >= 0).all() and (np.diff(recalls) >= 0).all()
    assert auc(rates, recalls) == pytest.approx(histogram.auroc(), abs=2e-3)
    all_rates, all_recalls, _ = roc_curve(masks.ravel(), maps.ravel(), drop_intermediate=False)
    assert np.abs(np.interp(rates, all_rates, all_recalls) - recalls).max() < 0.02
    wanted = np.sum(masks) * recalls / np.maximum(np.sum(masks) * recalls + np.sum(~masks) * rates, 1)
    assert curve.precision[1:] == pytest.approx(wanted[1:])


LABELS, SCORES = [0, 1, 1, 0], [0.1, 0.3, 0.9, 0.2]


def class_metrics(masks, maps, *arguments, labels=LABELS, scores=SCORES, **more):
    current = ClassMetrics(*arguments, **more)
    for position, image in enumerate(zip(labels, scores, masks, maps, strict=True)):
        current.add_image(position, *image)
    return current


def test_class_metrics():
    masks, maps = softmax_maps(count=4)
    masks[[0, 3]] = 0
    results_by_level = [
        class_metrics(masks, maps, level) for level in ("image-pixel-level", "image-level", "pixel-level")
    ]
    both, image, pixel = (current.metrics() for current in results_by_level)
    assert tuple(both) == ALL_METRICS
    assert both["image_auroc"] == both["image_ap"] == both["image_f1_max"] == 100
    assert both["image_recall"] == 50 and both["image_precision"] == 100
    assert both["image_f1"] == pytest.approx(100 * 2 / 3)
    decisions = metrics.decision_metrics(masks, maps, 0.5)
    expected = [
        metrics.pixel_auroc(masks, maps),
        metrics.pixel_aupro(masks, maps),
        *decisions,
        metrics.f1_max(masks, maps).value,
        metrics.pixel_ap(masks, maps),
    ]
    names = ("pixel_auroc", "pixel_aupro", "pixel_f1", "pixel_precision", "pixel_recall", "pixel_f1_max", "pixel_ap")
    assert [both[name] for name in names] == pytest.approx([100 * value for value in expected])
    assert image == {name: None if name.startswith("pixel") else value for name, value in both.items()}
    assert pixel == {name: None if name.startswith("image") else value for name, value in both.items()}
    other = ClassMetrics()
    other.add_image(4, 1, 0.05)
    results_by_level[0].merge(other)
    assert results_by_level[0].metrics()["image_auroc"] == pytest.approx(100 * 4 / 6)


def test_pixels_are_decided_as_a_finding_decides_them():
    """Map over the layers as float32, at least the threshold as float32."""
    masks, maps = softmax_maps(count=4, layers=3)
    threshold = float(maps[2, 7, 7] / np.float32(3)) + 1e-12  # rounds to the value itself, which so is anomalous
    results = class_metrics(masks, maps, pixel_threshold=threshold, layers=3).metrics()
    called = np.stack([map_values(anomaly_map, 3, (96, 96)) >= np.float32(threshold) for anomaly_map in maps])
    assert called[2, 7, 7]
    assert results["pixel_recall"] == pytest.approx(100 * called[masks].mean(), abs=1e-10)
    assert results["pixel_precision"] == pytest.approx(100 * masks[called].mean(), abs=1e-10)


def test_counts():
    masks, maps = softmax_maps(count=4)
    masks[[0, 3]] = 0
    current = class_metrics(masks, maps, image_threshold=0.2)
    current.add_image(4, 1, 0.1)  # anomalous, without a mask
    regions = sum(len(metrics.find_regions(mask)[1]) for mask in masks)
    assert tuple(current.counts()) == COUNTS
    assert current.counts() == {
        **{"normal": 2, "anomalous": 3, "with_mask": 2},
        **{"true_positives": 2, "false_positives": 1, "false_negatives": 1, "true_negatives": 1},
        **{"pixels": masks.size, "anomalous_pixels": masks.sum(), "regions": regions},
    }


def test_exact_aupro_equals_the_loop():
    for seed in range(3):
        masks, maps = softmax_maps(count=3, side=32, seed=seed)
        maps = np.round(maps, 2)  # with ties
        assert metrics.pixel_aupro_exact(masks, maps) == pytest.approx(naive.aupro_exact(masks, maps), abs=1e-12)


def test_exact_aupro_depends_on_the_order_alone():
    masks, maps = softmax_maps()
    exact, default = metrics.pixel_aupro_exact(masks, maps), metrics.pixel_aupro(masks, maps)
    stretched = maps.copy()
    normal = np.flatnonzero(~masks.ravel())
    stretched.ravel()[normal[np.argmax(maps.ravel()[normal])]] = 50  # one outlying pixel stretches the range
    assert metrics.pixel_aupro_exact(masks, stretched) == pytest.approx(exact, abs=1e-3)
    assert abs(metrics.pixel_aupro(masks, stretched) - default) > 0.01
    assert metrics.pixel_aupro_exact(masks, np.exp(maps)) == pytest.approx(exact, abs=1e-3)
    assert metrics.pixel_aupro_exact(masks, np.zeros(maps.shape)) == pytest.approx(0.15)
    assert metrics.pixel_aupro_exact(masks, masks.astype(float)) == pytest.approx(1)
    assert metrics.pixel_aupro_exact(np.zeros(masks.shape), maps) is None
