"""Testing on a dataset: every image scored, and the metrics of each class."""

import sys
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

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
from pipeline.run_record import RunRecord
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
        strict: an image that cannot be scored ends the run; else it becomes a row with its error.
    """

    level: str = "image-pixel-level"
    mask_threshold: Literal["auto"] | int = "auto"
    batch_size: int = 8
    workers: int = 0
    thresholds: Thresholds | None = None
    seed: int = DEFAULT_SEED
    strict: bool = False


def evaluate(
    detector: Detector,
    classes: Mapping[str, Sequence[Entry]],
    options: EvaluationOptions = EvaluationOptions(),
    observers: Mapping[str, Observer] | None = None,
    record: RunRecord | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Score all images, class by class, and compute the metrics.

    Neither images nor maps are kept: each one is counted and let go. Processes of one run share the batches and get
    the same result.

    Args:
        classes: per class name its test images.
        observers: see every image with its map; by name.
        record: keeps the rows as they come, and may hold those of an earlier run; None: nothing is written.
        ranks: the place of this process in the run.

    Raises:
        InputError: no image can be scored; or one cannot, and `options` are strict.
    """
    classes, observers = {name: part for name, part in classes.items() if part}, observers or {}
    entries = [entry for part in classes.values() for entry in part]
    names = [name for name, part in classes.items() for _ in part]
    thresholds = options.thresholds or detector.thresholds()
    scoring = _Scoring(detector, classes, entries, names, options, thresholds, list(observers.values()))
    results = _ResultsByClass(names, options, thresholds, detector.layers, list(observers.values()), ranks)
    rows = record.restore({"results": results, **observers}, exact=True) if record is not None else []
    # What has an error is tried again, with all of its class where that is complete.
    again = {row.cls_name for row in rows if row.error} - ranks.broadcast(set(results.ends))
    rows = [row for row in rows if not row.error and row.cls_name not in again]
    for name in again if ranks.is_main else ():
        for part in (results, *observers.values()):
            part.restart_class(name)
    if record is not None:
        record.begin(rows, (path for one in entries for path in (one.image_path, one.mask_path) if path))
    results.ends = ranks.broadcast(results.ends)  # the classes that are complete
    found = {row.image_path: row for row in rows}
    left = [position for position, entry in enumerate(entries) if entry.relative_path not in found]
    batches = score_images(
        detector,
        Task(lambda number: scoring.dataset[left[number]], lambda number, *read: scoring.conclude(left[number], *read)),
        [entries[position].image_path for position in left],
        options.batch_size,
        options.workers,
        class_names=[names[position] for position in left],
        maps=scoring.maps,
        ranks=ranks,
    )
    hidden = None if ranks.is_main else True  # None: where nobody looks
    done = 0
    with tqdm(total=len(entries), initial=len(found), desc="testing", unit="image", leave=False, disable=hidden) as bar:
        for own in batches:
            own_rows = []
            for number, outcome in own:
                position, entry = left[number], entries[left[number]]
                if isinstance(outcome, InputError):
                    if options.strict:
                        raise outcome
                    row = PredictionRow(entry.relative_path, entry.class_name, entry.anomaly, error=str(outcome))
                else:
                    row, score, pixels = outcome
                    results.class_of(position).add(position, entry.anomaly, score, pixels)
                own_rows.append((position, row))
            together = sorted(chain.from_iterable(ranks.gather(own_rows)), key=lambda numbered: numbered[0])
            new = [row for _, row in together]
            found |= {row.image_path: row for row in new}
            for row in new:
                if row.error:
                    bar.write(f"error: {row.error}", file=sys.stderr)
            if record is not None:
                record.add(new)
            done += options.batch_size * ranks.size
            results.close_before(left[done] if done < len(left) else len(entries))
            bar.update(len(new))
        results.close_before(len(entries))
    if record is not None:
        record.save()
    rows = [found[entry.relative_path] for entry in entries if entry.relative_path in found]
    if ranks.is_main and all(row.error for row in rows):
        raise InputError(f"None of the images can be scored; the first: {rows[0].error}")
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


_STATE = ("ends", "done", "deviations", "counts", "curves")


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
        complete = sorted((name for name, end in self.ends.items() if end <= position), key=self.ends.__getitem__)
        for name in complete:
            del self.ends[name]
            self._close(name)

    def gather_state(self, ranks: Ranks) -> dict[str, Any]:
        """See `run_record.Part`."""
        own, self.open = self.open, defaultdict(self.open.default_factory)
        for part in ranks.gather_lazily(dict(own)):
            for name, metrics in part.items():
                self.open[name].merge(metrics)
        return {name: getattr(self, name) for name in _STATE} | {"open": dict(self.open)}

    def restore(self, state: dict[str, Any]) -> None:
        """See `run_record.Part`."""
        self.open |= state.pop("open")
        self.__dict__ |= state

    def restart_class(self, name: str) -> None:
        """See `run_record.Part`."""
        self.ends[name] = len(self.names) - self.names[::-1].index(name)

    def evaluation(self, predictions: list[PredictionRow]) -> Evaluation:
        """Of all classes, once everything is in."""
        self.done = {name: self.done[name] for name in dict.fromkeys(self.names) if name in self.done}
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
