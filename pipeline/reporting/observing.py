"""Watching a run image by image: for pictures and the report."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from AnomalyCLIP_lib.decisions import Decision
from AnomalyCLIP_lib.detector import Prediction
from pipeline.distributed import Ranks


@dataclass(frozen=True)
class ScoredImage:
    """What an `Observer` is shown of an image; it keeps what it wants of it and lets the rest go.

    Attributes:
        position: number of the image in the run, from 0.
        name: its path as predictions.csv has it.
        class_name: empty where there are no classes.
        label: 0 normal, 1 anomalous, None unknown.
        decision: score, decision and regions.
        size: width and height of the image in its file, pixels.
        picture: the image, RGB, of any size and aspect.
        prediction: score and map.
        values: (height, width) float32, the map in [0, 1] at the image's own size; None where no maps were computed.
    """

    position: int
    name: str
    class_name: str
    label: int | None
    decision: Decision
    size: tuple[int, int]
    picture: Image.Image
    prediction: Prediction
    values: np.ndarray | None


class Observer(Protocol):
    """Watches a run image by image. Each of several processes has its own, which sees the images of this process."""

    needs_maps: bool

    def observe(self, scored: ScoredImage) -> None:
        """Called for every image, in any order and by several threads at the same time."""

    def end_class(self, name: str, ranks: Ranks) -> None:
        """Called in all processes, in the same order, when all images of a class have been seen."""

    def gather_state(self, ranks: Ranks) -> Any:
        """See `run_record.Part`."""

    def restore(self, state: Any) -> None:
        """See `run_record.Part`."""

    def restart_class(self, name: str) -> None:
        """See `run_record.Part`."""
