"""Pixel AUROC and AUPRO of any number of maps in bounded memory.

The exact functions of metrics.py need all pixels of a class at once: 10,000 maps of 518 x 518 are 11 GB. Here they
are counted as they come, in cells of neighbouring values, and forgotten.

**Exact while it can be.** A cell begins as one float32 value. Only when more than `cells` different values have been
seen do neighbours share a cell: 2^s successive keys, with the smallest s that gives few enough cells. Keys follow
the values: they run evenly through the float32 numbers below one half and, mirrored, through those above, so that
maps crowding at 0 and at 1 (sums of layers: at any whole number) are resolved relative to their distance from it.
s depends on the set of values alone: neither the order of the images nor their division among processes
changes a count.

**Error bounds**, n_c the share of all normal pixels in cell c, p_c the share of the anomalous ones, o_c of the
overlap (each pixel counting 1 / size of its region); cells that hold one value add nothing:

- AUROC: within a cell the order is unknown, so at most half the sum of n_c p_c.
- exact AUPRO: likewise half the sum of n_c o_c, over 0.3.
- AP: in a cell with a anomalous pixels, A anomalous and N normal ones above it and n normal ones inside, each of the a
  has a precision of at most (A + a) / (A + a + N), and on average at least the mean of j / (j + N + n) at j = A + 1 and
  A + a (that function is concave); (A + a) / (A + a + N + n) is taken.
- largest F1: exact among the thresholds that begin a cell, so never too large; one inside a cell gives at most
  2 (A + a) / (A + a + N + P), P all anomalous pixels.
- AUPRO of 200 thresholds: only the cells that a threshold falls into matter. With a the largest n_c among them, every
  FPR is right up to a, which moves the area A under the kept points by at most a (summation by parts: PRO rises,
  from 0 to at most 1) and so the width W by which it is divided. Every PRO is right up to the o_c of its cell, which
  moves A by at most B, the area under these o_c. So A / W is right up to B / W + 2 a / (W - a), as long as no FPR
  lies within a of the limit 0.3, where the definition itself jumps. The thresholds are exact, since the smallest
  and the largest value are.

`errors` gives these bounds for the pixels seen. They are far below 1e-4 for maps that are sums of probabilities, even
sharp ones (benchmarks/README.md has figures); maps of another kind may need more cells.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import auc

from metrics import (
    AUPRO_FALSE_POSITIVE_LIMIT,
    BestF1,
    Counts,
    aupro_of_curve,
    aupro_of_thresholds,
    aupro_thresholds,
    auroc_of_counts,
    average_precision_of_counts,
    cells_of,
    counts_above,
    counts_from,
    f1_max_of_counts,
    find_regions,
    fraction_or_none,
    threshold_before,
)

CELLS = 2**20
CURVE_POINTS = 200
WAITING = 4  # times as many values wait to be counted
HALF = 0x3F000000  # the bits of 0.5 as a float32
SPAN = 2 * HALF  # keys from one whole number to the next
BLOCK = 2**14  # values at a time, which stay in the processor's cache
WHOLE_FROM = 2.0**24  # from here on every float32 is a whole number


@dataclass(frozen=True)
class _Rows:
    """Cells in ascending order: the smallest and the largest value in each, and what it holds."""

    values: np.ndarray  # float32
    largest: np.ndarray  # float32
    normals: np.ndarray  # int64, pixels
    anomalous: np.ndarray  # int64, pixels
    overlaps: np.ndarray  # float64, pixels over the size of their region

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class PixelCurve:
    """The ROC and the precision-recall curve of pixels, from the highest threshold to the lowest; fractions.

    Attributes:
        false_positive_rate: (P,) ascending from 0 to 1.
        true_positive_rate: (P,) ascending from 0 to 1; the recall.
        precision: (P,); 1 at the start, where nothing is called anomalous.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    precision: np.ndarray


class PixelHistogram:
    """Counts the pixels of one class.

    Args:
        cells: how many different values are distinguished; 32 bytes each, several times that while counting.
    """

    def __init__(self, cells: int = CELLS):
        self.cells = cells
        self.shift = 0
        self.regions = 0
        values, pixels = np.empty(0, np.float32), np.empty(0, np.int64)
        self._rows = _Rows(values, values, pixels, pixels, np.empty(0))
        self._normal: list[np.ndarray] = []  # values not yet counted
        self._anomalous: list[np.ndarray] = []
        self._weights: list[np.ndarray] = []
        self._waiting = 0

    def add(
        self, mask: np.ndarray, anomaly_map: np.ndarray, regions: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        """Count one image.

        Args:
            mask: (H, W), non-zero where anomalous.
            anomaly_map: (H, W), larger is more anomalous; rounded to float32.
            regions: `metrics.find_regions` of the mask, where that is known already.

        Raises:
            ValueError: the shapes differ, or a value is not finite.
        """
        if mask.shape != anomaly_map.shape:
            raise ValueError(f"shapes differ: {mask.shape} of the mask, {anomaly_map.shape} of the map")
        values = np.asarray(anomaly_map, dtype=np.float32)
        if not np.isfinite(values).all():
            raise ValueError("the map holds values that are not finite")
        truth = mask != 0
        self._normal.append(values[~truth])
        if truth.any():
            numbers, sizes = find_regions(truth) if regions is None else regions
            self.regions += len(sizes)
            self._anomalous.append(values[truth])
            self._weights.append((1 / sizes)[numbers])
        self._waiting += values.size
        if self._waiting > WAITING * self.cells:
            self._count()

    def merge(self, other: "PixelHistogram") -> None:
        """Add what another process has counted; its number of cells has to be the same."""
        if other.cells != self.cells:
            raise ValueError(f"histograms of {self.cells} and {other.cells} cells cannot be merged")
        self._count()
        other._count()
        self.shift = max(self.shift, other.shift)
        self.regions += other.regions
        self._combine(self._rows, other._rows)

    def value_range(self) -> tuple[float, float] | None:
        """The smallest and the largest value counted; None without any."""
        self._count()
        return (float(self._rows.values[0]), float(self._rows.largest[-1])) if len(self._rows) else None

    def pixels(self) -> tuple[int, int]:
        """How many normal and how many anomalous pixels were counted."""
        self._count()
        return int(self._rows.normals.sum()), int(self._rows.anomalous.sum())

    def counts(self, true_positives: int, called: int) -> Counts:
        """What the pixel metrics are computed from.

        Args:
            true_positives: anomalous pixels that reach the pixel threshold, counted beside the cells.
            called: all pixels that reach it.
        """
        self._count()
        rates = overlaps = np.full(1, np.nan)
        if self._rows.normals.any() and self.regions:
            rates, overlaps, _ = self._at_thresholds()
        decided = np.asarray(true_positives), np.asarray(called)
        return Counts(self._rows.normals, self._rows.anomalous, *decided, rates, overlaps)

    def auroc(self) -> float | None:
        """`metrics.pixel_auroc` of all pixels counted."""
        self._count()
        return fraction_or_none(auroc_of_counts(self._rows.normals, self._rows.anomalous))

    def aupro(self) -> float | None:
        """`metrics.pixel_aupro` of all pixels counted."""
        self._count()
        if not self._rows.normals.any() or not self.regions:
            return None
        if self._rows.values[0] == self._rows.largest[-1]:
            return 0.0
        rates, overlaps, _ = self._at_thresholds()
        return float(aupro_of_thresholds(rates, overlaps))

    def aupro_exact(self) -> float | None:
        """`metrics.pixel_aupro_exact` of all pixels counted."""
        self._count()
        if not self._rows.normals.any() or not self.regions:
            return None
        return aupro_of_curve(_shares_from(self._rows.normals)[::-1], _shares_from(self._rows.overlaps)[::-1])

    def average_precision(self) -> float | None:
        """`metrics.pixel_ap` of all pixels counted."""
        self._count()
        return fraction_or_none(average_precision_of_counts(self._rows.normals, self._rows.anomalous))

    def f1_max(self) -> BestF1 | None:
        """`metrics.f1_max` of all pixels counted, among the thresholds that begin a cell."""
        self._count()
        rows = self._rows
        if not rows.normals.any() or not rows.anomalous.any():
            return None
        value, cell = f1_max_of_counts(rows.normals, rows.anomalous)
        return BestF1(float(value), threshold_before(int(cell), rows.values, rows.largest))

    def curve(self, points: int = CURVE_POINTS) -> "PixelCurve | None":
        """At most `points` points of the ROC and the precision-recall curve; None where not both kinds occur.

        Of all thresholds that begin a cell, those that come closest to even steps of FPR + recall.
        """
        self._count()
        rows = self._rows
        if not rows.normals.any() or not rows.anomalous.any():
            return None
        normals, anomalous = (counts[::-1].cumsum() for counts in (rows.normals, rows.anomalous))
        rates, recalls = normals / normals[-1], anomalous / anomalous[-1]
        way = rates + recalls
        chosen = np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], points - 1)))  # one more is the start
        return PixelCurve(
            np.append(0, rates[chosen]),
            np.append(0, recalls[chosen]),
            np.append(1, (anomalous / (normals + anomalous))[chosen]),
        )

    def errors(self) -> dict[str, float]:
        """How far the metrics of these names may be from the exact values: the bounds of this file's head.

        Infinite for "aupro" where an FPR is too close to the limit. Only where these metrics are defined.
        """
        self._count()
        rows = self._rows
        shared = rows.values != rows.largest
        normals = np.where(shared, rows.normals / rows.normals.sum(), 0)
        overlaps = np.where(shared, rows.overlaps / self.regions, 0)
        return {
            "auroc": float(normals @ rows.anomalous / rows.anomalous.sum() / 2),
            "aupro": self._aupro_error(normals, overlaps),
            "aupro_exact": float(normals @ overlaps / 2 / AUPRO_FALSE_POSITIVE_LIMIT),
            "average_precision": self._average_precision_error(shared),
            "f1_max": self._f1_max_error(shared),
        }

    def _average_precision_error(self, shared: np.ndarray) -> float:
        """Precision at the anomalous pixels of a cell lies between those with all of the cell's normal ones behind and
        before them; in the latter case it is concave in their number, so its mean is above that of its ends."""
        rows = self._rows
        found, false = (counts_from(counts)[shared] for counts in (rows.anomalous, rows.normals))
        some = rows.anomalous[shared] > 0
        found, false = found[some], false[some]
        inside, normals = rows.anomalous[shared][some], rows.normals[shared][some]
        first = found - inside + 1
        most = found / (found + false - normals)
        least = (first / (first + false) + found / (found + false)) / 2
        taken = found / (found + false)
        return float(inside @ np.maximum(most - taken, taken - least) / rows.anomalous.sum())

    def _f1_max_error(self, shared: np.ndarray) -> float:
        """A threshold inside a cell finds at most all its anomalous pixels and none of its normal ones."""
        rows = self._rows
        if not shared.any():
            return 0.0
        found, false = (counts_from(counts) for counts in (rows.anomalous, rows.normals))
        reached = found + false - rows.normals
        most = (2 * found / (reached + rows.anomalous.sum()))[shared].max()
        best = self.f1_max()
        return max(0.0, float(most) - (best.value if best else 0))

    def _aupro_error(self, normals: np.ndarray, overlaps: np.ndarray) -> float:
        rates, _, cells = self._at_thresholds()
        kept = rates < AUPRO_FALSE_POSITIVE_LIMIT
        a = normals[cells].max()
        if (np.abs(rates - AUPRO_FALSE_POSITIVE_LIMIT) <= a).any() and a > 0:
            return np.inf
        if not kept.any():
            return 0.0
        width = np.ptp(rates[kept])
        if width <= a:
            return np.inf if a > 0 else float(overlaps[cells].max())
        return float(auc(rates[kept], overlaps[cells][kept]) / width + 2 * a / (width - a))

    def _at_thresholds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """FPR and PRO at the 200 thresholds, and the cell that each falls into or behind."""
        rows = self._rows
        low, high = float(rows.values[0]), float(rows.largest[-1])
        thresholds = aupro_thresholds(low, high)
        edges = rows.values, rows.largest
        rates, overlaps = (
            counts_above(counts, edges, thresholds) / counts.sum() for counts in (rows.normals, rows.overlaps)
        )
        return rates, overlaps, cells_of(edges, thresholds)[0]

    def _count(self) -> None:
        """Turn the waiting values into rows."""
        if not self._waiting:
            return
        normal = np.sort(np.concatenate(self._normal))
        parts = [self._rows, self._rows_of(normal, None)]
        if self._anomalous:
            anomalous = np.concatenate(self._anomalous)
            order = np.argsort(anomalous)
            parts.append(self._rows_of(anomalous[order], np.concatenate(self._weights)[order]))
        self._normal, self._anomalous, self._weights, self._waiting = [], [], [], 0
        self._combine(*parts)

    def _rows_of(self, ordered: np.ndarray, weights: np.ndarray | None) -> _Rows:
        """Pixels in ascending order as rows: normal ones, or anomalous ones with their weights."""
        starts = _changes(_keys(ordered) >> self.shift)
        pixels = np.diff(starts, append=len(ordered))
        none = np.zeros(len(starts), np.int64)
        values, largest = ordered[starts], ordered[_ends(starts, ordered)]
        if weights is None:
            return _Rows(values, largest, pixels, none, none.astype(float))
        return _Rows(values, largest, none, pixels, _sums(weights, starts))

    def _combine(self, *parts: _Rows) -> None:
        """Join rows, cells that coincide into one, and share cells until there are few enough."""
        values = np.concatenate([part.values for part in parts])
        order = np.argsort(values, kind="stable")  # runs in ascending order, which this merges
        values = values[order]
        keys = _keys(values)
        starts = _changes(keys >> self.shift)
        while len(starts) > self.cells:
            self.shift += 1
            starts = _changes(keys >> self.shift)
        largest = np.concatenate([part.largest for part in parts])[order]
        largest = np.maximum.reduceat(largest, starts) if len(starts) else largest
        sums = [
            _sums(np.concatenate([getattr(part, name) for part in parts])[order], starts)
            for name in ("normals", "anomalous", "overlaps")
        ]
        self._rows = _Rows(values[starts], largest, *sums)


def _changes(cells: np.ndarray) -> np.ndarray:
    """Where the next cell begins in cell numbers in ascending order."""
    changes = np.ones(len(cells), bool)
    np.not_equal(cells[1:], cells[:-1], out=changes[1:])
    return np.flatnonzero(changes)


def _ends(starts: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """The last position of every cell that begins at `starts`."""
    return np.append(starts[1:], len(ordered))[: len(starts)] - 1


def _sums(column: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(column, starts) if len(starts) else column


def _keys(values: np.ndarray) -> np.ndarray:
    """A whole number for every float32, int64, in the same order and dense near whole numbers."""
    keys = np.empty(len(values), np.int64)
    for start in range(0, len(values), BLOCK):
        keys[start : start + BLOCK] = _keys_of_block(values[start : start + BLOCK])
    return keys


def _keys_of_block(values: np.ndarray) -> np.ndarray:
    size = np.abs(values)
    whole = np.floor(size)
    fraction = size - whole  # exact, and so is 1 - fraction from one half on
    keys = np.where(fraction < 0.5, fraction.view(np.int32), SPAN - (1 - fraction).view(np.int32)).astype(np.int64)
    if len(size) and size.max() >= 1:
        keys += np.minimum(whole, WHOLE_FROM).astype(np.int64) * SPAN
        large = size >= WHOLE_FROM
        keys[large] += size[large].view(np.int32) - int(np.float32(WHOLE_FROM).view(np.int32))
    return np.where(values < 0, -keys, keys)


def _shares_from(counts: np.ndarray) -> np.ndarray:
    """Entry i: the share in rows i and above; one entry more than rows, the last one 0."""
    total = np.concatenate([np.cumsum(counts[::-1])[::-1], [0]])
    return total / total[0]
