"""From which value on an image or a pixel is called anomalous, and where that value comes from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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

    def plain(self) -> dict[str, Any]:
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
