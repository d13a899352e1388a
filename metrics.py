"""The metrics of the field, each defined once, on counts: how many items have a value in each of several cells.

`REGISTRY` lists what a run reports; runs, intervals, tables and files iterate over it. The functions on arrays count
all images or pixels at once and call the same definitions. Arrays in, fractions out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

AUPRO_THRESHOLDS = 200
AUPRO_FALSE_POSITIVE_LIMIT = 0.3


class DecisionMetrics(NamedTuple):
    """F1, precision and recall of what is called anomalous; None where undefined."""

    f1: float | None
    precision: float | None
    recall: float | None


class BestF1(NamedTuple):
    """The largest F1, and a threshold that gives it: what is at least `threshold` is called anomalous."""

    value: float
    threshold: float


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve of the image scores.

    Args:
        labels: (N,), 1 anomalous, 0 normal.
        scores: (N,), larger is more anomalous.

    Returns:
        a fraction in [0, 1]; None where only one of the labels occurs.
    """
    truth, predicted = _pair(labels, scores)
    return fraction_or_none(auroc_of_counts(*_cells(truth, predicted)))


def image_ap(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Average precision of the image scores; arguments and result as for `image_auroc`."""
    truth, predicted = _pair(labels, scores)
    return fraction_or_none(average_precision_of_counts(*_cells(truth, predicted)))


def pixel_auroc(masks: ArrayLike, maps: ArrayLike) -> float | None:
    """Area under the ROC curve over all pixels.

    Args:
        masks: (N, H, W), non-zero where anomalous.
        maps: (N, H, W), larger is more anomalous.

    Returns:
        a fraction in [0, 1]; None where all pixels are of one kind.
    """
    truth, predicted = _pair(masks, maps)
    return fraction_or_none(auroc_of_counts(*_cells(truth, predicted)))


def pixel_ap(masks: ArrayLike, maps: ArrayLike) -> float | None:
    """Average precision over all pixels; arguments and result as for `pixel_auroc`."""
    truth, predicted = _pair(masks, maps)
    return fraction_or_none(average_precision_of_counts(*_cells(truth, predicted)))


def decision_metrics(truth: ArrayLike, predicted: ArrayLike, threshold: float) -> DecisionMetrics:
    """F1, precision and recall where everything from `threshold` on is called anomalous.

    Recall is None where nothing is anomalous; F1 and precision also where nothing is normal, since nothing could be a
    false alarm. Where nothing is called anomalous, precision is 0.

    Args:
        truth: labels or masks of any shape, non-zero where anomalous.
        predicted: scores or maps of the same shape; the threshold is compared in their type.
    """
    anomalous, values = _pair(truth, predicted)
    anomalous, called = anomalous != 0, values >= values.dtype.type(threshold)
    found, total = np.sum(anomalous & called), np.sum(anomalous)
    fractions = decision_metrics_of_counts(found, called.sum(), total, anomalous.size - total)
    return DecisionMetrics(*map(fraction_or_none, fractions))


def f1_max(truth: ArrayLike, predicted: ArrayLike) -> BestF1 | None:
    """The largest F1 of all thresholds; arguments as for `decision_metrics`.

    The threshold lies halfway between the smallest value called anomalous and the largest one that is not: on other
    data, values in the gap between them are as likely to belong to either side. Among thresholds of equal F1 it is the
    highest.

    Returns:
        None where not both kinds occur.
    """
    anomalous, values = _pair(truth, predicted)
    anomalous = anomalous.ravel() != 0
    if not _has_both(anomalous):
        return None
    distinct, positions = np.unique(values.ravel(), return_inverse=True)
    counts = [np.bincount(positions[kind], minlength=len(distinct)) for kind in (~anomalous, anomalous)]
    value, cell = f1_max_of_counts(*counts)
    return BestF1(float(value), threshold_before(int(cell), distinct, distinct))


def threshold_before(cell: int, smallest: np.ndarray, largest: np.ndarray) -> float:
    """Halfway between a cell and the one below it, in the type of their values; the lowest cell's own smallest value.

    Args:
        smallest, largest: of each cell, in ascending order.
    """
    if cell == 0:
        return float(smallest[0])
    below, above = largest[cell - 1], smallest[cell]
    kind = np.result_type(below.dtype, np.float16)  # NumPy 1 widens a float32 that is divided by a number
    middle = (below / 2 + above / 2).astype(kind)
    return float(middle if below < middle <= above else above)  # neighbouring numbers have none between them


def fraction_or_none(value: Any) -> float | None:
    """A fraction as a plain number; None for NaN, which stands for undefined."""
    return None if np.isnan(value) else float(value)


def pixel_aupro(masks: ArrayLike, maps: ArrayLike) -> float | None:
    """Area under the per-region-overlap curve (Bergmann et al. 2020), as the paper's code integrates it.

    200 evenly spaced thresholds between the smallest and the largest value of the maps. At each, PRO is the mean
    over all ground-truth regions (8-connected components of each mask) of the share of the region above the
    threshold, FPR the share of all normal pixels above it. The points with FPR < 0.3 are kept, their FPRs stretched
    to [0, 1], and the curve is integrated by trapezoids.

    Args:
        masks: (N, H, W), non-zero where anomalous.
        maps: (N, H, W), larger is more anomalous.

    Returns:
        a fraction in [0, 1]; the largest kept PRO where the kept FPRs are all equal; 0 where no point is kept or
        the maps are constant; None without a region or without a normal pixel.
    """
    truth, predicted = _pair(masks, maps)
    truth = truth != 0
    if not _has_both(truth):
        return None
    low, high = float(predicted.min()), float(predicted.max())
    if low == high:
        return 0.0
    thresholds = aupro_thresholds(low, high)
    numbers, sizes = _regions_of_all(truth)
    passed = np.searchsorted(thresholds, predicted[truth])  # how many thresholds each anomalous pixel is above
    steps = len(thresholds) + 1
    normal = sum(
        np.bincount(_thresholds_below(values[~mask], thresholds), minlength=steps)
        for values, mask in zip(predicted, truth, strict=True)  # image by image, within the processor's cache
    )
    rates = counts_from(np.asarray(normal))[1:] / np.sum(normal)
    counts = np.bincount(numbers * steps + passed, minlength=len(sizes) * steps).reshape(-1, steps)
    above = counts[:, ::-1].cumsum(axis=1)[:, -2::-1]  # (regions, thresholds)
    overlaps = (above / sizes[:, None]).mean(axis=0)
    return float(aupro_of_thresholds(rates, overlaps))


def pixel_aupro_exact(masks: ArrayLike, maps: ArrayLike) -> float | None:
    """Area under the per-region-overlap curve with every distinct value as a threshold.

    The curve of PRO over FPR (as for `pixel_aupro`) from (0, 0) to (1, 1), cut at FPR 0.3 by interpolation; its area
    divided by 0.3. It depends on the order of the values alone, while `pixel_aupro` moves when a single outlying pixel
    stretches the range that its 200 thresholds divide.

    Args:
        masks: (N, H, W), non-zero where anomalous.
        maps: (N, H, W), larger is more anomalous.

    Returns:
        a fraction in [0, 1]; 0.15, the value of chance, where the maps are constant; None without a region or
        without a normal pixel.
    """
    truth, predicted = _pair(masks, maps)
    truth = truth != 0
    if not _has_both(truth):
        return None
    numbers, sizes = _regions_of_all(truth)
    # PRO changes at the values of anomalous pixels only: the curve's corners are before and behind each of them.
    values, positions = np.unique(predicted[truth], return_inverse=True)
    overlaps = np.bincount(positions, (1 / sizes)[numbers])[::-1].cumsum()
    overlaps /= overlaps[-1]
    total = truth.size - np.count_nonzero(truth)
    normal = np.sort(_largest_normals(predicted, truth, total))
    behind = (len(normal) - np.searchsorted(normal, values, side="left"))[::-1] / total
    before = (len(normal) - np.searchsorted(normal, values, side="right"))[::-1] / total
    rates = np.concatenate([[0], np.stack([before, behind], axis=1).ravel(), [1]])
    overlaps = np.concatenate([[0, 0], np.repeat(overlaps, 2)])
    return aupro_of_curve(rates, overlaps)


def aupro_thresholds(low: float, high: float) -> np.ndarray:
    """The thresholds of `pixel_aupro` for maps from `low` to `high`: 200, or the one value that there is."""
    return np.arange(low, high, (high - low) / AUPRO_THRESHOLDS) if low < high else np.array([low])


def aupro_of_thresholds(rates: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    """The paper's integral of the points (FPR, PRO), see `pixel_aupro`.

    Args:
        rates, overlaps: (..., T) at thresholds in ascending order, so that both fall; several curves at once.
    """
    kept = rates < AUPRO_FALSE_POSITIVE_LIMIT
    steps = (rates[..., :-1] - rates[..., 1:]) * (overlaps[..., :-1] + overlaps[..., 1:]) / 2
    area = np.where(kept[..., :-1], steps, 0).sum(axis=-1)
    width = np.where(kept, rates, -np.inf).max(axis=-1) - rates[..., -1]
    return np.where(width > 0, area / np.where(width > 0, width, 1), np.where(kept, overlaps, 0).max(axis=-1))


def aupro_of_curve(rates: np.ndarray, overlaps: np.ndarray) -> float:
    """The integral of `pixel_aupro_exact` over a curve from (0, 0) to (1, 1), its points (C,) in ascending order."""
    limit = AUPRO_FALSE_POSITIVE_LIMIT
    kept = int(np.searchsorted(rates, limit, side="right"))
    step = (limit - rates[kept - 1]) / (rates[kept] - rates[kept - 1])
    end = overlaps[kept - 1] + step * (overlaps[kept] - overlaps[kept - 1])
    x, y = np.append(rates[:kept], limit), np.append(overlaps[:kept], end)
    return float(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1])) / 2 / limit)


def find_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The regions of one mask: its 8-connected components.

    Args:
        mask: (H, W) bool.

    Returns:
        (P,) the number of the region, from 0, of every anomalous pixel, row by row; (R,) the regions' sizes in pixels.
    """
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    numbers = labels[mask] - 1
    return numbers, np.bincount(numbers)


def _regions_of_all(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`find_regions` for (N, H, W), numbered through."""
    numbers, sizes, count = [], [], 0
    for mask in masks:
        if mask.any():
            own_numbers, own_sizes = find_regions(mask)
            numbers.append(own_numbers + count)
            sizes.append(own_sizes)
            count += len(own_sizes)
    return np.concatenate(numbers), np.concatenate(sizes)


def _thresholds_below(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of the evenly spaced thresholds (T,) each value is strictly above; the first is the smallest value.

    By arithmetic instead of a search; the division may be off by one step, so its neighbours are compared.
    """
    last = len(thresholds) - 1
    scale = last / (thresholds[-1] - thresholds[0]) if last else 0.0
    steps = ((values - thresholds[0]) * scale).astype(np.intp).clip(0, last)
    steps -= values <= thresholds[steps]
    steps += values > np.append(thresholds[1:], np.inf)[steps]
    return steps + 1


def _largest_normals(maps: np.ndarray, masks: np.ndarray, total: int) -> np.ndarray:
    """The normal pixels that a curve up to the false-positive limit can reach: a little more than that share.

    Sorting these alone is what makes the exact integral fast. A coarse count of all pixels finds where they begin.
    """
    low, high = float(maps.min()), float(maps.max())
    if low == high:
        return maps[~masks]
    edges = aupro_thresholds(low, high)
    counts = sum(
        np.bincount(_thresholds_below(values[~mask], edges), minlength=len(edges) + 1)
        for values, mask in zip(maps, masks, strict=True)
    )
    above = counts_from(np.asarray(counts))[1:]  # normal pixels above each edge
    reached = np.flatnonzero(above > AUPRO_FALSE_POSITIVE_LIMIT * total)
    return maps[~masks & (maps > edges[reached[-1]])] if len(reached) else maps[~masks]


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    true_array, predicted_array = np.asarray(truth), np.asarray(predicted)
    if true_array.shape != predicted_array.shape:
        raise ValueError(f"shapes differ: {true_array.shape} of the truth, {predicted_array.shape} of the predictions")
    if not np.isfinite(predicted_array).all():
        raise ValueError("the predictions hold values that are not finite")
    return true_array, predicted_array


def _cells(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the normal and the anomalous items with each distinct value."""
    anomalous = truth.ravel() != 0
    distinct, positions = np.unique(predicted.ravel(), return_inverse=True)
    normals, positives = (np.bincount(positions[kind], minlength=len(distinct)) for kind in (~anomalous, anomalous))
    return normals, positives


def _has_both(labels: np.ndarray) -> bool:
    return bool(labels.any()) and not bool(labels.all())


# Definitions on counts. The cells lie along the last axis, in ascending order of their values; what is in one cell
# counts as equal. Leading axes are carried along, so that hundreds of resamples of the same items are one call. Counts
# may be whole numbers or weights. Fractions come out, NaN where they are undefined.


def auroc_of_counts(normals: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """Area under the ROC curve; undefined without both kinds.

    Args:
        normals, anomalous: (..., C) counts.
    """
    below = np.cumsum(normals, axis=-1) - normals / 2
    pairs = np.sum(anomalous * below, axis=-1)
    return _where_both(normals, anomalous, _over(_over(pairs, normals.sum(axis=-1)), anomalous.sum(axis=-1)))


def average_precision_of_counts(normals: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """Sum over the cells of precision times gain in recall; arguments and definedness as for `auroc_of_counts`."""
    found, reached = counts_from(anomalous), counts_from(anomalous) + counts_from(normals)
    gained = np.sum(anomalous * _over(found, reached), axis=-1)
    return _where_both(normals, anomalous, _over(gained, anomalous.sum(axis=-1)))


def f1_max_of_counts(normals: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest F1 that any threshold gives, and the cell that it begins at: the highest one among equals.

    Args and definedness as for `auroc_of_counts`; the cell of an undefined value means nothing.
    """
    if not normals.shape[-1]:
        return np.full(normals.shape[:-1], np.nan), np.zeros(normals.shape[:-1], dtype=int)
    found, reached = counts_from(anomalous), counts_from(anomalous) + counts_from(normals)
    f1 = _over(2 * found, reached + anomalous.sum(axis=-1, keepdims=True))
    cells = f1.shape[-1] - 1 - np.argmax(f1[..., ::-1], axis=-1)
    return _where_both(normals, anomalous, f1.max(axis=-1)), cells


def decision_metrics_of_counts(
    true_positives: np.ndarray, called: np.ndarray, anomalous: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1, precision and recall of decisions.

    Recall needs anomalous items. F1 and precision need normal ones too: without them nothing can be a false alarm.
    Where nothing is called anomalous, precision is 0.

    Args:
        true_positives: anomalous items called anomalous.
        called: all items called anomalous.
        anomalous, normals: all items of each kind.
    """
    both = (np.asarray(anomalous) > 0) & (np.asarray(normals) > 0)
    f1 = np.where(both, _over(2 * np.asarray(true_positives), np.asarray(called) + anomalous), np.nan)
    precision = np.where(both, _over(true_positives, called), np.nan)
    return f1, precision, np.where(np.asarray(anomalous) > 0, _over(true_positives, anomalous), np.nan)


def counts_from(counts: np.ndarray) -> np.ndarray:
    """(..., C): what is in each cell and in those above it."""
    return np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]


def counts_above(counts: np.ndarray, edges: tuple[np.ndarray, np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """(..., T): what lies above each threshold; of a cell that a threshold falls into, a part in proportion.

    Args:
        counts: (..., C).
        edges: the smallest and the largest value of each cell, (C,) each.
        thresholds: (T,), not below the smallest value.
    """
    cells, part = cells_of(edges, thresholds)
    above = np.concatenate([counts_from(counts), np.zeros_like(counts[..., :1])], axis=-1)
    return above[..., cells + 1] + part * (above[..., cells] - above[..., cells + 1])


def cells_of(edges: tuple[np.ndarray, np.ndarray], thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) the cell that each threshold falls into or behind, and the part of it that is taken to lie above."""
    lows, highs = edges
    cells = np.searchsorted(lows, thresholds, side="right") - 1
    low, high = lows[cells].astype(float), highs[cells].astype(float)
    inside = thresholds < high
    return cells, np.where(inside, (high - thresholds) / np.where(inside, high - low, 1), 0)


def _where_both(normals: np.ndarray, anomalous: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where((normals.sum(axis=-1) > 0) & (anomalous.sum(axis=-1) > 0), values, np.nan)


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient; 0 where there is nothing to divide by."""
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole != 0)


class Counts(NamedTuple):
    """What every metric is computed from, of images or of pixels; leading axes are carried along.

    Attributes:
        normals, anomalous: (..., C) items in each cell, the cells in ascending order of their values.
        true_positives: (...) anomalous items that reach the threshold of the decisions.
        called: (...) all items that reach it.
        rates, overlaps: (..., T) FPR and PRO of pixels at the thresholds of AUPRO, NaN where undefined; None of images.
    """

    normals: np.ndarray
    anomalous: np.ndarray
    true_positives: np.ndarray
    called: np.ndarray
    rates: np.ndarray | None = None
    overlaps: np.ndarray | None = None

    def decisions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """F1, precision and recall, see `decision_metrics_of_counts`."""
        totals = self.anomalous.sum(axis=-1), self.normals.sum(axis=-1)
        return decision_metrics_of_counts(self.true_positives, self.called, *totals)


def balanced_accuracy(counts: Counts) -> np.ndarray:
    """Mean of the shares of anomalous and of normal items that are called what they are; needs both kinds."""
    normals = counts.normals.sum(axis=-1)
    specificity = 1 - _over(counts.called - counts.true_positives, normals)
    recall = _over(counts.true_positives, counts.anomalous.sum(axis=-1))
    return _where_both(counts.normals, counts.anomalous, (recall + specificity) / 2)


def intersection_over_union(counts: Counts) -> np.ndarray:
    """Items both anomalous and called so, over items that are either; needs both kinds."""
    union = counts.called + counts.anomalous.sum(axis=-1) - counts.true_positives
    return _where_both(counts.normals, counts.anomalous, _over(counts.true_positives, union))


def _aupro(counts: Counts) -> np.ndarray:
    if counts.rates is None or counts.overlaps is None:
        return np.full(counts.normals.shape[:-1], np.nan)
    return np.where(np.isnan(counts.rates[..., 0]), np.nan, aupro_of_thresholds(counts.rates, counts.overlaps))


@dataclass(frozen=True)
class Metric:
    """A metric that runs report.

    Attributes:
        name: its key in metrics.json and its column in metrics.csv.
        level: whether images or pixels are counted.
        heading: its name in tables that say by themselves which of the two is meant.
        compute: the definition, from counts (...) to fractions (...), NaN where undefined.
    """

    name: str
    level: Literal["image", "pixel"]
    heading: str
    compute: Callable[[Counts], np.ndarray]


REGISTRY = (
    Metric("pixel_auroc", "pixel", "AUROC", lambda counts: auroc_of_counts(counts.normals, counts.anomalous)),
    Metric("pixel_aupro", "pixel", "AUPRO", _aupro),
    Metric("image_auroc", "image", "AUROC", lambda counts: auroc_of_counts(counts.normals, counts.anomalous)),
    Metric("image_ap", "image", "AP", lambda counts: average_precision_of_counts(counts.normals, counts.anomalous)),
    Metric("image_f1", "image", "F1", lambda counts: counts.decisions()[0]),
    Metric("image_precision", "image", "precision", lambda counts: counts.decisions()[1]),
    Metric("image_recall", "image", "recall", lambda counts: counts.decisions()[2]),
    Metric("image_f1_max", "image", "best F1", lambda counts: f1_max_of_counts(counts.normals, counts.anomalous)[0]),
    Metric("pixel_f1", "pixel", "F1", lambda counts: counts.decisions()[0]),
    Metric("pixel_precision", "pixel", "precision", lambda counts: counts.decisions()[1]),
    Metric("pixel_recall", "pixel", "recall", lambda counts: counts.decisions()[2]),
    Metric("pixel_f1_max", "pixel", "best F1", lambda counts: f1_max_of_counts(counts.normals, counts.anomalous)[0]),
    Metric("pixel_ap", "pixel", "AP", lambda counts: average_precision_of_counts(counts.normals, counts.anomalous)),
    Metric("image_balanced_accuracy", "image", "balanced accuracy", balanced_accuracy),
    Metric("pixel_iou", "pixel", "IoU", intersection_over_union),
)
"""What runs report, in the order of their columns: the paper's four first."""

ALL_METRICS = tuple(metric.name for metric in REGISTRY)
PAPER_METRICS = ALL_METRICS[:4]


def metrics_of(level: Literal["image", "pixel"], counts: Counts) -> dict[str, np.ndarray]:
    """All metrics of images or of pixels."""
    return {metric.name: metric.compute(counts) for metric in REGISTRY if metric.level == level}
