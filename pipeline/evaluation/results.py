"""What testing on a dataset gives, and the tables that a run prints of it."""

from dataclasses import dataclass, field

from tabulate import tabulate

from metrics import PAPER_METRICS
from pipeline.evaluation.bootstrap import LEVEL, RESAMPLES, Interval
from pipeline.evaluation.pixel_histogram import PixelCurve
from pipeline.evaluation.streaming_metrics import COUNTS, Metrics
from pipeline.reporting.predictions import PredictionRow

IMAGE_DECISIONS = ("image_f1", "image_precision", "image_recall", "image_f1_max")
PIXEL_DECISIONS = ("pixel_f1", "pixel_precision", "pixel_recall", "pixel_f1_max")

Intervals = dict[str, Interval | None]
"""Per name of `ALL_METRICS` the ends of its interval, percent; None where the metric is None."""


@dataclass(frozen=True)
class Evaluation:
    """What testing on a dataset gives; metrics in percent, None where undefined or not asked for.

    Attributes:
        classes: per class name the metrics, of all names of `ALL_METRICS`.
        mean: their means over the classes that have them.
        predictions: a row per image.
        intervals: per class name the bootstrap intervals of its metrics, see `bootstrap`.
        mean_intervals: those of the means.
        counts: per class name the numbers of images, decisions and pixels, of all names of `COUNTS`.
        pixel_curves: per class name the curves of its pixels; None where it has no pixel metrics.
    """

    classes: dict[str, Metrics]
    mean: Metrics
    predictions: list[PredictionRow]
    intervals: dict[str, Intervals] = field(default_factory=dict)
    mean_intervals: Intervals = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    pixel_curves: dict[str, PixelCurve | None] = field(default_factory=dict)

    def total_counts(self) -> dict[str, int]:
        """The counts summed over the classes."""
        return {key: sum(counts[key] for counts in self.counts.values()) for key in COUNTS}

    def table(self) -> str:
        """The table of the paper's code: one row a class and the mean, percent with one decimal."""
        rows = [
            [name, *(_cell(values[metric]) for metric in PAPER_METRICS)]
            for name, values in (*self.classes.items(), ("mean", self.mean))
        ]
        return tabulate(
            rows,
            headers=["objects", *PAPER_METRICS],
            tablefmt="pipe",
            colalign=("left", *["right"] * 4),
            disable_numparse=True,
        )

    def decision_table(self) -> str:
        """How good the decisions at the thresholds are: means over the classes with their intervals, percent."""
        rows = [
            [kind, *(_cell(self.mean[name], self.mean_intervals.get(name)) for name in names)]
            for kind, names in (("images", IMAGE_DECISIONS), ("pixels", PIXEL_DECISIONS))
            if any(self.mean[name] is not None for name in names)
        ]
        if not rows:
            return "decisions have no metrics: they need normal and anomalous images, or masks"
        table = tabulate(
            rows,
            headers=["decisions", "F1", "precision", "recall", "largest F1 of any threshold"],
            tablefmt="pipe",
            colalign=("left", *["right"] * 4),
            disable_numparse=True,
        )
        return (
            f"decisions at the thresholds, mean over the classes, with {LEVEL} % intervals from {RESAMPLES} resamples "
            f"of the images:\n{table}"
        )


def _cell(value: float | None, ends: Interval | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" ({ends[0]:.1f} to {ends[1]:.1f})" if ends else "")
