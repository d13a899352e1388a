"""What a score and a map say about an image: normal or anomalous, where, and from which thresholds on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from AnomalyCLIP_lib.errors import InputError

DEFAULT_THRESHOLD = 0.5
CHECKPOINT = "checkpoint"
SETTING = "thresholds"
"""The entry of a checkpoint's settings that holds {"image": value, "pixel": value, "source": sentence}."""

Choice = float | Literal["checkpoint"] | None
"""A threshold as the user gives it: a number, the checkpoint's, or None: the checkpoint's if it has one, else 0.5."""


@dataclass(frozen=True)
class Threshold:
    """Whatever is at least `value` is anomalous.

    Attributes:
        value: in [0, 1]; just above 1 where a calibration found that nothing may be called anomalous.
        source: where it comes from, for the user.
    """

    value: float
    source: str


@dataclass(frozen=True)
class Thresholds:
    """Attributes:
    image: of the image score.
    pixel: of the anomaly map divided by its number of layers.
    """

    image: Threshold
    pixel: Threshold

    def describe(self) -> str:
        """One line for the user."""
        return (
            f"thresholds: image score {self.image.value:.4g} ({self.image.source}), "
            f"pixel {self.pixel.value:.4g} ({self.pixel.source})"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain types, for JSON."""
        return {
            name: {"value": threshold.value, "source": threshold.source}
            for name, threshold in (("image", self.image), ("pixel", self.pixel))
        }


def choose_thresholds(
    image: Choice, pixel: Choice, saved: Mapping[str, Any], checkpoint: str, departs: bool = False
) -> Thresholds:
    """The thresholds that a run uses.

    Args:
        image, pixel: what the user wants, each on its own.
        saved: settings of the checkpoint, {} without one.
        checkpoint: its name, for the user.
        departs: whether the model's settings are not those of the checkpoint, which its thresholds were found with.

    Raises:
        InputError: the checkpoint's threshold is asked for and it has none, or a number is out of range.
    """
    stored = saved.get(SETTING)
    chosen = {}
    for name, flag, choice in (("image", "--threshold", image), ("pixel", "--pixel_threshold", pixel)):
        if isinstance(choice, int | float):
            if not 0 <= choice <= 1:
                raise InputError(f"{flag} {choice} is out of range; give a number from 0 to 1, or {CHECKPOINT}.")
            chosen[name] = Threshold(float(choice), flag)
        elif stored is not None:
            warning = "; found with other settings than this run's" if departs else ""
            chosen[name] = Threshold(float(stored[name]), f"{CHECKPOINT}: {stored['source']}{warning}")
        elif choice == CHECKPOINT:
            raise InputError(
                f"{flag} {CHECKPOINT} is impossible: {checkpoint} stores no thresholds; give a number, or prompts that "
                "train.py wrote."
            )
        else:
            chosen[name] = Threshold(DEFAULT_THRESHOLD, "default: the checkpoint stores none")
    return Thresholds(**chosen)


def check_stored(settings: Mapping[str, Any], source: str) -> None:
    """Check the entry `SETTING` of settings read from a file, where it is there.

    Raises:
        InputError: it is no table of two numbers in [0, 1] and a sentence; the message names `source`.
    """
    stored = settings.get(SETTING)
    if stored is None:
        return
    usable = (
        isinstance(stored, dict)
        and isinstance(stored.get("source"), str)
        and all(
            isinstance(value := stored.get(name), float) and math.isfinite(value) and 0 <= value <= 1
            for name in ("image", "pixel")
        )
    )
    if not usable:
        raise InputError(f"The entry {SETTING} in {source} is no pair of thresholds; the file is damaged, use another.")


NORMAL, ANOMALOUS = "normal", "anomalous"

Box = tuple[int, int, int, int]
"""x and y of the upper left corner, width, height; pixels of the image itself."""


@dataclass(frozen=True)
class Decision:
    """The conclusion about one image; the last three are None where no map was computed.

    Attributes:
        anomaly_score: the probability in [0, 1] that the image is anomalous.
        called: `NORMAL` or `ANOMALOUS`: whether the score reaches the image threshold.
        thresholds: what was decided with.
        map_max: largest value of the map, divided by its number of layers; in [0, 1].
        area_fraction: share of the image's pixels that reach the pixel threshold, in [0, 1].
        regions: boxes around the 8-connected regions of these pixels, the largest region first.
    """

    anomaly_score: float
    called: str
    thresholds: Thresholds
    map_max: float | None = None
    area_fraction: float | None = None
    regions: tuple[Box, ...] | None = None


def map_values(anomaly_map: np.ndarray, layers: int, size: tuple[int, int]) -> np.ndarray:
    """The map on its fixed scale, at the image's own size.

    Args:
        anomaly_map: (S, S) float32, in [0, layers].
        layers: how many layers were summed.
        size: width and height of the image, pixels.

    Returns:
        (height, width) float32 in [0, 1]: the same value means the same in every image.
    """
    return cv2.resize(anomaly_map / np.float32(layers), size, interpolation=cv2.INTER_LINEAR).clip(0, 1)


def decide(anomaly_score: float, thresholds: Thresholds, values: np.ndarray | None = None) -> Decision:
    """The conclusion from a score and, where there is one, a map from `map_values`."""
    called = ANOMALOUS if anomaly_score >= thresholds.image.value else NORMAL
    if values is None:
        return Decision(anomaly_score, called, thresholds)
    reached = values >= np.float32(thresholds.pixel.value)
    share = int(np.count_nonzero(reached)) / reached.size
    return Decision(anomaly_score, called, thresholds, float(values.max()), share, find_boxes(reached))


def find_boxes(reached: np.ndarray) -> tuple[Box, ...]:
    """Boxes around the 8-connected regions of a bool array (height, width), the largest region first."""
    if not reached.any():
        return ()
    # twice as fast as the default algorithm, with the same numbers
    _, _, statistics, _ = cv2.connectedComponentsWithStatsWithAlgorithm(
        reached.view(np.uint8), 8, cv2.CV_32S, cv2.CCL_GRANA
    )
    regions = statistics[1:]  # the first is the background
    order = np.argsort(-regions[:, cv2.CC_STAT_AREA], kind="stable")
    return tuple((int(x), int(y), int(width), int(height)) for x, y, width, height, _ in regions[order])
