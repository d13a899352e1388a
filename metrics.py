"""The four metrics of the field: image AUROC, image AP, pixel AUROC and pixel AUPRO. Arrays in, fractions out."""

import numpy as np
from numpy.typing import ArrayLike
from skimage.measure import label
from sklearn.metrics import auc, average_precision_score, roc_auc_score

AUPRO_THRESHOLDS = 200
AUPRO_FALSE_POSITIVE_LIMIT = 0.3


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Area under the ROC curve of the image scores.

    Args:
        labels: (N,), 1 anomalous, 0 normal.
        scores: (N,), larger is more anomalous.

    Returns:
        a fraction in [0, 1]; None where only one of the labels occurs.
    """
    truth, predicted = _pair(labels, scores)
    return float(roc_auc_score(truth, predicted)) if _has_both(truth) else None


def image_ap(labels: ArrayLike, scores: ArrayLike) -> float | None:
    """Average precision of the image scores; arguments and result as for `image_auroc`."""
    truth, predicted = _pair(labels, scores)
    return float(average_precision_score(truth, predicted)) if _has_both(truth) else None


def pixel_auroc(masks: ArrayLike, maps: ArrayLike) -> float | None:
    """Area under the ROC curve over all pixels.

    Args:
        masks: (N, H, W), non-zero where anomalous.
        maps: (N, H, W), larger is more anomalous.

    Returns:
        a fraction in [0, 1]; None where all pixels are of one kind.
    """
    truth, predicted = _pair(masks, maps)
    truth = truth.ravel() != 0
    return float(roc_auc_score(truth, predicted.ravel())) if _has_both(truth) else None


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
    thresholds = np.arange(low, high, (high - low) / AUPRO_THRESHOLDS)
    false_positive_rates = _share_above(predicted[~truth], thresholds)
    overlaps = np.mean([_share_above(values, thresholds) for values in _regions(truth, predicted)], axis=0)
    kept = false_positive_rates < AUPRO_FALSE_POSITIVE_LIMIT
    if not kept.any():
        return 0.0
    false_positive_rates, overlaps = false_positive_rates[kept], overlaps[kept]
    width = false_positive_rates.max() - false_positive_rates.min()
    if width == 0:
        return float(overlaps.max())
    return float(auc(false_positive_rates, overlaps) / width)


def _regions(masks: np.ndarray, maps: np.ndarray) -> list[np.ndarray]:
    """The map values of every ground-truth region."""
    values = []
    for mask, anomaly_map in zip(masks, maps, strict=True):
        regions = np.asarray(label(mask, connectivity=2))
        values += [anomaly_map[regions == number] for number in range(1, int(regions.max()) + 1)]
    return values


def _share_above(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of the values strictly above each threshold."""
    ordered = np.sort(values)
    return 1 - np.searchsorted(ordered, thresholds, side="right") / len(ordered)


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    true_array, predicted_array = np.asarray(truth), np.asarray(predicted)
    if true_array.shape != predicted_array.shape:
        raise ValueError(f"shapes differ: {true_array.shape} of the truth, {predicted_array.shape} of the predictions")
    if not np.isfinite(predicted_array).all():
        raise ValueError("the predictions hold values that are not finite")
    return true_array, predicted_array


def _has_both(labels: np.ndarray) -> bool:
    return bool(labels.any()) and not bool(labels.all())
