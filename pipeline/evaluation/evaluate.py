"""Testing on a dataset: every image scored, and the metrics of each class."""

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from tqdm import tqdm

from AnomalyCLIP_lib.decisions import Decision, Thresholds, decide
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.model import AnomalyCLIP
from dataset import AnomalyDataset, Entry, read_batches
from metrics import ALL_METRICS
from pipeline.distributed import ALONE, Ranks
from pipeline.evaluation.bootstrap import interval, mean_moves
from pipeline.evaluation.pixel_histogram import PixelCurve
from pipeline.evaluation.results import Evaluation
from pipeline.evaluation.streaming_metrics import (
    ClassMetrics,
    Metrics,
)
from pipeline.reporting.observing import Observer, ScoredImage
from pipeline.reporting.predictions import PredictionRow
from pipeline.scoring import score_batch

DEFAULT_SEED = 111


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
        batch_sampler=ranks.shard(BatchSampler(SequentialSampler(entries), batch_size, drop_last=False)),
        num_workers=workers,
        pin_memory=model.device.type == "cuda",
    )
    layers = len(model.settings.map_positions())
    results = _ResultsByClass(list(classes), level, thresholds, layers, observers, ranks, seed)
    own_findings: dict[int, Decision] = {}  # by position
    for batch in tqdm(
        read_batches(loader),
        total=len(loader),
        desc="testing",
        unit="batch",
        leave=False,
        disable=None if ranks.is_main else True,
    ):
        positions = batch["index"].tolist()
        paths = [entries[position].image_path for position in positions]
        predictions = score_batch(model, batch["image"], paths, maps=with_maps)
        for row, position in enumerate(positions):
            entry, prediction = entries[position], predictions[row]
            if isinstance(prediction, InputError):
                raise prediction
            score, anomaly_map = prediction.anomaly_score.item(), prediction.anomaly_map.numpy() if with_maps else None
            width, height = batch["size"][row].tolist()
            values = prediction.values((width, height)) if with_maps else None
            own_findings[position] = decide(score, thresholds, values)
            mask = batch["mask"][row].numpy() if bool(batch["has_mask"][row]) else None
            counted_map = anomaly_map if names[position] in with_masks else None
            results.of(names[position]).add_image(position, entry.anomaly, score, mask, counted_map)
            scored = ScoredImage(
                position, entry, own_findings[position], (width, height), batch["image"][row], mask, anomaly_map, values
            )
            for observer in observers:
                observer.see(scored)
    results.end()
    gathered = sorted(
        (pair for part in ranks.gather(list(own_findings.items())) for pair in part), key=lambda pair: pair[0]
    )
    rows = [
        PredictionRow(entry.relative_path, entry.class_name, entry.anomaly, finding)
        for entry, finding in ((entries[position], finding) for position, finding in gathered)
    ]
    return ranks.broadcast(results.evaluation(rows))


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
        for part in self.ranks.gather_lazily(self.current):
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
