"""What a score and a map say about an image: normal or anomalous, and where."""

from dataclasses import dataclass

import cv2
import numpy as np

from AnomalyCLIP_lib.thresholds import Thresholds

NORMAL, ANOMALOUS = "normal", "anomalous"

Box = tuple[int, int, int, int]
"""x and y of the upper left corner, width, height; pixels of the image itself."""


@dataclass(frozen=True)
class Finding:
    """The conclusion about one image; the last three are None where no map was computed.

    Attributes:
        anomaly_score: the probability in [0, 1] that the image is anomalous.
        decision: `NORMAL` or `ANOMALOUS`: whether the score reaches the image threshold.
        thresholds: what was decided with.
        map_max: largest value of the map, divided by its number of layers; in [0, 1].
        area_fraction: share of the image's pixels that reach the pixel threshold, in [0, 1].
        regions: boxes around the 8-connected regions of these pixels, the largest region first.
    """

    anomaly_score: float
    decision: str
    thresholds: Thresholds
    map_max: float | None = None
    area_fraction: float | None = None
    regions: tuple[Box, ...] | None = None


def values_at(anomaly_map: np.ndarray, layers: int, size: tuple[int, int]) -> np.ndarray:
    """The map on its fixed scale, at the image's own size.

    Args:
        anomaly_map: (S, S) float32, in [0, layers].
        layers: how many layers were summed.
        size: width and height of the image, pixels.

    Returns:
        (height, width) float32 in [0, 1]: the same value means the same in every image.
    """
    return cv2.resize(anomaly_map / np.float32(layers), size, interpolation=cv2.INTER_LINEAR).clip(0, 1)


def judge(anomaly_score: float, thresholds: Thresholds, values: np.ndarray | None = None) -> Finding:
    """The conclusion from a score and, where there is one, a map from `values_at`."""
    decision = ANOMALOUS if anomaly_score >= thresholds.image.value else NORMAL
    if values is None:
        return Finding(anomaly_score, decision, thresholds)
    reached = values >= np.float32(thresholds.pixel.value)
    return Finding(anomaly_score, decision, thresholds, float(values.max()), float(reached.mean()), find_boxes(reached))


def find_boxes(reached: np.ndarray) -> tuple[Box, ...]:
    """Boxes around the 8-connected regions of a bool array (height, width), the largest region first."""
    if not reached.any():
        return ()
    _, _, statistics, _ = cv2.connectedComponentsWithStats(reached.astype(np.uint8), connectivity=8)
    regions = statistics[1:]  # the first is the background
    order = np.argsort(-regions[:, cv2.CC_STAT_AREA], kind="stable")
    return tuple((int(x), int(y), int(width), int(height)) for x, y, width, height, _ in regions[order])
