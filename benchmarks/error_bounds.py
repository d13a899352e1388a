"""How far metrics of counted pixels can be from the exact ones: the bounds at the head of `pixel_histogram`."""

import numpy as np
from sklearn.metrics import auc

from metrics import (
    AUPRO_FALSE_POSITIVE_LIMIT,
    aupro_thresholds,
    cells_of,
    counts_above,
    counts_from,
    f1_max_of_counts,
)
from pipeline.evaluation.pixel_histogram import PixelHistogram, Rows


def error_bounds(histogram: PixelHistogram) -> dict[str, float]:
    """Per metric the largest possible error; infinite for AUPRO where an FPR is too close to the limit.

    Only where these metrics are defined: with normal pixels and regions.
    """
    rows = histogram.rows()
    normals, overlaps = rows.normals / rows.normals.sum(), rows.overlaps / histogram.regions
    return {
        "pixel_auroc": float(normals @ rows.anomalous / rows.anomalous.sum() / 2),
        "pixel_aupro": _aupro(rows, (histogram.low, histogram.high), normals, overlaps),
        "pixel_ap": _average_precision(rows),
        "pixel_f1_max": _f1_max(rows),
    }


def _average_precision(rows: Rows) -> float:
    """Precision at the anomalous pixels of a cell lies between those with all of the cell's normal ones behind and
    before them; in the latter case it is concave in their number, so its mean is above that of its ends."""
    some = rows.anomalous > 0
    found, false = counts_from(rows.anomalous)[some], counts_from(rows.normals)[some]
    inside, normals = rows.anomalous[some], rows.normals[some]
    first = found - inside + 1
    most = found / (found + false - normals)
    least = (first / (first + false) + found / (found + false)) / 2
    taken = found / (found + false)
    return float(inside @ np.maximum(most - taken, taken - least) / rows.anomalous.sum())


def _f1_max(rows: Rows) -> float:
    """A threshold inside a cell finds at most all its anomalous pixels and none of its normal ones."""
    found, false = counts_from(rows.anomalous), counts_from(rows.normals)
    most = 2 * found / (found + false - rows.normals + rows.anomalous.sum())
    return max(0.0, float(most.max() - f1_max_of_counts(rows.normals, rows.anomalous)[0]))


def _aupro(rows: Rows, value_range: tuple[float, float], normals: np.ndarray, overlaps: np.ndarray) -> float:
    edges, thresholds = (rows.lows, rows.highs), aupro_thresholds(*value_range)
    rates = counts_above(normals, edges, thresholds)
    cells, _ = cells_of(edges, thresholds)
    kept = rates < AUPRO_FALSE_POSITIVE_LIMIT
    a = normals[cells].max()
    if (np.abs(rates - AUPRO_FALSE_POSITIVE_LIMIT) <= a).any():
        return np.inf
    width = np.ptp(rates[kept]) if kept.any() else 0.0
    if width <= a:
        return np.inf
    area = auc(rates[kept], overlaps[cells][kept])
    return float(area / width + 2 * a / (width - a))
