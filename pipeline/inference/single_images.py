"""Scoring images that belong to no dataset: what is written for each, and what happens to bad ones."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from AnomalyCLIP_lib.decisions import ANOMALOUS, Decision, Thresholds, decide
from AnomalyCLIP_lib.detector import Detector, Prediction
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import read_image
from pipeline.distributed import ALONE, Ranks
from pipeline.inference.image_paths import ImageFile
from pipeline.reporting.image_files import refuse_to_overwrite, save_image_picture, save_map
from pipeline.reporting.observing import Observer, ScoredImage
from pipeline.reporting.pictures import KINDS
from pipeline.reporting.predictions import PredictionRow, printable
from pipeline.reporting.predictions_file import EarlierRun, PredictionsFile
from pipeline.reporting.run_folder import remove_results
from pipeline.scoring import Task, score_images

Conclusion = TypeVar("Conclusion")


class ReadImage(NamedTuple):
    """An image file that was read: what the model reads, (3, S, S), and the image itself, RGB."""

    image: Tensor
    picture: Image.Image


def image_task(
    detector: Detector, files: Sequence[ImageFile], conclude: Callable[[int, ReadImage, Prediction], Conclusion]
) -> Task[ReadImage, Conclusion]:
    """A task on image files."""

    def read(position: int) -> ReadImage:
        picture = read_image(files[position].path)
        return ReadImage(detector.preprocess(picture), picture)

    return Task(read, conclude)


@dataclass(frozen=True)
class ImageOptions:
    """How image files are scored.

    Attributes:
        thresholds: what images and pixels are called anomalous from.
        batch_size: images per forward pass.
        workers: threads that read images and draw.
        visualize: which of `pictures.KINDS` is written for every image, or "none".
        save_maps: also write every smoothed map as (S, S) float32 .npy.
    """

    thresholds: Thresholds
    batch_size: int = 8
    workers: int = 0
    visualize: str = "overlay"
    save_maps: bool = False


def score_image_files(
    detector: Detector,
    files: Sequence[ImageFile],
    save_path: Path,
    options: ImageOptions,
    ranks: Ranks = ALONE,
    earlier: EarlierRun | None = None,
    observers: Sequence[Observer] = (),
) -> tuple[int, list[PredictionRow]]:
    """Score images, print `path<TAB>score` a line and write their files.

    These are pictures, if asked for maps, and predictions.csv, whose rows are written batch by batch: a run that ends
    early keeps them. A file that cannot be read is reported on standard error, becomes a row with its error, and the
    others go on. Processes of one run share the images; the main one prints and writes predictions.csv.

    Args:
        earlier: the run that this one continues; images that it has scored are left out, and its rows stay.
        observers: see every image that could be read.

    Returns:
        the exit code, 0, or 1 where predictions.csv has a row with an error; and the rows of this run, on the main
        process.

    Raises:
        InputError: the only file is bad, a heat map would overwrite one of the images, a file cannot be written, or
            the earlier run had other settings.
    """
    if options.visualize in KINDS or options.save_maps:
        refuse_to_overwrite([file.path for file in files], save_path, [file.output for file in files])
    earlier = earlier or EarlierRun()
    settings = run_settings(detector, options.thresholds)
    earlier.check_settings(settings)
    left = earlier.left(files)
    kept = earlier.without(left)

    def conclude(position: int, read: ReadImage, prediction: Prediction) -> Decision:
        file, picture, values = left[position], read.picture, prediction.values(read.picture.size)
        decision = decide(prediction.anomaly_score.item(), options.thresholds, values)
        if options.visualize in KINDS:
            drawn = KINDS[options.visualize](picture, decision, values, None, "")
            save_image_picture(drawn, save_path, file.output)
        if options.save_maps:
            save_map(prediction.anomaly_map.numpy(), save_path, file.output)
        for observer in observers:
            size = picture.size
            observer.observe(
                ScoredImage(position, str(file.path), "", None, decision, size, picture, prediction, values)
            )
        return decision

    task = image_task(detector, left, conclude)
    paths = [file.path for file in left]
    batches = score_images(detector, task, paths, options.batch_size, options.workers, ranks=ranks)
    predictions: PredictionsFile | None = None
    rows: list[PredictionRow] = []
    hidden = True if len(files) == 1 or not ranks.is_main else None  # None: where nobody looks
    done = len(files) - len(left)
    with tqdm(total=len(files), initial=done, desc="scoring", unit="image", leave=False, disable=hidden) as bar:
        for own in batches:
            together = list(chain.from_iterable(ranks.gather(own)))
            if not ranks.is_main:
                continue
            if len(files) == 1 and isinstance(together[0][1], InputError):
                raise together[0][1]
            if predictions is None:  # from here on the folder is this run's
                remove_results(save_path)
                predictions = PredictionsFile(save_path, settings, kept.rows)
            new = [_row(left[position], outcome) for position, outcome in together]
            predictions.add(new)
            rows += new
            for row in new:
                if row.decision is None:
                    bar.write(f"error: {row.error}", file=sys.stderr)
                else:
                    bar.write(f"{printable(row.image_path)}\t{row.decision.anomaly_score:.6f}", file=sys.stdout)
            sys.stdout.flush()
            bar.update(len(new))
    for observer in observers:
        observer.end_class("", ranks)
    decisions = [row.decision.called for row in rows if row.decision]
    bad = len(rows) - len(decisions)
    if ranks.is_main and left:
        print(f"called anomalous: {decisions.count(ANOMALOUS)} of {len(decisions)}", file=sys.stderr)
    if bad:
        print(f"{bad} of {len(left)} images could not be read.", file=sys.stderr)
    return (1 if bad or kept.has_errors else 0), rows


def _row(file: ImageFile, outcome: Decision | InputError) -> PredictionRow:
    if isinstance(outcome, InputError):
        return PredictionRow(str(file.path), error=str(outcome))
    return PredictionRow(str(file.path), decision=outcome)


def run_settings(detector: Detector, thresholds: Thresholds) -> dict[str, Any]:
    """All that scores and decisions depend on."""
    return {
        "threshold": thresholds.image.value,
        "pixel_threshold": thresholds.pixel.value,
        **detector.settings_dict(),
    }
