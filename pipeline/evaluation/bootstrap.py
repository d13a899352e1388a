"""How far the metrics of a class would move with other images of the same kind: bootstrap intervals over images.

500 times, as many images as there are of each kind (normal, anomalous with a mask, anomalous without one) are drawn
with replacement, and the metrics are taken of the images drawn; the interval holds the middle 95 % of the results.
Thresholds stay: those of decisions, and the 200 of AUPRO, which are those of all images; the largest F1 is looked for
anew. Images are drawn in the order of their positions in the run from a seed, so the processes that scored them do not
matter.

Scores are kept as they are. Of an image's pixels, the counts in `CELLS` cells fixed beforehand are kept, narrow near
0 and 1 (in sums of several layers near every whole number): 4 bytes a cell for a normal image, 12 for an anomalous
one, so about 1.3 and 3.4 kB an image. Numbers from cells differ a little from exact ones, and so the interval is the
exact value plus what resampling deviations the number from cells by: on the test suite's sharp maps its error is a
fifteenth of the spread or less. What is at a decision threshold is counted exactly.

The largest F1 of a resample is chosen on that resample, so its interval lies rather high. A kind with a single image
is always drawn as it is: intervals of very few images are too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from metrics import Counts, aupro_thresholds, counts_above, metrics_of
from pipeline.evaluation.pixel_histogram import CountedPixels, value_cells

RESAMPLES = 500
LEVEL = 95  # per cent of the resamples that an interval holds
CELLS = 256
STEEPNESS = 16.0  # cells end at the logistic function of even steps from -16 to 16: 1e-7 to 1 - 1e-7
DRAWN_AT_ONCE = 2**20  # weights of images, which bounds the memory of resampling

Interval = tuple[float, float]


@dataclass(frozen=True)
class PixelCounts:
    """What is kept of the pixels of one image.

    Attributes:
        normals, anomalous: (C,) int32 pixels in each cell; None where there are none of the kind.
        overlaps: (C,) float32, anomalous pixels over the size of their region; None as above.
        regions: number of regions.
        true_positives, called: anomalous pixels that reach the pixel threshold, and all that do.
    """

    normals: np.ndarray
    anomalous: np.ndarray | None
    overlaps: np.ndarray | None
    regions: int
    true_positives: int
    called: int


@dataclass(frozen=True)
class ImageCounts:
    """What is kept of one image.

    Attributes:
        position: its number in the run.
        label: 1 anomalous, 0 normal.
        score: larger is more anomalous.
        pixels: None without a mask.
    """

    position: int
    label: int
    score: float
    pixels: PixelCounts | None


class Cells:
    """Few cells for the values of maps in [0, layers], each a run of the cells that `pixel_histogram` counts in.

    Args:
        layers: how many layers were summed.

    Attributes:
        number_of: (C,) the number here of each cell there.
        lows: where the cells begin.
    """

    def __init__(self, layers: int = 1):
        steps = np.linspace(-STEEPNESS, STEEPNESS, max(CELLS // layers, 2) - 1)
        unit = np.concatenate([[0], 1 / (1 + np.exp(-steps))])
        wanted = np.unique(np.concatenate([number + unit for number in range(layers)]))
        edges = value_cells(layers).edges[:-1]
        numbers = np.searchsorted(wanted, edges, side="right")
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        self.lows = edges[starts]
        self.number_of = (np.searchsorted(self.lows, edges, side="right") - 1).astype(np.uint16)

    def __len__(self) -> int:
        return len(self.lows)

    def count(self, counted: CountedPixels, true_positives: int, called: int) -> PixelCounts:
        """What is kept of one image.

        Args:
            counted: its pixels, from `PixelHistogram.count`.
            true_positives, called: see `PixelCounts`.
        """
        normals = np.bincount(self.number_of[counted.normal], minlength=len(self)).astype(np.int32)
        if not counted.regions:
            return PixelCounts(normals, None, None, 0, true_positives, called)
        cells = self.number_of[counted.anomalous]
        anomalous = np.bincount(cells, minlength=len(self)).astype(np.int32)
        overlaps = np.bincount(cells, counted.weights, minlength=len(self)).astype(np.float32)
        return PixelCounts(normals, anomalous, overlaps, counted.regions, true_positives, called)

    def edges(self, value_range: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest value of each cell, for maps with values in this range."""
        low, high = value_range
        lows = self.lows.clip(low, None)
        lows[0] = low
        return lows, np.append(lows[1:], high).clip(None, high)


@lru_cache(maxsize=4)
def few_cells(layers: int) -> Cells:
    """Made once; the classes of a run share them."""
    return Cells(layers)


def resampled_metrics(
    images: Sequence[ImageCounts],
    seed: Sequence[int],
    cells: Cells,
    value_range: tuple[float, float] | None,
    image_threshold: float,
) -> dict[str, np.ndarray]:
    """Per metric what it is in each resample less what it is for all images, (`RESAMPLES`,) fractions.

    NaN where a resample leaves it undefined.

    Args:
        images: of one class, in any order.
        seed: whole numbers from 0.
        value_range: the smallest and largest value of all maps; None without maps.
        image_threshold: the score from which an image is called anomalous.
    """
    if not images:
        return {}
    images = sorted(images, key=lambda image: image.position)
    strata = np.array([image.label * (2 if image.pixels is None else 1) for image in images])
    measure = _Measure(images, cells, value_range, image_threshold)
    whole = measure.metrics(np.ones((1, len(images))))
    generator = np.random.default_rng(list(seed))
    rows = max(1, DRAWN_AT_ONCE // len(images))
    blocks = [
        measure.metrics(draw_weights(strata, min(rows, RESAMPLES - start), generator))
        for start in range(0, RESAMPLES, rows)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) - value for name, value in whole.items()}


def draw_weights(strata: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """(resamples, N) float64: how often each image is drawn; of every kind as many as there are.

    Args:
        strata: (N,) the kind of each image, whole numbers.
    """
    weights = np.zeros((resamples, len(strata)))
    for kind in np.unique(strata):
        [members] = np.nonzero(strata == kind)
        count = len(members)
        drawn = generator.integers(count, size=(resamples, count)) + count * np.arange(resamples)[:, None]
        weights[:, members] = np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count)
    return weights


def interval(value: float | None, deviations: np.ndarray | None) -> Interval | None:
    """The interval of a metric, in percent like `value`; it always holds the value.

    Args:
        value: of all images; None: undefined.
        deviations: (R,) percent, from `resampled_metrics`.
    """
    if value is None or deviations is None or np.isnan(deviations).all():
        return None
    low, high = value + np.nanpercentile(deviations, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return max(0.0, min(float(low), value)), min(100.0, max(float(high), value))


def mean_deviations(classes: Sequence[Mapping[str, np.ndarray]], name: str) -> np.ndarray | None:
    """(R,) the deviations of a metric's mean over the classes that have it; None without any."""
    rows = np.array(
        [deviations[name] for deviations in classes if name in deviations and not np.isnan(deviations[name]).all()]
    )
    if not len(rows):
        return None
    defined = ~np.isnan(rows)
    return np.where(defined, rows, 0).sum(axis=0) / np.where(defined.any(axis=0), defined.sum(axis=0), np.nan)


class _Measure:
    """The metrics of one class for any weights of its images."""

    def __init__(
        self,
        images: Sequence[ImageCounts],
        cells: Cells,
        value_range: tuple[float, float] | None,
        image_threshold: float,
    ):
        self.labels = np.array([image.label for image in images], dtype=float)
        scores = np.array([image.score for image in images], dtype=float)
        self.called = scores >= image_threshold
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        counted = [(index, image.pixels) for index, image in enumerate(images) if image.pixels is not None]
        self.with_pixels = np.array([index for index, _ in counted], dtype=int)
        self.pixels = [pixels for _, pixels in counted]
        self.cells, self.value_range = cells, value_range
        if self.pixels:
            self.normals = np.array([pixels.normals for pixels in self.pixels], dtype=float)
            regional = [(i, p.anomalous, p.overlaps) for i, p in enumerate(self.pixels) if p.anomalous is not None]
            self.with_regions = np.array([index for index, _, _ in regional], dtype=int)
            self.anomalous = np.array([counts for _, counts, _ in regional], dtype=float).reshape(-1, len(cells))
            self.overlaps = np.array([sums for _, _, sums in regional], dtype=float).reshape(-1, len(cells))
            self.numbers = np.array([[p.true_positives, p.called, p.regions] for p in self.pixels], dtype=float)

    def metrics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Metrics (R,) for weights (R, N)."""
        return self._of_images(weights) | (self._of_pixels(weights[:, self.with_pixels]) if self.pixels else {})

    def _of_images(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        found, called = weights @ (self.labels * self.called), weights @ self.called.astype(float)
        ranked, labels = weights[:, self.order], self.labels[self.order]
        normals, positives = (np.add.reduceat(ranked * part, self.starts, axis=1) for part in (1 - labels, labels))
        return metrics_of("image", Counts(normals, positives, found, called))

    def _of_pixels(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        normals = weights @ self.normals
        regional = weights[:, self.with_regions]
        anomalous, overlaps = regional @ self.anomalous, regional @ self.overlaps
        found, called, regions = (weights @ self.numbers).T
        return metrics_of("pixel", Counts(normals, anomalous, found, called, *self._curves(normals, overlaps, regions)))

    def _curves(self, normals: np.ndarray, overlaps: np.ndarray, regions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """FPR and PRO (R, T) at the thresholds of all images; NaN in resamples where they are undefined."""
        assert self.value_range is not None
        total = normals.sum(axis=1)
        defined = ((total > 0) & (regions > 0))[:, None]
        if self.value_range[0] == self.value_range[1]:  # constant maps: nothing lies above the only threshold
            rates = shares = np.zeros((len(total), 1))
        else:
            thresholds, edges = aupro_thresholds(*self.value_range), self.cells.edges(self.value_range)
            rates, shares = (
                counts_above(counts, edges, thresholds) / np.where(defined, whole[:, None], 1)
                for counts, whole in ((normals, total), (overlaps, regions))
            )
        return np.where(defined, rates, np.nan), np.where(defined, shares, np.nan)
