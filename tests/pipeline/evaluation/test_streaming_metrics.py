"""Metrics that count pixels as they come, against those that see all pixels at once."""

import pickle

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc, roc_curve

import metrics
from AnomalyCLIP_lib.decisions import map_values
from benchmarks import naive
from benchmarks.error_bounds import error_bounds
from metrics import ALL_METRICS
from pipeline.evaluation.pixel_histogram import BITS, PixelHistogram, count_pixels, value_cells
from pipeline.evaluation.streaming_metrics import COUNTS, ClassMetrics, count_image


def softmax_maps(count=12, side=96, layers=1, seed=0):
    """Masks, and maps whose values crowd at the whole numbers, as sums of sharp softmax maps do."""
    rng = np.random.default_rng(seed)
    masks = np.stack([gaussian_filter(rng.standard_normal((side, side)), 6) > 0.1 for _ in range(count)])
    logits = gaussian_filter(rng.standard_normal((layers, count, side, side)), (0, 0, 3, 3)) * 80 - 7 + 9 * masks
    return masks, (1 / (1 + np.exp(-logits))).sum(axis=0).astype(np.float32)


def counted(masks, maps, layers=1, bits=BITS):
    histogram = PixelHistogram(layers, bits)
    for mask, anomaly_map in zip(masks, maps, strict=True):
        histogram.add(count_pixels(mask, anomaly_map, layers, bits))
    return histogram


NAMES = ("pixel_auroc", "pixel_aupro", "pixel_ap", "pixel_f1_max")


def results(histogram):
    found = metrics.metrics_of("pixel", histogram.counts())
    return {name: metrics.fraction_or_none(found[name]) for name in NAMES}


def exact_results(masks, maps):
    best = metrics.f1_max(masks, maps)
    values = metrics.pixel_auroc(masks, maps), metrics.pixel_aupro(masks, maps), metrics.pixel_ap(masks, maps)
    return dict(zip(NAMES, (*values, best.value if best else None), strict=True))


@pytest.mark.parametrize("layers", [1, 2, 4, 24])
def test_cells_follow_the_order_of_values(layers):
    rng = np.random.default_rng(0)
    near = 2.0 ** rng.uniform(-30, 0, 5000)
    unit = np.concatenate([rng.random(5000), near, 1 - near, [0, 0.5, 1, 1e-9]])
    values = np.sort(np.concatenate([n + unit for n in range(layers)])).astype(np.float32)
    cells, numbers = value_cells(layers), value_cells(layers)(values)
    assert (np.diff(numbers) >= 0).all() and numbers[0] == 0 and numbers[-1] == len(cells) - 1
    assert (cells.edges[numbers] <= values).all() and (values <= cells.edges[numbers + 1]).all()
    assert (np.diff(cells.edges) >= 0).all() and len(cells) <= 2**22 + 1
    assert value_cells(layers)(np.array([-1e-6, layers + 1e-6], np.float32)).tolist() == [0, len(cells) - 1]


@pytest.mark.parametrize("layers", [1, 4])
def test_near_the_exact_metrics_and_within_the_bounds(layers):
    masks, maps = softmax_maps(layers=layers)
    histogram = counted(masks, maps, layers)
    assert results(histogram) == pytest.approx(exact_results(masks, maps), abs=1e-5)
    assert histogram.f1_max().threshold == pytest.approx(metrics.f1_max(masks, maps).threshold, abs=1e-3)
    assert error_bounds(histogram)["pixel_auroc"] < 1e-4


@pytest.mark.parametrize("bits", [2, 6, 11])
@pytest.mark.parametrize("scale, offset", [(1, 0), (1e-3, 0), (0.3, 0.7)])
def test_bounds_hold_with_few_cells_and_in_other_ranges(bits, scale, offset):
    for seed in range(2):
        masks, maps = softmax_maps(count=4, seed=seed)
        maps = maps * np.float32(scale) + np.float32(offset)
        histogram = counted(masks, maps, bits=bits)
        exact, bounds = exact_results(masks, maps), error_bounds(histogram)
        for name, value in results(histogram).items():
            assert abs(value - exact[name]) <= bounds[name] + 1e-12, name


def test_tied_values_stay_exact():
    """Two values hold most pixels: sharing cells must not blur what is strictly above them."""
    masks, maps = softmax_maps()
    maps = np.where(maps < 0.02, np.float32(0), np.where(maps > 0.98, np.float32(1), maps))
    assert results(counted(masks, maps, bits=10)) == pytest.approx(exact_results(masks, maps), abs=1e-4)


def test_order_and_division_do_not_matter():
    masks, maps = softmax_maps()
    together = counted(masks, maps)
    backwards = counted(masks[::-1], maps[::-1])
    parts = [counted(masks[i::3], maps[i::3]) for i in range(3)]
    joined = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        joined.merge(part)
    assert results(backwards) == pytest.approx(results(together), abs=1e-14)
    assert results(joined) == pytest.approx(results(together), abs=1e-14)


@pytest.mark.parametrize("value", [0, 1])
def test_undefined_with_one_kind_of_pixel(value):
    maps = np.random.default_rng(0).random((2, 5, 5), dtype=np.float32)
    for histogram in (counted(np.full((2, 5, 5), value), maps), PixelHistogram()):
        assert set(results(histogram).values()) == {None}
        assert histogram.curve() is None and histogram.f1_max() is None


def test_constant_and_perfect_maps():
    masks, _ = softmax_maps(count=2)
    share = masks.mean()
    constant = [0.5, 0, share, 2 * share / (1 + share)]
    assert list(results(counted(masks, np.full(masks.shape, 0.5))).values()) == pytest.approx(constant)
    assert list(results(counted(masks, masks.astype(np.float32))).values()) == pytest.approx([1] * 4)


def test_bad_maps_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        count_pixels(np.ones((2, 2)), np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="shapes differ"):
        count_pixels(np.ones((2, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="cannot be merged"):
        PixelHistogram().merge(PixelHistogram(2))


def test_memory_stays_flat():
    """Nothing that is kept grows with the number of maps."""
    masks, maps = softmax_maps(count=4)
    histogram, sizes = PixelHistogram(bits=4), []
    for repetition in range(8):
        for mask, anomaly_map in zip(masks, maps, strict=True):
            histogram.add(count_pixels(mask, anomaly_map * np.float32(1 - repetition * 1e-3), bits=4))
        sizes.append(len(pickle.dumps(histogram)))
    assert max(sizes) < len(value_cells(1, 4)) * 40 + 2000


def test_curves_of_pixels():
    masks, maps = softmax_maps()
    maps[:, :5] = 0  # a large share of the pixels in one step
    histogram = counted(masks, maps)
    curve = histogram.curve()
    rates, recalls = curve.false_positive_rate, curve.true_positive_rate
    assert len(rates) == len(recalls) == len(curve.precision) and 100 < len(rates) <= 200
    assert (rates[0], recalls[0], curve.precision[0]) == (0, 0, 1)
    assert (rates[-1], recalls[-1]) == (1, 1) and curve.precision[-1] == pytest.approx(masks.mean())
    assert (np.diff(rates) >= 0).all() and (np.diff(recalls) >= 0).all()
    assert auc(rates, recalls) == pytest.approx(results(histogram)["pixel_auroc"], abs=2e-3)
    all_rates, all_recalls, _ = roc_curve(masks.ravel(), maps.ravel(), drop_intermediate=False)
    assert np.abs(np.interp(rates, all_rates, all_recalls) - recalls).max() < 0.02
    wanted = np.sum(masks) * recalls / np.maximum(np.sum(masks) * recalls + np.sum(~masks) * rates, 1)
    assert curve.precision[1:] == pytest.approx(wanted[1:])


LABELS, SCORES = [0, 1, 1, 0], [0.1, 0.3, 0.9, 0.2]


def class_metrics(masks, maps, *arguments, labels=LABELS, scores=SCORES, layers=1, pixel_threshold=0.5, **more):
    current = ClassMetrics(*arguments, layers=layers, **more)
    for position, (label, score, *pixels) in enumerate(zip(labels, scores, masks, maps, strict=True)):
        current.add(position, label, score, count_image(*pixels, layers, pixel_threshold))
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
    assert [both[name] for name in names] == pytest.approx([100 * value for value in expected], abs=1e-3)
    assert image == {name: None if name.startswith("pixel") else value for name, value in both.items()}
    assert pixel == {name: None if name.startswith("image") else value for name, value in both.items()}
    other = ClassMetrics()
    other.add(4, 1, 0.05)
    results_by_level[0].merge(other)
    assert results_by_level[0].metrics()["image_auroc"] == pytest.approx(100 * 4 / 6)


def test_pixels_are_decided_as_a_decision_decides_them():
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
    current.add(4, 1, 0.1)  # anomalous, without a mask
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
