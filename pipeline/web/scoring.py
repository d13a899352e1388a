"""What the web page knows of a picture: its score and map, computed once, and the limits on what is taken."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from AnomalyCLIP_lib.decisions import Decision, Thresholds, decide
from AnomalyCLIP_lib.detector import Detector, Prediction
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import image_size, read_image
from pipeline.scoring import score_batch

MOST_FILES = 12
MOST_MEGABYTES = 20
MOST_PIXELS = 16_000_000
DISPLAYED_SIDE = 960
MOST_ENLARGEMENT = 4


@dataclass(frozen=True)
class Scored:
    """A picture that was scored; all that is drawn and decided later needs no model.

    Attributes:
        name: of the file, as the user knows it.
        path: the upload; it is deleted after a while.
        prediction: its score and map.
        size: width and height of the picture, pixels.
        displayed: (height, width, 3) uint8 RGB, its longer side `DISPLAYED_SIDE`, or less where that would enlarge
            it more than `MOST_ENLARGEMENT` times.
    """

    name: str
    path: Path
    prediction: Prediction
    size: tuple[int, int]
    displayed: np.ndarray

    @property
    def anomaly_score(self) -> float:
        return self.prediction.anomaly_score.item()

    def decision(self, thresholds: Thresholds) -> Decision:
        """The conclusion, from the map at the picture's own size."""
        return decide(self.anomaly_score, thresholds, self.prediction.values(self.size))

    def called(self, thresholds: Thresholds) -> str:
        """Normal or anomalous, which the score alone decides."""
        return decide(self.anomaly_score, thresholds).called

    def values(self) -> np.ndarray:
        """The map in [0, 1] at the size of `displayed`."""
        height, width = self.displayed.shape[:2]
        return self.prediction.values((width, height))


@dataclass(frozen=True)
class Refused:
    """A file that could not be scored, and the sentence that says why."""

    name: str
    path: Path
    sentence: str


class Scorer:
    """Scores uploads with one model, one picture at a time, however many people ask.

    Between the pictures of one request those of another one come to their turn.
    """

    def __init__(self, detector: Detector):
        self.detector = detector
        self._turn = threading.Lock()

    def score(self, path: Path) -> Scored | Refused:
        """Read and score one file; sentences name it as the user does, without the folder of the upload."""
        try:
            return self._score(path)
        except InputError as error:
            return Refused(path.name, path, str(error).replace(str(path), path.name))

    def _score(self, path: Path) -> Scored:
        image = read_upload(path)
        with self._turn:
            (prediction,) = score_batch(self.detector, self.detector.preprocess(image)[None], [path])
        if isinstance(prediction, InputError):
            raise prediction
        return Scored(path.name, path, prediction, image.size, _for_display(image))


def read_upload(path: Path) -> Image.Image:
    """The picture, RGB, if it is within the limits.

    Raises:
        InputError: it cannot be read, or is too large.
    """
    width, height = image_size(path) if path.is_file() and path.stat().st_size else (0, 0)
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{path} has {width} x {height} pixels; this page takes at most {MOST_PIXELS / 1e6:.0f} million, so make "
            "it smaller."
        )
    return read_image(path)


def _for_display(image: Image.Image) -> np.ndarray:
    factor = min(DISPLAYED_SIDE / max(image.size), MOST_ENLARGEMENT)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
