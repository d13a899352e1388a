"""Metrics of counts: how many normal and how many anomalous items have a value in each of several cells.

The cells lie along the last axis, in ascending order of their values; what is in one cell counts as equal. Leading
axes are carried along, so that hundreds of resamples of the same items are one call. Counts may be whole numbers or
weights. Fractions come out, NaN where they are undefined.
"""

import numpy as np


def auroc(normals: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """Area under the ROC curve; undefined without both kinds.

    Args:
        normals, anomalous: (..., C) counts.
    """
    below = np.cumsum(normals, axis=-1) - normals / 2
    pairs = np.sum(anomalous * below, axis=-1)
    return _where_both(normals, anomalous, _over(_over(pairs, normals.sum(axis=-1)), anomalous.sum(axis=-1)))


def average_precision(normals: np.ndarray, anomalous: np.ndarray) -> np.ndarray:
    """Sum over the cells of precision times gain in recall; arguments and definedness as for `auroc`."""
    found, reached = counts_from(anomalous), counts_from(anomalous) + counts_from(normals)
    gained = np.sum(anomalous * _over(found, reached), axis=-1)
    return _where_both(normals, anomalous, _over(gained, anomalous.sum(axis=-1)))


def f1_max(normals: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest F1 that any threshold gives, and the cell that it begins at: the highest one among equals.

    Args and definedness as for `auroc`; the cell of an undefined value means nothing.
    """
    found, reached = counts_from(anomalous), counts_from(anomalous) + counts_from(normals)
    f1 = _over(2 * found, reached + anomalous.sum(axis=-1, keepdims=True))
    cells = f1.shape[-1] - 1 - np.argmax(f1[..., ::-1], axis=-1)
    return _where_both(normals, anomalous, f1.max(axis=-1)), cells


def decision_metrics(
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
