"""Testing on a dataset: every image scored, the metrics of each class, and the files that record them."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.data import DataLoader
from tqdm import tqdm

from AnomalyCLIP_lib.files import atomic_write
from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.scoring import image_scores
from dataset import AnomalyDataset, Entry, read_batches
from streaming_metrics import METRICS, ClassMetrics, Metrics
from visualization import overlay, save_picture

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
        pictures_per_class: how many of each label.
        save_maps: also write every smoothed map as (S, S) float32 .npy.
    """

    def __init__(self, folder: Path, pictures_per_class: int, save_maps: bool):
        self.folder = folder
        self.pictures_per_class = pictures_per_class
        self.save_maps = save_maps
        self.drawn: dict[tuple[str, int], int] = {}

    def __call__(self, entry: Entry, anomaly_map: np.ndarray, layers: int) -> None:
        target = self.folder / entry.relative_path
        key = (entry.class_name, entry.anomaly)
        if self.drawn.get(key, 0) < self.pictures_per_class:
            self.drawn[key] = self.drawn.get(key, 0) + 1
            target.parent.mkdir(parents=True, exist_ok=True)
            save_picture(overlay(read_image(entry.image_path), anomaly_map, layers), target.with_suffix(".png"))
        if self.save_maps:
            target.parent.mkdir(parents=True, exist_ok=True)
            save_map(anomaly_map, target.with_suffix(".npy"))


def save_map(anomaly_map: np.ndarray, path: Path) -> None:
    """Write one (S, S) float32 map, atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, anomaly_map)


def evaluate(
    model: AnomalyCLIP,
    classes: dict[str, list[Entry]],
    level: str = "image-pixel-level",
    mask_threshold: Literal["auto"] | int = "auto",
    batch_size: int = 8,
    workers: int = 0,
    map_writer: MapWriter | None = None,
) -> Evaluation:
    """Score all images, class by class, and compute the metrics of SPEC's table.

    No map is kept: pixels are counted as they come.

    Args:
        classes: per class name its test images.
        level: "image-level", "pixel-level" or "image-pixel-level".
        mask_threshold: the grey value above which a mask is anomalous, or "auto".
        map_writer: receives every entry and its smoothed map.

    Raises:
        InputError: an image or mask cannot be read.
    """
    pixels = level != "image-level"
    entries = [entry for part in classes.values() for entry in part]
    dataset = AnomalyDataset(entries, model.preprocess, model.settings.image_size, mask_threshold, with_masks=pixels)
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers, pin_memory=model.device.type == "cuda")
    with torch.no_grad():
        text_features = model.text_features()
    layers = len(model.settings.map_positions())
    results: dict[str, Metrics] = {}
    predictions: list[tuple[str, str, int, float]] = []
    current = ClassMetrics(level)
    bar = tqdm(total=len(entries), desc="testing", unit="image", leave=False)
    for batch in read_batches(loader):
        if pixels or map_writer is not None:
            prediction = model.score(batch["image"], text_features)
            scores, maps = prediction.anomaly_score.tolist(), prediction.anomaly_map.numpy()
        else:  # without maps the local path is not needed
            image_features, _ = model.encode_image(batch["image"], features_list=())
            scores, maps = image_scores(image_features, text_features).tolist(), None
        for row, position in enumerate(batch["index"].tolist()):
            entry = entries[position]
            if predictions and predictions[-1][1] != entry.class_name:
                results[predictions[-1][1]] = current.metrics()
                current = ClassMetrics(level)
            predictions.append((entry.relative_path, entry.class_name, entry.anomaly, scores[row]))
            current.add_image(entry.anomaly, scores[row])
            if maps is not None:
                if pixels and batch["has_mask"][row]:
                    current.add_map(batch["mask"][row].numpy(), maps[row])
                if map_writer is not None:
                    map_writer(entry, maps[row], layers)
        bar.update(len(scores))
    bar.close()
    if predictions:
        results[predictions[-1][1]] = current.metrics()
    return Evaluation(results, _mean(list(results.values())), predictions)


def _mean(classes: Sequence[Metrics]) -> Metrics:
    means: Metrics = {}
    for name in METRICS:
        values = [value for row in classes if (value := row[name]) is not None]
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
