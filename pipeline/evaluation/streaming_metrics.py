"""The metrics of one class, image by image, without keeping masks or maps.

    results = ClassMetrics()
    results.add(position=0, label=1, score=0.93, pixels=count_image(mask, anomaly_map))
    results.metrics()                           # percent

Several processes: each fills its own (they pickle: torch.distributed.gather_object takes them as they are), then
`merge` adds one to another. The division and the order do not matter: pixel counts come out the same, sums of region
weights up to rounding (1e-15), and image-level metrics are those of the same set of scores.
Peak memory is that of `pixel_histogram.PixelHistogram`, whatever the number of images, plus what `bootstrap` keeps of
an image for intervals: 1.3 kB of a normal one with pixels, 3.4 kB of an anomalous one.
"""

from typing import NamedTuple

import numpy as np

from metrics import ALL_METRICS, Counts, fraction_or_none, metrics_of
from pipeline.evaluation.bootstrap import ImageCounts, PixelCounts, few_cells, resampled_metrics
from pipeline.evaluation.pixel_histogram import CountedPixels, PixelCurve, PixelHistogram, count_pixels

COUNTS = (
    "normal",
    "anomalous",
    "with_mask",
    "true_positives",
    "false_positives",
    "false_negatives",
    "true_negatives",
    "pixels",
    "anomalous_pixels",
    "regions",
)
"""What `ClassMetrics.counts` gives: images, those with a mask, decisions on images; pixels counted, their regions."""

Metrics = dict[str, float | None]


class ImagePixels(NamedTuple):
    """The pixels of one image: in the histogram's cells, and what is kept of them for the intervals."""

    counted: CountedPixels
    kept: PixelCounts


def count_image(
    mask: np.ndarray, anomaly_map: np.ndarray, layers: int = 1, pixel_threshold: float = 0.5
) -> ImagePixels:
    """Count the pixels of one image.

    Args:
        mask: (H, W), non-zero where anomalous; zeros for a normal image.
        anomaly_map: (H, W) float32 in [0, layers], larger is more anomalous.
        layers: how many layers were summed in the map.
        pixel_threshold: the map value over the number of layers, as float32, from which a pixel is called anomalous.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    counted = count_pixels(mask, anomaly_map, layers)
    reached = np.asarray(anomaly_map, np.float32) / np.float32(layers) >= np.float32(pixel_threshold)
    found = int(np.count_nonzero(reached & (mask != 0))) if counted.regions else 0
    return ImagePixels(counted, few_cells(layers).count(counted, found, int(np.count_nonzero(reached))))


class ClassMetrics:
    """What the images of a class add up to.

    Args:
        level: "image-level", "pixel-level" or "image-pixel-level": the metrics asked for; the others are None.
        image_threshold: the score from which an image is called anomalous.
        layers: how many layers were summed in the maps.
    """

    def __init__(
        self,
        level: str = "image-pixel-level",
        image_threshold: float = 0.5,
        layers: int = 1,
    ):
        self.level, self.image_threshold, self.layers = level, image_threshold, layers
        self.images: list[ImageCounts] = []
        self.pixels = PixelHistogram(layers)

    def add(self, position: int, label: int, score: float, pixels: ImagePixels | None = None) -> None:
        """Take in one image.

        Args:
            position: its number in the run; no two have the same.
            label: 1 anomalous, 0 normal.
            score: larger is more anomalous.
            pixels: from `count_image`; None: they do not count.
        """
        if pixels is not None:
            self.pixels.add(pixels.counted)
        self.images.append(ImageCounts(position, label, score, None if pixels is None else pixels.kept))

    def merge(self, other: "ClassMetrics") -> None:
        """Take in all that another one has taken in; `other` is to be thrown away."""
        self.images += other.images
        self.pixels.merge(other.pixels)

    def metrics(self) -> Metrics:
        """Per name of `ALL_METRICS` the value in percent; None where undefined or not asked for."""
        values: Metrics = dict.fromkeys(ALL_METRICS)
        if self.level != "image-level":
            values |= self._pixel_metrics()
        if self.level != "pixel-level":
            values |= self._image_metrics()
        return {name: None if value is None else 100 * value for name, value in values.items()}

    def deviations(self, *seed: int) -> dict[str, np.ndarray]:
        """Per metric how far each resample of the images moves it, percent; see `bootstrap.resampled_metrics`."""
        deviations = resampled_metrics(
            self.images, seed, few_cells(self.layers), self.pixels.value_range(), self.image_threshold
        )
        return {name: 100 * values for name, values in deviations.items()}

    def counts(self) -> dict[str, int]:
        """Per name of `COUNTS` the number."""
        labels = np.array([image.label for image in self.images], dtype=bool)
        called = np.array([image.score >= self.image_threshold for image in self.images], dtype=bool)
        rows = self.pixels.rows()
        normal_pixels, anomalous_pixels = int(rows.normals.sum()), int(rows.anomalous.sum())
        return {
            "normal": int(np.sum(~labels)),
            "anomalous": int(np.sum(labels)),
            "with_mask": sum(image.label == 1 and image.pixels is not None for image in self.images),
            "true_positives": int(np.sum(labels & called)),
            "false_positives": int(np.sum(~labels & called)),
            "false_negatives": int(np.sum(labels & ~called)),
            "true_negatives": int(np.sum(~labels & ~called)),
            "pixels": normal_pixels + anomalous_pixels,
            "anomalous_pixels": anomalous_pixels,
            "regions": self.pixels.regions,
        }

    def pixel_curve(self) -> PixelCurve | None:
        """ROC and precision-recall curve of the pixels; None where undefined or not asked for."""
        return None if self.level == "image-level" else self.pixels.curve()

    def _image_metrics(self) -> Metrics:
        labels = np.array([image.label for image in self.images], dtype=bool)
        scores = np.array([image.score for image in self.images], dtype=float)
        distinct, positions = np.unique(scores, return_inverse=True)
        normals, anomalous = (np.bincount(positions[kind], minlength=len(distinct)) for kind in (~labels, labels))
        called = scores >= self.image_threshold
        counts = Counts(normals, anomalous, *map(np.asarray, (np.sum(labels & called), np.sum(called))))
        return {name: fraction_or_none(value) for name, value in metrics_of("image", counts).items()}

    def _pixel_metrics(self) -> Metrics:
        counted = [image.pixels for image in self.images if image.pixels is not None]
        found, called = sum(counts.true_positives for counts in counted), sum(counts.called for counts in counted)
        counts = self.pixels.counts(found, called)
        return {name: fraction_or_none(value) for name, value in metrics_of("pixel", counts).items()}
