"""Watching a run on a dataset image by image: for pictures and the report."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from AnomalyCLIP_lib.decisions import Decision
from dataset import Entry
from pipeline.distributed import Ranks


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
    finding: Decision
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
