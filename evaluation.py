"""Testing on a dataset: every image scored, the metrics of each class, and the files that record them."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from tqdm import tqdm

from AnomalyCLIP_lib.distributed import ALONE, Ranks
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write
from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.scoring import image_scores
from dataset import AnomalyDataset, Entry, read_batches
from image_outputs import output_names, refuse_to_overwrite, save_heat_map, save_map
from streaming_metrics import METRICS, ClassMetrics, Metrics

LEVELS = ("image-level", "pixel-level", "image-pixel-level")
PREDICTION_COLUMNS = ("image_path", "cls_name", "label", "anomaly_score")


@dataclass(frozen=True)
class Evaluation:
    """What testing on a dataset gives; metrics in percent, None where undefined or not asked for.

    Attributes:
        classes: per class name the four metrics.
        mean: their means over the classes that have them.
        predictions: a row of `PREDICTION_COLUMNS` per image.
    """

    classes: dict[str, Metrics]
    mean: Metrics
    predictions: list[tuple[str, str, int, float]]

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


class MapWriter:
    """Keeps the pictures that a run shows: overlays of the first anomalous and the first normal images of each class.

    Args:
        folder: where they go, mirroring the dataset's folders.
        entries: all images of the run, in their order.
        pictures_per_class: how many of each label.
        save_maps: also write every smoothed map as (S, S) float32 .npy.

    Raises:
        InputError: one of them would overwrite an image of the dataset.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry], pictures_per_class: int, save_maps: bool):
        self.folder = folder
        self.save_maps = save_maps
        names = [PurePath(entry.relative_path) for entry in entries]
        self.outputs = dict(zip((entry.relative_path for entry in entries), output_names(names), strict=True))
        self.drawn: set[str] = set()  # chosen beforehand, so that several processes agree
        counts: Counter[tuple[str, int]] = Counter()
        for entry in entries:
            key = (entry.class_name, entry.anomaly)
            if counts[key] < pictures_per_class:
                counts[key] += 1
                self.drawn.add(entry.relative_path)
        files = (path for entry in entries for path in (entry.image_path, entry.mask_path) if path is not None)
        refuse_to_overwrite(files, folder, self.outputs.values())

    def wants(self, entry: Entry) -> bool:
        """Whether anything is written for this image."""
        return self.save_maps or entry.relative_path in self.drawn

    def __call__(self, entry: Entry, anomaly_map: np.ndarray, layers: int) -> None:
        output = self.outputs[entry.relative_path]
        if entry.relative_path in self.drawn:
            save_heat_map(read_image(entry.image_path), anomaly_map, layers, self.folder, output)
        if self.save_maps:
            save_map(anomaly_map, self.folder, output)


def evaluate(
    model: AnomalyCLIP,
    classes: Mapping[str, Sequence[Entry]],
    level: str = "image-pixel-level",
    mask_threshold: Literal["auto"] | int = "auto",
    batch_size: int = 8,
    workers: int = 0,
    map_writer: MapWriter | None = None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Score all images, class by class, and compute the metrics of the paper's table.

    Neither images nor maps are kept: each one is counted and let go. Processes of one run share the batches and get
    the same result.

    Args:
        classes: per class name its test images.
        level: "image-level", "pixel-level" or "image-pixel-level".
        mask_threshold: the grey value above which a mask is anomalous, or "auto".
        map_writer: receives the entries that it wants, each with its smoothed map.
        ranks: the place of this process in the run.

    Raises:
        InputError: an image or mask cannot be read, or a score is not finite.
    """
    classes = {name: part for name, part in classes.items() if part}
    entries = [entry for part in classes.values() for entry in part]
    names = [name for name, part in classes.items() for _ in part]
    pixels = level != "image-level"
    # Without a single mask there are no pixel metrics, and normal images need no map either.
    with_masks = {name for name, part in classes.items() if pixels and any(entry.mask_path for entry in part)}
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
    results = _ResultsByClass(list(classes), level, ranks)
    own_scores: dict[int, float] = {}  # by position
    for batch in tqdm(
        read_batches(loader),
        total=len(loader),
        desc="testing",
        unit="batch",
        leave=False,
        disable=None if ranks.is_main else True,
    ):
        positions = batch["index"].tolist()
        counted = [
            names[position] in with_masks and bool(batch["has_mask"][row]) for row, position in enumerate(positions)
        ]
        drawn = [map_writer is not None and map_writer.wants(entries[position]) for position in positions]
        if any(counted) or any(drawn):
            prediction = model.score(batch["image"], text_features)
            scores, maps = prediction.anomaly_score.tolist(), prediction.anomaly_map.numpy()
        else:  # without maps the local path is not needed
            image_features, _ = model.encode_image(batch["image"], features_list=())
            scores, maps = image_scores(image_features, text_features).tolist(), None
        for row, position in enumerate(positions):
            entry = entries[position]
            finite = math.isfinite(scores[row]) and (maps is None or bool(np.isfinite(maps[row]).all()))
            if not finite:
                raise InputError(
                    f"The scores of {entry.image_path} are not finite; use --precision fp32, or other prompts."
                )
            own_scores[position] = scores[row]
            current = results.of(names[position])
            current.add_image(entry.anomaly, scores[row])
            if maps is not None and counted[row]:
                current.add_map(batch["mask"][row].numpy(), maps[row])
            if maps is not None and drawn[row] and map_writer is not None:
                map_writer(entry, maps[row], layers)
    metrics = results.metrics()
    gathered = sorted(pair for part in ranks.gathered(own_scores) for pair in part.items())
    predictions = [
        (entries[position].relative_path, entries[position].class_name, entries[position].anomaly, score)
        for position, score in gathered
    ]
    return ranks.from_main(Evaluation(metrics, _mean(list(metrics.values())), predictions))


class _ResultsByClass:
    """The metrics of classes that come one after the other; only one class is held at a time.

    Processes that share the images bring their parts of a class together as soon as each has left it.
    """

    def __init__(self, names: Sequence[str], level: str, ranks: Ranks):
        self.names, self.level, self.ranks = names, level, ranks
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
        self.done[self.names[self.position]] = merged.metrics() if merged is not None else {}
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


def write_predictions(rows: Sequence[Sequence[Any]], path: Path) -> None:
    """Write rows of `PREDICTION_COLUMNS` as CSV, atomically."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(PREDICTION_COLUMNS)
    writer.writerows(rows)
    with atomic_write(path) as temporary:
        temporary.write_text(buffer.getvalue(), encoding="utf-8", newline="")
