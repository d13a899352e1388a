"""Intervals against a bootstrap that takes the exact metrics of every resample, and what holds of any interval."""

import pickle

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, jaccard_score
from test_streaming_metrics import softmax_maps

import metrics
from metrics import ALL_METRICS
from pipeline.evaluation.bootstrap import CELLS, RESAMPLES, draw_weights, few_cells, interval, mean_deviations
from pipeline.evaluation.pixel_histogram import count_pixels
from pipeline.evaluation.streaming_metrics import ClassMetrics, count_image

SEED = (111, 5)
IMAGE_THRESHOLD, PIXEL_THRESHOLD = 0.5, 0.6
COUNTED_EXACTLY = [name for name in ALL_METRICS if not name.startswith("pixel")]
COUNTED_EXACTLY += ["pixel_f1", "pixel_precision", "pixel_recall"]


def sample(images=24, layers=1, seed=0, unmasked=()):
    """Images of both labels: labels, scores with ties, masks (None for some), maps in [0, layers]."""
    masks, maps = softmax_maps(count=images, side=48, layers=layers, seed=seed)
    labels = np.arange(images) % 2
    masks[labels == 0] = False
    scores = np.round(np.random.default_rng(seed).random(images) * 0.6 + 0.25 * labels, 1).astype(np.float32)
    return labels, scores, [None if i in unmasked else mask for i, mask in enumerate(masks)], maps


def collected(labels, scores, masks, maps, positions=None, layers=1):
    current = ClassMetrics("image-pixel-level", IMAGE_THRESHOLD, layers)
    for position in range(len(labels)) if positions is None else positions:
        mask = masks[position]
        pixels = None if mask is None else count_image(mask, maps[position], layers, PIXEL_THRESHOLD)
        current.add(position, int(labels[position]), float(scores[position]), pixels)
    return current


def exact_metrics(labels, scores, masks, maps, layers, thresholds):
    """Of all images at once; AUPRO at the given thresholds."""
    values = maps / np.float32(layers)
    regions = [mask & (numbers == number) for mask in masks for numbers, number in numbered(mask)]
    maps_of_regions = [anomaly_map for mask, anomaly_map in zip(masks, maps, strict=True) for _ in numbered(mask)]
    rates = np.array([(maps[~masks] > threshold).mean() for threshold in thresholds])
    overlaps = np.array(
        [
            np.mean([(m[r] > threshold).mean() for m, r in zip(maps_of_regions, regions, strict=True)])
            for threshold in thresholds
        ]
    )
    image, pixel = (
        metrics.decision_metrics(truth, predicted, threshold)
        for truth, predicted, threshold in ((labels, scores, IMAGE_THRESHOLD), (masks, values, PIXEL_THRESHOLD))
    )
    return {
        "pixel_auroc": metrics.pixel_auroc(masks, maps),
        "pixel_aupro": float(metrics.aupro_of_thresholds(rates, overlaps)),
        "image_auroc": metrics.image_auroc(labels, scores),
        "image_ap": metrics.image_ap(labels, scores),
        **dict(zip(("image_f1", "image_precision", "image_recall"), image, strict=True)),
        "image_f1_max": metrics.f1_max(labels, scores).value,
        **dict(zip(("pixel_f1", "pixel_precision", "pixel_recall"), pixel, strict=True)),
        "pixel_f1_max": metrics.f1_max(masks, maps).value,
        "pixel_ap": metrics.pixel_ap(masks, maps),
        "image_balanced_accuracy": balanced_accuracy_score(labels, scores >= IMAGE_THRESHOLD),
        "pixel_iou": jaccard_score(masks.ravel(), values.ravel() >= np.float32(PIXEL_THRESHOLD)),
    }


def numbered(mask):
    if not mask.any():
        return []
    numbers, sizes = metrics.find_regions(mask)
    picture = np.full(mask.shape, -1)
    picture[mask] = numbers
    return [(picture, number) for number in range(len(sizes))]


@pytest.mark.parametrize("layers", [1, 4])
def test_equals_the_metrics_of_every_resample(layers):
    labels, scores, masks, maps = sample(layers=layers)
    masks, count = np.stack(masks), 20
    deviations = collected(labels, scores, masks, maps, layers=layers).deviations(*SEED)
    assert set(deviations) == set(ALL_METRICS) and all(len(row) == RESAMPLES for row in deviations.values())
    weights = draw_weights(labels, RESAMPLES, np.random.default_rng(list(SEED)))[:count].astype(int)
    thresholds = metrics.aupro_thresholds(float(maps.min()), float(maps.max()))
    whole = exact_metrics(labels, scores, masks, maps, layers, thresholds)
    exact = {name: [] for name in ALL_METRICS}
    for row in weights:
        drawn = np.repeat(np.arange(len(labels)), row)
        found = exact_metrics(labels[drawn], scores[drawn], masks[drawn], maps[drawn], layers, thresholds)
        for name in ALL_METRICS:
            exact[name].append(100 * (found[name] - whole[name]))
    for name in ALL_METRICS:
        error = deviations[name][:count] - exact[name]
        assert np.abs(error).max() < (1e-9 if name in COUNTED_EXACTLY else 1.0), name
        assert np.std(error) < 0.1 * np.std(exact[name]), name  # cells round a little


def test_of_every_kind_as_many_are_drawn_as_there_are():
    strata = np.array([0, 1, 1, 2, 0, 0, 1, 0])
    weights = draw_weights(strata, 2000, np.random.default_rng(0))
    for kind in range(3):
        assert (weights[:, strata == kind].sum(axis=1) == (strata == kind).sum()).all()
    assert (weights[:, 3] == 1).all()  # alone of its kind
    assert weights.mean(axis=0) == pytest.approx(np.ones(8), abs=0.1)
    assert weights[:, 0].var() == pytest.approx(4 * 0.25 * 0.75, abs=0.1)  # binomial


def intervals(current, seed=SEED):
    deviations = current.deviations(*seed)
    return {name: interval(value, deviations.get(name)) for name, value in current.metrics().items()}


def test_intervals_hold_the_value_and_shrink_with_more_images():
    few, many = sample(24), sample(24)
    many = tuple(np.concatenate([np.asarray(part)] * 4) for part in many)  # the same kind of images, four times as many
    small, large = collected(*few), collected(*many)
    values = small.metrics()
    for name, (low, high) in intervals(small).items():
        narrow_low, narrow_high = intervals(large)[name]
        assert 0 <= low <= values[name] <= high <= 100
        assert 0 < narrow_high - narrow_low < 0.75 * (high - low)


def test_the_interval_of_recall_is_that_of_a_binomial():
    """Of 200 anomalous images 80 are found: recall is 40 %, its standard deviation 3.46 points."""
    current = ClassMetrics("image-level", 0.5)
    for position in range(400):
        anomalous = position < 200
        current.add(position, int(anomalous), 0.9 if position < 80 else 0.1)
    low, high = intervals(current)["image_recall"]
    assert (low, high) == pytest.approx((40 - 1.96 * 3.46, 40 + 1.96 * 3.46), abs=1.6)


def test_the_seed_decides_and_division_and_order_do_not():
    data = sample(15, unmasked=(1, 3))
    together = collected(*data)
    expected = intervals(together)
    assert intervals(together) == expected
    assert intervals(together, (112, 5)) != expected != intervals(together, (111, 6))
    parts = [collected(*data, positions=range(start, 15, 3)) for start in (2, 0, 1)]
    merged = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        merged.merge(part)
    for name, ends in intervals(merged).items():
        assert ends == pytest.approx(expected[name], abs=1e-9), name


def test_images_without_a_mask_count_for_image_metrics_only():
    labels, scores, masks, maps = sample(16)
    without = collected(labels, scores, [mask if i != 5 else None for i, mask in enumerate(masks)], maps)
    assert without.counts()["with_mask"] == 7
    assert all(ends is not None for ends in intervals(without).values())


@pytest.mark.parametrize("label", [0, 1])
def test_undefined_with_one_label(label):
    _, scores, masks, maps = sample(8)
    masks = np.stack(masks) if label else np.zeros(maps.shape, bool)
    current = collected(np.full(8, label), scores, masks, maps)
    found = intervals(current)
    assert {name for name, value in current.metrics().items() if value is None} == {
        name for name, ends in found.items() if ends is None
    }
    defined = {name for name, ends in found.items() if ends is not None}
    assert defined == (
        {"image_recall", *(name for name in ALL_METRICS if name.startswith("pixel"))} if label else set()
    )


def test_degenerate_classes():
    assert set(intervals(ClassMetrics()).values()) == {None}
    single = ClassMetrics()
    single.add(0, 1, 0.7, count_image(np.eye(8), np.full((8, 8), 0.25, np.float32)))
    found = intervals(single)
    assert found["image_recall"] == (100, 100) and found["pixel_aupro"] == (0, 0) and found["pixel_auroc"] == (50, 50)
    perfect = ClassMetrics()
    for position in range(6):
        mask = np.zeros((8, 8), bool)
        mask[2:4, 2:5] = position % 2
        perfect.add(position, position % 2, float(position % 2), count_image(mask, mask.astype(np.float32)))
    assert set(intervals(perfect).values()) == {(100, 100)}


def test_masks_that_a_resample_may_miss():
    """One of two masks is empty at this size: a quarter of the resamples has no anomalous pixel, the others count."""
    labels, scores, masks, maps = sample(4)
    masks[1] = np.zeros_like(masks[1])
    deviations = collected(labels, scores, masks, maps).deviations(*SEED)["pixel_auroc"]
    assert 0.15 < np.isnan(deviations).mean() < 0.35
    assert intervals(collected(labels, scores, masks, maps))["pixel_auroc"] is not None


def test_means_over_the_classes_that_have_the_metric():
    nothing = np.full(3, np.nan)
    classes = [{"a": np.array([1.0, np.nan, 3.0])}, {"a": np.array([3.0, 4.0, 5.0])}, {"a": nothing}, {}]
    assert mean_deviations(classes, "a").tolist() == [2, 4, 4]
    assert mean_deviations([{"a": nothing}, {}], "a") is None
    assert interval(None, np.zeros(3)) is None and interval(5.0, nothing) is None


def test_what_an_image_is_kept_with():
    masks, maps = softmax_maps(count=2, side=48)
    current = collected([0, 1], [0.1, 0.9], [masks[0] & False, masks[1]], maps)
    normal, anomalous = (len(pickle.dumps(image)) for image in current.images)
    assert normal < 4 * CELLS + 500 and anomalous < 12 * CELLS + 700


@pytest.mark.parametrize("layers", [1, 3, 24])
def test_cells_take_any_value(layers):
    cells = few_cells(layers)
    assert (np.diff(cells.lows) > 0).all() and cells.lows[0] == 0 and len(cells) <= CELLS + layers
    values = np.array([[0, 1e-7, 0.3, 0.5, 1, layers]], np.float32)
    counts = cells.count(count_pixels(values > 0.4, values, layers), 3, 3)
    assert counts.normals.sum() == 3 and counts.anomalous.sum() == 3 and counts.overlaps.sum() == pytest.approx(1)
    assert counts.true_positives == counts.called == 3
