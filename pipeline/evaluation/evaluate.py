"""Testing on a dataset: every image scored, and the metrics of each class."""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
from tqdm import tqdm

from AnomalyCLIP_lib.decisions import Thresholds, decide
from AnomalyCLIP_lib.detector import Detector, Prediction
from AnomalyCLIP_lib.errors import InputError
from dataset import AnomalyDataset, Entry, Sample
from metrics import ALL_METRICS
from pipeline.distributed import ALONE, Ranks
from pipeline.evaluation.bootstrap import interval, mean_deviations
from pipeline.evaluation.pixel_histogram import PixelCurve
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.streaming_metrics import ClassMetrics, ImagePixels, Metrics, count_image
from pipeline.reporting.observing import Observer, ScoredImage
from pipeline.reporting.predictions import PredictionRow
from pipeline.scoring import Task, score_images

DEFAULT_SEED = 111


@dataclass(frozen=True)
class EvaluationOptions:
    """How a dataset is tested.

    Attributes:
        level: of the metrics: "image-level", "pixel-level" or "image-pixel-level".
        mask_threshold: the grey value above which a mask is anomalous, or "auto".
        batch_size: images per forward pass.
        workers: threads that read images and draw.
        thresholds: what images and pixels are called anomalous from; None: the checkpoint's, else 0.5.
        seed: of the images drawn for the intervals.
    """

    level: str = "image-pixel-level"
    mask_threshold: Literal["auto"] | int = "auto"
    batch_size: int = 8
    workers: int = 0
    thresholds: Thresholds | None = None
    seed: int = DEFAULT_SEED


def evaluate(
    detector: Detector,
    classes: Mapping[str, Sequence[Entry]],
    options: EvaluationOptions = EvaluationOptions(),
    observers: Sequence[Observer] = (),
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Score all images, class by class, and compute the metrics.

    Neither images nor maps are kept: each one is counted and let go. Processes of one run share the batches and get
    the same result.

    Args:
        classes: per class name its test images.
        observers: see every image with its map.
        ranks: the place of this process in the run.

    Raises:
        InputError: an image or mask cannot be read, or a score is not finite.
    """
    classes = {name: part for name, part in classes.items() if part}
    entries = [entry for part in classes.values() for entry in part]
    names = [name for name, part in classes.items() for _ in part]
    thresholds = options.thresholds or detector.thresholds()
    scoring = _Scoring(detector, classes, entries, names, options, thresholds, observers)
    results = _ResultsByClass(names, options, thresholds, detector.layers, observers, ranks)
    rows: list[PredictionRow] = []
    batches = score_images(
        detector,
        Task(scoring.dataset.__getitem__, scoring.conclude),
        [entry.image_path for entry in entries],
        options.batch_size,
        options.workers,
        class_names=names,
        maps=scoring.maps,
        ranks=ranks,
    )
    done = 0
    hidden = None if ranks.is_main else True  # None: where nobody looks
    with tqdm(total=len(entries), desc="testing", unit="image", leave=False, disable=hidden) as bar:
        for own in batches:
            own_rows = []
            for position, outcome in own:
                if isinstance(outcome, InputError):
                    raise outcome
                row, score, pixels = outcome
                own_rows.append((position, row))
                results.class_of(position).add(position, entries[position].anomaly, score, pixels)
            together = sorted(chain.from_iterable(ranks.gather(own_rows)), key=lambda numbered: numbered[0])
            rows += [row for _, row in together]
            before, done = done, min(done + options.batch_size * ranks.size, len(entries))
            results.close_before(done)
            bar.update(done - before)
    return ranks.broadcast(results.evaluation(rows))


class _Scoring:
    """What is done with images that have labels and masks."""

    def __init__(
        self,
        detector: Detector,
        classes: Mapping[str, Sequence[Entry]],
        entries: Sequence[Entry],
        names: Sequence[str],
        options: EvaluationOptions,
        thresholds: Thresholds,
        observers: Sequence[Observer],
    ):
        pixels = options.level != "image-level"
        self.entries, self.names, self.thresholds, self.observers = entries, names, thresholds, observers
        # Without a single mask there are no pixel metrics: normal pixels alone say nothing.
        self.with_masks = {name for name, part in classes.items() if pixels and any(entry.mask_path for entry in part)}
        self.maps = pixels or any(observer.needs_maps for observer in observers)
        self.dataset = AnomalyDataset(entries, detector.preprocess, options.mask_threshold, with_masks=pixels)

    def conclude(
        self, position: int, sample: Sample, prediction: Prediction
    ) -> tuple[PredictionRow, float, ImagePixels | None]:
        entry, name = self.entries[position], self.names[position]
        width, height = sample.size.tolist()
        values = prediction.values((width, height)) if self.maps else None
        decision = decide(prediction.anomaly_score.item(), self.thresholds, values)
        for observer in self.observers:
            observer.observe(
                ScoredImage(
                    position,
                    entry.relative_path,
                    name,
                    entry.anomaly,
                    decision,
                    (width, height),
                    sample.picture(),
                    prediction,
                    values,
                )
            )
        row = PredictionRow(entry.relative_path, entry.class_name, entry.anomaly, decision)
        if not (sample.has_mask and name in self.with_masks):
            return row, decision.anomaly_score, None
        threshold = self.thresholds.pixel.value
        counted = count_image(sample.mask.numpy(), prediction.anomaly_map.numpy(), prediction.layers, threshold)
        return row, decision.anomaly_score, counted


class _ResultsByClass:
    """The metrics of classes that come one after the other; what is complete is let go.

    Processes that share the images bring their parts of a class together as soon as all have left it. The results are
    on the main process, the others have empty ones.
    """

    def __init__(
        self,
        names: Sequence[str],
        options: EvaluationOptions,
        thresholds: Thresholds,
        layers: int,
        observers: Sequence[Observer],
        ranks: Ranks,
    ):
        self.names, self.observers, self.ranks, self.seed = names, observers, ranks, options.seed
        self.ends = {name: position for position, name in enumerate(names, start=1)}
        self.open = defaultdict[str, ClassMetrics](lambda: ClassMetrics(options.level, thresholds.image.value, layers))
        self.done: dict[str, Metrics] = {}
        self.deviations: dict[str, dict[str, np.ndarray]] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.curves: dict[str, PixelCurve | None] = {}

    def class_of(self, position: int) -> ClassMetrics:
        """Where to add the image at this position."""
        return self.open[self.names[position]]

    def close_before(self, position: int) -> None:
        """All images before this position have been added, in whichever process."""
        complete = [name for name, end in self.ends.items() if end <= position]
        for name in complete:
            del self.ends[name]
            self._close(name)

    def evaluation(self, predictions: list[PredictionRow]) -> Evaluation:
        """Of all classes, once everything is in."""
        mean = _mean(list(self.done.values()))
        deviations = list(self.deviations.values())
        return Evaluation(
            self.done,
            mean,
            predictions,
            {
                name: {metric: interval(values[metric], self.deviations[name].get(metric)) for metric in ALL_METRICS}
                for name, values in self.done.items()
            },
            {metric: interval(mean[metric], mean_deviations(deviations, metric)) for metric in ALL_METRICS},
            self.counts,
            self.curves,
        )

    def _close(self, name: str) -> None:
        merged: ClassMetrics | None = None
        own = self.open[name]  # empty where this process had none of its images
        del self.open[name]
        for part in self.ranks.gather_lazily(own):
            if merged is None:
                merged = part
            else:
                merged.merge(part)
        if merged is not None:
            self.done[name] = merged.metrics()
            self.deviations[name] = merged.deviations(
                self.seed, zlib.crc32(name.encode())
            )  # classes are drawn independently
            self.counts[name] = merged.counts()
            self.curves[name] = merged.pixel_curve()
        for observer in self.observers:
            observer.end_class(name, self.ranks)


def _mean(classes: Sequence[Metrics]) -> Metrics:
    means: Metrics = {}
    for name in ALL_METRICS:
        values = [value for row in classes if (value := row.get(name)) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means
