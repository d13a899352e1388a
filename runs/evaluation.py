"""Testing on a dataset: every image scored, and the metrics of each class."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from tqdm import tqdm

from AnomalyCLIP_lib.distributed import ALONE, Ranks
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.findings import Finding, judge, values_at
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.scoring import image_scores
from AnomalyCLIP_lib.thresholds import Thresholds
from dataset import AnomalyDataset, Entry, read_batches
from measures.bootstrap import LEVEL, RESAMPLES, Interval, interval, mean_moves
from measures.pixel_histogram import PixelCurve
from measures.streaming_metrics import (
    ALL_METRICS,
    COUNTS,
    IMAGE_DECISIONS,
    METRICS,
    PIXEL_DECISIONS,
    ClassMetrics,
    Metrics,
)
from reporting.predictions import PredictionRow

LEVELS = ("image-level", "pixel-level", "image-pixel-level")
DEFAULT_SEED = 111

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
            [name, *(_cell(values[metric]) for metric in METRICS)]
            for name, values in (*self.classes.items(), ("mean", self.mean))
        ]
        return tabulate(
            rows,
            headers=["objects", *METRICS],
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


@dataclass(frozen=True)
class ScoredImage:
    """What an `Observer` gets to see of an image; it keeps what it wants of it and lets the rest go.

    Attributes:
        position: number of the image in the run, from 0.
        entry: the image in its dataset.
        finding: score, decision and regions.
        size: width and height of the picture, pixels.
        image: (3, S, S) float32, as the model reads it.
        mask: (S, S) uint8 of 0 and 1; None where there is none: nobody knows.
        anomaly_map: (S, S) float32, smoothed, in [0, layers]; None where no observer needs maps.
        values: (height, width) float32, the map in [0, 1] at the picture's own size.
    """

    position: int
    entry: Entry
    finding: Finding
    size: tuple[int, int]
    image: Tensor
    mask: np.ndarray | None
    anomaly_map: np.ndarray | None
    values: np.ndarray | None


class Observer(Protocol):
    """Watches a run image by image. Each of several processes has its own, which sees the images of this process."""

    needs_maps: bool

    def see(self, scored: ScoredImage) -> None:
        """Called for every image, class by class."""

    def end_class(self, name: str, ranks: Ranks) -> None:
        """Called in all processes, in the same order, when a class is complete."""


def evaluate(
    model: AnomalyCLIP,
    classes: Mapping[str, Sequence[Entry]],
    level: str = "image-pixel-level",
    mask_threshold: Literal["auto"] | int = "auto",
    batch_size: int = 8,
    workers: int = 0,
    thresholds: Thresholds | None = None,
    observers: Sequence[Observer] = (),
    ranks: Ranks = ALONE,
    seed: int = DEFAULT_SEED,
) -> Evaluation:
    """Score all images, class by class, and compute the metrics.

    Neither images nor maps are kept: each one is counted and let go. Processes of one run share the batches and get
    the same result.

    Args:
        classes: per class name its test images.
        level: "image-level", "pixel-level" or "image-pixel-level".
        mask_threshold: the grey value above which a mask is anomalous, or "auto".
        thresholds: what images and pixels are called anomalous from; None: the checkpoint's, else 0.5.
        observers: see every image with its map.
        ranks: the place of this process in the run.
        seed: of the images drawn for the intervals.

    Raises:
        InputError: an image or mask cannot be read, or a score is not finite.
    """
    classes = {name: part for name, part in classes.items() if part}
    entries = [entry for part in classes.values() for entry in part]
    names = [name for name, part in classes.items() for _ in part]
    pixels = level != "image-level"
    thresholds = thresholds or model.thresholds()
    # Without a single mask there are no pixel metrics: normal pixels alone say nothing.
    with_masks = {name for name, part in classes.items() if pixels and any(entry.mask_path for entry in part)}
    with_maps = pixels or any(observer.needs_maps for observer in observers)
    dataset = AnomalyDataset(entries, model.preprocess, model.settings.image_size, mask_threshold, with_masks=pixels)
    loader = DataLoader(
        dataset,
        batch_sampler=ranks.shared(BatchSampler(SequentialSampler(entries), batch_size, drop_last=False)),
        num_workers=workers,
        pin_memory=model.device.type == "cuda",
    )
    with torch.no_grad():
        text_features = model.text_features()
    layers = len(model.settings.map_positions())
    results = _ResultsByClass(list(classes), level, thresholds, layers, observers, ranks, seed)
    own_findings: dict[int, Finding] = {}  # by position
    for batch in tqdm(
        read_batches(loader),
        total=len(loader),
        desc="testing",
        unit="batch",
        leave=False,
        disable=None if ranks.is_main else True,
    ):
        positions = batch["index"].tolist()
        if with_maps:
            prediction = model.score(batch["image"], text_features)
            scores, maps = prediction.anomaly_score.tolist(), prediction.anomaly_map.numpy()
        else:  # without maps the local path is not needed
            image_features, _ = model.encode_image(batch["image"], features_list=())
            scores, maps = image_scores(image_features, text_features).tolist(), None
        for row, position in enumerate(positions):
            entry = entries[position]
            anomaly_map = None if maps is None else maps[row]
            if not math.isfinite(scores[row]) or not (anomaly_map is None or np.isfinite(anomaly_map).all()):
                raise InputError(
                    f"The scores of {entry.image_path} are not finite; use --precision fp32, or other prompts."
                )
            width, height = batch["size"][row].tolist()
            values = None if anomaly_map is None else values_at(anomaly_map, layers, (width, height))
            own_findings[position] = judge(scores[row], thresholds, values)
            mask = batch["mask"][row].numpy() if bool(batch["has_mask"][row]) else None
            counted_map = anomaly_map if names[position] in with_masks else None
            results.of(names[position]).add_image(position, entry.anomaly, scores[row], mask, counted_map)
            scored = ScoredImage(
                position, entry, own_findings[position], (width, height), batch["image"][row], mask, anomaly_map, values
            )
            for observer in observers:
                observer.see(scored)
    results.end()
    gathered = sorted(
        (pair for part in ranks.gathered(list(own_findings.items())) for pair in part), key=lambda pair: pair[0]
    )
    predictions = [
        PredictionRow(entry.relative_path, entry.class_name, entry.anomaly, finding)
        for entry, finding in ((entries[position], finding) for position, finding in gathered)
    ]
    return ranks.from_main(results.evaluation(predictions))


class _ResultsByClass:
    """The metrics of classes that come one after the other; only one class is held at a time.

    Processes that share the images bring their parts of a class together as soon as each has left it. The results
    are on the main process, the others have empty ones.
    """

    def __init__(
        self,
        names: Sequence[str],
        level: str,
        thresholds: Thresholds,
        layers: int,
        observers: Sequence[Observer],
        ranks: Ranks,
        seed: int,
    ):
        self.names, self.observers, self.ranks, self.seed = names, observers, ranks, seed
        self.new = partial(ClassMetrics, level, thresholds.image.value, thresholds.pixel.value, layers)
        self.done: dict[str, Metrics] = {}
        self.moves: dict[str, dict[str, np.ndarray]] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.curves: dict[str, PixelCurve | None] = {}
        self.position = 0
        self.current = self.new()

    def of(self, name: str) -> ClassMetrics:
        """Where to add an image of this class; the classes before it are complete."""
        while self.names[self.position] != name:
            self._close()
        return self.current

    def end(self) -> None:
        """All images of this process are in."""
        while self.position < len(self.names):
            self._close()

    def evaluation(self, predictions: list[PredictionRow]) -> Evaluation:
        """Of all classes, once everything is in."""
        mean = _mean(list(self.done.values()))
        moves = list(self.moves.values())
        return Evaluation(
            self.done,
            mean,
            predictions,
            {
                name: {metric: interval(values[metric], self.moves[name].get(metric)) for metric in ALL_METRICS}
                for name, values in self.done.items()
            },
            {metric: interval(mean[metric], mean_moves(moves, metric)) for metric in ALL_METRICS},
            self.counts,
            self.curves,
        )

    def _close(self) -> None:
        merged: ClassMetrics | None = None
        for part in self.ranks.one_by_one(self.current):
            if merged is None:
                merged = part
            else:
                merged.merge(part)
        name = self.names[self.position]
        if merged is not None:
            self.done[name] = merged.metrics()
            self.moves[name] = merged.moves(self.seed, zlib.crc32(name.encode()))  # classes are drawn independently
            self.counts[name] = merged.counts()
            self.curves[name] = merged.pixel_curve()
        for observer in self.observers:
            observer.end_class(name, self.ranks)
        self.position += 1
        self.current = self.new()


def _mean(classes: Sequence[Metrics]) -> Metrics:
    means: Metrics = {}
    for name in ALL_METRICS:
        values = [value for row in classes if (value := row.get(name)) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def _cell(value: float | None, ends: Interval | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" ({ends[0]:.1f} to {ends[1]:.1f})" if ends else "")
