"""Scoring a batch of image files: the one way of dataset runs, single images, calibration and the web page."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.model import AnomalyCLIP, NotFiniteError, Prediction


def score_batch(
    model: AnomalyCLIP, images: Tensor, paths: Sequence[Path], *, maps: bool = True
) -> list[Prediction | InputError]:
    """Score preprocessed images, each of which comes out by itself.

    Args:
        images: (B, 3, S, S), from the model's `preprocess`.
        paths: the B files, for messages.
        maps: whether anomaly maps are computed.

    Returns:
        per image its prediction, or the error that names its file where that is not finite.
    """
    try:
        prediction, bad = model.score(images, maps=maps), []
        reason = ""
    except NotFiniteError as error:
        prediction, bad, reason = error.prediction, error.rows, str(error)
    return [InputError(f"{path}: {reason}") if row in bad else prediction[row] for row, path in enumerate(paths)]
