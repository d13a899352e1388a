"""The thresholds that training stores beside the prompts: those with the largest F1 on the images trained on."""

from collections.abc import Iterable
from typing import Any

import torch
from tqdm import tqdm

from AnomalyCLIP_lib.decisions import DEFAULT_THRESHOLD
from AnomalyCLIP_lib.detector import FeatureBatch
from AnomalyCLIP_lib.model import AnomalyCLIP
from metrics import f1_max
from pipeline.evaluation.pixel_histogram import PixelHistogram, count_pixels

NO_ANOMALOUS_PIXELS = "no mask has an anomalous pixel at the model's size"


def find_thresholds(model: AnomalyCLIP, batches: Iterable[FeatureBatch], dataset: str) -> dict[str, Any]:
    """The thresholds with the largest F1, of image scores and of pixels of all classes together.

    Each lies halfway between the neighbouring values (see `metrics.f1_max`). Images are scored as in testing; masks
    and maps are counted and let go, and no random numbers are drawn but the batches' own.

    Args:
        batches: run through once; all images, of both labels.
        dataset: label of the training set, for the user.

    Returns:
        what `thresholds.check_stored` accepts. Where the masks have no anomalous pixel left at the model's size, the
        pixel threshold is 0.5, and the source says so.
    """
    labels: list[int] = []
    scores: list[float] = []
    pixels = PixelHistogram(model.layers)
    with torch.no_grad():
        text_features = model.text_features()
        for batch in tqdm(batches, desc="thresholds", unit="batch", leave=False, disable=None):
            labels += batch.labels.tolist()
            prediction = model.score_features(batch.image_features, batch.patch_features, text_features)
            scores += prediction.anomaly_score.tolist()
            for mask, anomaly_map in zip(batch.masks.cpu().numpy(), prediction.anomaly_map.numpy(), strict=True):
                pixels.add(count_pixels(mask, anomaly_map, model.layers))
    best_image, best_pixel = f1_max(labels, scores), pixels.f1_max()
    assert best_image is not None  # training needs both labels
    source = f"best F1 on the training set {dataset}"
    if best_pixel is None:
        source += f"; pixel {DEFAULT_THRESHOLD}, since {NO_ANOMALOUS_PIXELS}"
    return {
        "image": _in_range(best_image.threshold),
        "pixel": _in_range(best_pixel.threshold / model.layers) if best_pixel else DEFAULT_THRESHOLD,
        "source": source,
    }


def _in_range(threshold: float) -> float:
    """Probabilities and their smoothed sums leave [0, 1] by rounding only."""
    return min(max(threshold, 0.0), 1.0)
