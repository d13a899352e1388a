"""The metrics of one class, image by image, without keeping masks or maps.

    results = ClassMetrics()
    results.add_image(label=1, score=0.93)      # every image
    results.add_map(mask, anomaly_map)          # those with a mask; normal images: a mask of zeros
    results.metrics()                           # percent

Several processes: each fills its own (they pickle: torch.distributed.gather_object takes them as they are), then
`merge` adds one to another. The division and the order do not matter: pixel counts come out the same, sums of region
weights up to rounding (1e-15), and image-level metrics are those of the same set of scores.
Peak memory is that of `pixel_histogram.PixelHistogram`, whatever the number of images, plus 16 bytes an image.
"""

import numpy as np

from metrics import image_ap, image_auroc
from pixel_histogram import PixelHistogram

METRICS = ("pixel_auroc", "pixel_aupro", "image_auroc", "image_ap")

Metrics = dict[str, float | None]


class ClassMetrics:
    """Labels and scores, and the pixels counted.

    Args:
        level: "image-level", "pixel-level" or "image-pixel-level": the metrics asked for; the others are None.
    """

    def __init__(self, level: str = "image-pixel-level"):
        self.level = level
        self.labels: list[int] = []
        self.scores: list[float] = []
        self.pixels = PixelHistogram()

    def add_image(self, label: int, score: float) -> None:
        """Take in one image: its label (1 anomalous) and its score."""
        self.labels.append(label)
        self.scores.append(score)

    def add_map(self, mask: np.ndarray, anomaly_map: np.ndarray) -> None:
        """Take in one image's pixels.

        Args:
            mask: (H, W), non-zero where anomalous.
            anomaly_map: (H, W) float32, larger is more anomalous.

        Raises:
            ValueError: the shapes differ, or a value is not finite.
        """
        self.pixels.add(mask, anomaly_map)

    def merge(self, other: "ClassMetrics") -> None:
        """Take in all that another one has taken in; `other` is to be thrown away."""
        self.labels += other.labels
        self.scores += other.scores
        self.pixels.merge(other.pixels)

    def metrics(self) -> Metrics:
        """Per name of `METRICS` the value in percent; None where undefined or not asked for."""
        values: Metrics = dict.fromkeys(METRICS)
        if self.level != "image-level":
            values["pixel_auroc"] = self.pixels.auroc()
            values["pixel_aupro"] = self.pixels.aupro()
        if self.level != "pixel-level":
            values["image_auroc"] = image_auroc(self.labels, self.scores)
            values["image_ap"] = image_ap(self.labels, self.scores)
        return {name: None if value is None else 100 * value for name, value in values.items()}
