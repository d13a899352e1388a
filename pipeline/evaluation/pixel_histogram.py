"""Pixel metrics of any number of maps in bounded memory.

The exact functions of metrics.py need all pixels of a class at once: 10,000 maps of 518 x 518 are 11 GB. Here each
pixel is counted in a cell of neighbouring values and forgotten.

A value's cell follows from the value alone: cells are runs of successive float32 numbers below one half and, mirrored,
above it, so that maps crowding at 0 and at 1 (sums of layers: at any whole number) are resolved relative to their
distance from it: 2^16 cells from 1/4 to 1/2, as many from 1/8 to 1/4, down to 1/512, and 2^12 an octave from there on.
Neither the order of the images nor their division among processes changes a count.

**Error bounds**, n_c the share of all normal pixels in cell c, p_c the share of the anomalous ones, o_c of the
overlap (each pixel counting 1 / size of its region):

- AUROC: within a cell the order is unknown, so at most half the sum of n_c p_c.
- AP: in a cell with a anomalous pixels, A anomalous and N normal ones above it and n normal ones inside, each of the a
  has a precision of at most (A + a) / (A + a + N), and on average at least the mean of j / (j + N + n) at j = A + 1 and
  A + a (that function is concave); (A + a) / (A + a + N + n) is taken.
- largest F1: exact among the thresholds that begin a cell, so never too large; one inside a cell gives at most
  2 (A + a) / (A + a + N + P), P all anomalous pixels.
- AUPRO of 200 thresholds: only the cells that a threshold falls into matter. With a the largest n_c among them, every
  FPR is right up to a, which deviations the area A under the kept points by at most a (summation by parts: PRO rises,
  from 0 to at most 1) and so the width W by which it is divided. Every PRO is right up to the o_c of its cell, which
  moves A by at most B, the area under these o_c. So A / W is right up to B / W + 2 a / (W - a), as long as no FPR
  lies within a of the limit 0.3, where the definition itself jumps. The thresholds are exact, since the smallest
  and the largest value are.

benchmarks/error_bounds.py computes these bounds; the tests hold them, and benchmarks/README.md has figures.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from metrics import (
    BestF1,
    Counts,
    aupro_thresholds,
    counts_above,
    f1_max_of_counts,
    find_regions,
    threshold_before,
)

BITS = 16  # of a float32's fraction that tell cells apart
NEAR_OCTAVES, FAR_BITS = 8, 4  # how far down from one half all these bits do, and how many fewer from there on
MOST_CELLS = 2**22
CURVE_POINTS = 200
HALF = 0x3F000000  # the bits of 0.5 as a float32
FRACTION_BITS = 23  # of a float32
NEAR_FROM = HALF - (NEAR_OCTAVES << FRACTION_BITS)


class ValueCells:
    """Numbers for the values of maps, in their order; neighbouring values share one.

    Args:
        layers: maps have values in [0, layers]; what rounding puts outside counts as the nearest of these.
        bits: 2^bits cells an octave near one half, fewer where they would be more than `MOST_CELLS` in all.

    Attributes:
        edges: (C + 1,) float64, where the cells begin; the last one holds the value `layers` alone.
    """

    def __init__(self, layers: int, bits: int):
        while 2 * layers * _cells_to_one_half(bits) > MOST_CELLS and bits > FAR_BITS:
            bits -= 1
        self.layers, self.shift, self.far_shift = layers, FRACTION_BITS - bits, FRACTION_BITS - bits + FAR_BITS
        self.half = _cells_to_one_half(bits)
        far, first = NEAR_FROM >> self.far_shift, NEAR_FROM >> self.shift
        self.offset = far - first
        numbers = [np.arange(far) << self.far_shift, np.arange(first, first + self.half - far + 1) << self.shift]
        rising = np.concatenate(numbers).astype(np.int32).view(np.float32).astype(float)  # from 0 to one half
        unit = np.concatenate([rising, (1 - rising)[-2:0:-1]])
        self.edges = np.append((np.arange(layers)[:, None] + unit).ravel(), [layers, layers])

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The cells (P,) int32 of float32 values of any shape."""
        values = values.ravel().clip(0, self.layers)
        whole = np.floor(values)
        fraction = values - whole  # exact, and so is 1 - fraction from one half on
        upper = fraction >= 0.5
        bits = np.where(upper, 1 - fraction, fraction).view(np.int32)
        cells = (bits >> self.shift) + self.offset
        far = bits < NEAR_FROM
        if far.any():
            np.copyto(cells, bits >> self.far_shift, where=far)
        np.copyto(cells, 2 * self.half - 1 - cells, where=upper)
        if whole.any():
            cells += whole.astype(np.int32) * (2 * self.half)
        return cells


def _cells_to_one_half(bits: int) -> int:
    return (NEAR_FROM >> FRACTION_BITS - bits + FAR_BITS) + (NEAR_OCTAVES << bits)


@lru_cache(maxsize=4)
def value_cells(layers: int, bits: int = BITS) -> ValueCells:
    """Made once; the classes of a run share them."""
    return ValueCells(layers, bits)


class CountedPixels(NamedTuple):
    """The pixels of one image, ready to be added.

    Attributes:
        normal, anomalous: the cell of each pixel of the kind, int32.
        weights: of each anomalous pixel, 1 / size of its region.
        regions: how many there are.
        low, high: the map's smallest and largest value.
    """

    normal: np.ndarray
    anomalous: np.ndarray
    weights: np.ndarray
    regions: int
    low: float
    high: float


def count_pixels(mask: np.ndarray, anomaly_map: np.ndarray, layers: int = 1, bits: int = BITS) -> CountedPixels:
    """Sort the pixels of one image into cells.

    Args:
        mask: (H, W), non-zero where anomalous.
        anomaly_map: (H, W) in [0, layers], larger is more anomalous; rounded to float32.
        layers, bits: see `ValueCells`.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    if mask.shape != anomaly_map.shape:
        raise ValueError(f"shapes differ: {mask.shape} of the mask, {anomaly_map.shape} of the map")
    values = np.asarray(anomaly_map, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("the map holds values that are not finite")
    cells, truth = value_cells(layers, bits)(values), mask != 0
    if not truth.any():
        return CountedPixels(cells, cells[:0], np.empty(0), 0, low, high)
    numbers, sizes = find_regions(truth)
    truth = truth.ravel()
    return CountedPixels(cells[~truth], cells[truth], (1 / sizes)[numbers], len(sizes), low, high)


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


class Rows(NamedTuple):
    """The cells that hold pixels, in ascending order: where each begins and ends, and what it holds."""

    lows: np.ndarray
    highs: np.ndarray
    normals: np.ndarray  # int64, pixels
    anomalous: np.ndarray  # int64, pixels
    overlaps: np.ndarray  # float64, pixels over the size of their region


class PixelHistogram:
    """Counts the pixels of one class: 24 bytes a cell.

    Args:
        layers, bits: see `ValueCells`.
    """

    def __init__(self, layers: int = 1, bits: int = BITS):
        self.layers, self.bits = layers, bits
        self.regions = 0
        self.low, self.high = np.inf, -np.inf
        size = len(value_cells(layers, bits))
        self._normals, self._anomalous = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._overlaps = np.zeros(size)

    def add(self, counted: CountedPixels) -> None:
        """Take in an image."""
        np.add.at(self._normals, counted.normal, 1)
        np.add.at(self._anomalous, counted.anomalous, 1)
        np.add.at(self._overlaps, counted.anomalous, counted.weights)
        self.regions += counted.regions
        self.low, self.high = min(self.low, counted.low), max(self.high, counted.high)

    def merge(self, other: "PixelHistogram") -> None:
        """Add what another process has counted, in the same cells."""
        if (other.layers, other.bits) != (self.layers, self.bits):
            raise ValueError("histograms of different cells cannot be merged")
        self._normals += other._normals
        self._anomalous += other._anomalous
        self._overlaps += other._overlaps
        self.regions += other.regions
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def value_range(self) -> tuple[float, float] | None:
        """The smallest and the largest value counted; None without any."""
        return (self.low, self.high) if self.low <= self.high else None

    def rows(self) -> Rows:
        """All that was counted."""
        held = np.flatnonzero(self._normals + self._anomalous)
        edges = value_cells(self.layers, self.bits).edges
        lows, highs = edges[held].clip(self.low, self.high), edges[held + 1].clip(self.low, self.high)
        return Rows(lows, highs, self._normals[held], self._anomalous[held], self._overlaps[held])

    def counts(self, true_positives: int = 0, called: int = 0) -> Counts:
        """What the pixel metrics are computed from.

        Args:
            true_positives: anomalous pixels that reach the pixel threshold, counted beside the cells.
            called: all pixels that reach it.
        """
        rows = self.rows()
        rates = overlaps = np.full(1, np.nan)
        if rows.normals.any() and self.regions:
            thresholds, edges = aupro_thresholds(self.low, self.high), (rows.lows, rows.highs)
            rates, overlaps = (
                counts_above(counts, edges, thresholds) / counts.sum() for counts in (rows.normals, rows.overlaps)
            )
        decided = np.asarray(true_positives), np.asarray(called)
        return Counts(rows.normals, rows.anomalous, *decided, rates, overlaps)

    def f1_max(self) -> BestF1 | None:
        """`metrics.f1_max` of all pixels counted, among the thresholds that begin a cell."""
        rows = self.rows()
        if not rows.normals.any() or not rows.anomalous.any():
            return None
        value, cell = f1_max_of_counts(rows.normals, rows.anomalous)
        return BestF1(float(value), threshold_before(int(cell), rows.lows, rows.highs))

    def curve(self, points: int = CURVE_POINTS) -> PixelCurve | None:
        """At most `points` points of the ROC and the precision-recall curve; None where not both kinds occur.

        Of all thresholds that begin a cell, those that come closest to even steps of FPR + recall.
        """
        rows = self.rows()
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

    def __getstate__(self) -> dict:
        """What is held alone, to be sent to another process."""
        held = np.flatnonzero(self._normals + self._anomalous)
        arrays = {name: getattr(self, name)[held] for name in ("_normals", "_anomalous", "_overlaps")}
        return self.__dict__ | arrays | {"_held": held}

    def __setstate__(self, state: dict) -> None:
        held = state.pop("_held")
        self.__init__(state["layers"], state["bits"])
        for name in ("_normals", "_anomalous", "_overlaps"):
            getattr(self, name)[held] = state.pop(name)
        self.__dict__ |= state
