"""Testing on a dataset: every image scored, the metrics of each class, and the files that record them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from tqdm import tqdm

from AnomalyCLIP_lib.distributed import ALONE, Ranks
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write
from AnomalyCLIP_lib.findings import Finding, judge, values_at
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.scoring import image_scores
from AnomalyCLIP_lib.thresholds import Thresholds
from dataset import AnomalyDataset, Entry, read_batches
from reporting.predictions import PredictionRow, write_predictions
from streaming_metrics import METRICS, ClassMetrics, Metrics

LEVELS = ("image-level", "pixel-level", "image-pixel-level")


@dataclass(frozen=True)
class Evaluation:
    """What testing on a dataset gives; metrics in percent, None where undefined or not asked for.

    Attributes:
        classes: per class name the four metrics.
        mean: their means over the classes that have them.
        predictions: a row per image.
    """

    classes: dict[str, Metrics]
    mean: Metrics
    predictions: list[PredictionRow]

    def table(self) -> str:
        """The table of the paper's code: one row a class and the mean, percent with one decimal."""
        rows = [[name, *map(_cell, values.values())] for name, values in (*self.classes.items(), ("mean", self.mean))]
        return tabulate(
            rows,
            headers=["objects", *METRICS],
            tablefmt="pipe",
            colalign=("left", *["right"] * 4),
            disable_numparse=True,
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
) -> Evaluation:
    """Score all images, class by class, and compute the metrics of the paper's table.

    Neither images nor maps are kept: each one is counted and let go. Processes of one run share the batches and get
    the same result.

    Args:
        classes: per class name its test images.
        level: "image-level", "pixel-level" or "image-pixel-level".
        mask_threshold: the grey value above which a mask is anomalous, or "auto".
        thresholds: what images and pixels are called anomalous from; None: the checkpoint's, else 0.5.
        observers: see every image with its map.
        ranks: the place of this process in the run.

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
    results = _ResultsByClass(list(classes), level, observers, ranks)
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
            current = results.of(names[position])
            current.add_image(entry.anomaly, scores[row])
            if anomaly_map is not None and mask is not None and names[position] in with_masks:
                current.add_map(mask, anomaly_map)
            scored = ScoredImage(
                position, entry, own_findings[position], (width, height), batch["image"][row], mask, anomaly_map, values
            )
            for observer in observers:
                observer.see(scored)
    metrics = results.metrics()
    gathered = sorted(
        (pair for part in ranks.gathered(list(own_findings.items())) for pair in part), key=lambda pair: pair[0]
    )
    predictions = [
        PredictionRow(entry.relative_path, entry.class_name, entry.anomaly, finding)
        for entry, finding in ((entries[position], finding) for position, finding in gathered)
    ]
    return ranks.from_main(Evaluation(metrics, _mean(list(metrics.values())), predictions))


class _ResultsByClass:
    """The metrics of classes that come one after the other; only one class is held at a time.

    Processes that share the images bring their parts of a class together as soon as each has left it.
    """

    def __init__(self, names: Sequence[str], level: str, observers: Sequence[Observer], ranks: Ranks):
        self.names, self.level, self.observers, self.ranks = names, level, observers, ranks
        self.done: dict[str, Metrics] = {}
        self.position = 0
        self.current = ClassMetrics(level)

    def of(self, name: str) -> ClassMetrics:
        """Where to add an image of this class; the classes before it are complete."""
        while self.names[self.position] != name:
            self._close()
        return self.current

    def metrics(self) -> dict[str, Metrics]:
        """Of all classes, on the main process; on the others empty ones."""
        while self.position < len(self.names):
            self._close()
        return self.done

    def _close(self) -> None:
        merged: ClassMetrics | None = None
        for part in self.ranks.one_by_one(self.current):
            if merged is None:
                merged = part
            else:
                merged.merge(part)
        name = self.names[self.position]
        self.done[name] = merged.metrics() if merged is not None else {}
        for observer in self.observers:
            observer.end_class(name, self.ranks)
        self.position += 1
        self.current = ClassMetrics(self.level)


def _mean(classes: Sequence[Metrics]) -> Metrics:
    means: Metrics = {}
    for name in METRICS:
        values = [value for row in classes if (value := row.get(name)) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def write_results(evaluation: Evaluation, settings: dict[str, Any], folder: Path) -> None:
    """Write metrics.json and predictions.csv into `folder`, each atomically."""
    content = {"settings": settings, "classes": evaluation.classes, "mean": evaluation.mean}
    with atomic_write(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
    write_predictions(evaluation.predictions, folder / "predictions.csv")
