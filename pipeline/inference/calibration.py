"""Thresholds from images that are known to be normal, for a false alarm rate that the user states."""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import PurePath

import numpy as np
from tqdm import tqdm

from AnomalyCLIP_lib.decisions import Choice, Threshold, Thresholds
from AnomalyCLIP_lib.detector import Detector, Prediction
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import list_images
from pipeline.distributed import ALONE, Ranks
from pipeline.inference.image_paths import ImageFile
from pipeline.inference.single_images import ReadImage, image_task
from pipeline.scoring import score_images

DEFAULT_RATE = 0.01


def images_needed(rate: float) -> int:
    """How many normal images a false alarm rate needs at least."""
    return math.ceil(1 / _exact(rate)) - 1


def false_alarm_threshold(values: Sequence[float], rate: float) -> float:
    """The threshold that a new normal image's value reaches with at most this probability (split conformal).

    It lies just above the k-th smallest of the n values, k = ceil((n + 1)(1 - rate)): a new value, exchangeable with
    these, takes each of the n + 1 places among them with equal probability, whatever their distribution. With fewer
    values than `images_needed` it lies just above the largest, and nothing is promised.

    Args:
        values: of normal images, float32, as scores and maps are.
        rate: in (0, 1).

    Returns:
        the next float32 above the k-th value: what is at least the threshold is more than the k-th value.
    """
    ordered = np.sort(np.asarray(values, np.float32))
    place = min(math.ceil((len(ordered) + 1) * (1 - _exact(rate))), len(ordered))
    return float(np.nextafter(ordered[place - 1], np.float32(np.inf)))


def run_thresholds(
    detector: Detector,
    image: Choice,
    pixel: Choice,
    folder: str | None,
    rate: float | None,
    batch_size: int,
    workers: int = 0,
    ranks: Ranks = ALONE,
) -> tuple[Thresholds, list[str]]:
    """The thresholds of a run: what is typed wins, then the calibration, then the checkpoint's, else 0.5.

    The image threshold is calibrated on the images' scores, the pixel threshold on the largest value of each map: an
    outline on a flawless image is a false alarm. Each of the two has the rate by itself.

    Args:
        image, pixel: as `Detector.thresholds` takes them.
        folder: of normal images, searched with its subfolders; None: no calibration.
        rate: of false alarms; None: `DEFAULT_RATE`.

    Returns:
        the thresholds and sentences for the user; the same in all processes of a run.

    Raises:
        InputError: see `Detector.thresholds`; or no image in the folder can be read.
    """
    thresholds = detector.thresholds(image, pixel)
    if folder is None:
        return thresholds, []
    rate = DEFAULT_RATE if rate is None else rate
    scores, maxima, notices = _normal_values(detector, folder, batch_size, workers, ranks)
    if ranks.is_main:
        if not scores:
            raise InputError(f"--calibrate {folder}: none of its images can be used; the first: {notices[0]}")
        count, needed = len(scores), images_needed(rate)
        source = f"calibrated on {count} normal image{'' if count == 1 else 's'} of {folder}"
        if count < needed:
            source += f", just above the largest value: too few for a false alarm rate of {rate:g}"
            notices.append(
                f"WARNING: a false alarm rate of {rate:g} needs at least {needed} normal images, and --calibrate "
                f"{folder} gave {count}; the thresholds lie just above their largest values, and no rate is promised."
            )
        else:
            source += f" for a false alarm rate of {rate:g}"
        if image is None:
            thresholds = replace(thresholds, image=Threshold(false_alarm_threshold(scores, rate), source))
        if pixel is None:
            thresholds = replace(thresholds, pixel=Threshold(false_alarm_threshold(maxima, rate), source))
    return ranks.broadcast((thresholds, notices))


def _normal_values(
    detector: Detector, folder: str, batch_size: int, workers: int, ranks: Ranks
) -> tuple[list[float], list[float], list[str]]:
    """On the main process, scores and largest map values of the images in a folder, and sentences on bad ones."""
    images = ranks.broadcast(list_images(folder) if ranks.is_main else [])
    if not images:
        raise InputError(f"--calibrate {folder} holds no images; name a folder of normal images.")
    task = image_task(detector, [ImageFile(path, PurePath(path.name)) for path in images], _score_and_maximum)
    values: list[tuple[float, float]] = []
    notices = []
    hidden = None if ranks.is_main else True
    with tqdm(total=len(images), desc="calibrating", unit="image", leave=False, disable=hidden) as bar:
        for own in score_images(detector, task, images, batch_size, workers, ranks=ranks):
            for _, outcome in chain.from_iterable(ranks.gather(own)):
                if isinstance(outcome, InputError):
                    notices.append(f"left out of the calibration: {outcome}")
                else:
                    values.append(outcome)
                bar.update()
    return [score for score, _ in values], [maximum for _, maximum in values], notices


def _score_and_maximum(_position: int, read: ReadImage, prediction: Prediction) -> tuple[float, float]:
    return prediction.anomaly_score.item(), float(prediction.values(read.size).max())


def _exact(rate: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth, not the float next to it."""
    return Fraction(repr(rate))
