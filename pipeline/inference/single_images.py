"""Scoring images that belong to no dataset: what is written for each, and what happens to bad ones."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from PIL import Image
from torch import Tensor
from tqdm import tqdm

from AnomalyCLIP_lib.decisions import ANOMALOUS, Thresholds, decide
from AnomalyCLIP_lib.detector import Detector, Prediction
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import read_image
from pipeline.distributed import ALONE, Ranks
from pipeline.inference.image_paths import ImageFile
from pipeline.reporting.image_files import map_name, picture_name, refuse_to_overwrite, save_map
from pipeline.reporting.observing import Observer, ScoredImage
from pipeline.reporting.pictures import KINDS, PictureOptions, save_picture
from pipeline.reporting.predictions import PredictionRow, printable
from pipeline.run_record import RunRecord
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
        pictures: what is written for every image.
        batch_size: images per forward pass.
        workers: threads that read images and draw.
    """

    thresholds: Thresholds
    pictures: PictureOptions
    batch_size: int = 8
    workers: int = 0


def score_image_files(
    detector: Detector,
    files: Sequence[ImageFile],
    record: RunRecord,
    options: ImageOptions,
    observers: Mapping[str, Observer] | None = None,
    ranks: Ranks = ALONE,
) -> int:
    """Score images, print `path<TAB>score` a line and write their files.

    These are pictures, if asked for maps, and predictions.csv, whose rows are written batch by batch: a run that ends
    early keeps them. A file that cannot be read is reported on standard error, becomes a row with its error, and the
    others go on. Processes of one run share the images; the main one prints and writes predictions.csv.

    Args:
        record: of the run; images that an earlier run has scored are left out.
        observers: see every image that could be read; by name.

    Returns:
        the exit code: 0, or 1 where predictions.csv has a row with an error.

    Raises:
        InputError: the only file is bad, a heat map would overwrite one of the images, a file cannot be written, or
            the earlier run had other settings.
    """
    folder, observers, pictures = record.folder, observers or {}, options.pictures
    draw = KINDS.get(pictures.visualize)
    if draw is not None or pictures.save_maps:
        outputs = [file.output for file in files]
        refuse_to_overwrite([file.path for file in files], folder.path, outputs)
        folder.check([*(map(picture_name, outputs) if draw else ()), *(map(map_name, outputs))])
    earlier = record.restore(observers, exact=False)
    done = {_key(row.image_path) for row in earlier if not row.error}
    left = {key: file for file in files if (key := _key(str(file.path))) not in done}
    kept = [row for row in earlier if _key(row.image_path) not in left]
    left = list(left.values())
    if record.resume and ranks.is_main:
        nothing = "; nothing is left to do" if not left else ""
        before = f"{len(files) - len(left)} of {len(files)} images were done before"
        print(f"--continue: {before}{nothing}", file=sys.stderr)

    def conclude(number: int, read: ReadImage, prediction: Prediction) -> PredictionRow:
        file, picture, values = left[number], read.picture, prediction.values(read.picture.size)
        decision = decide(prediction.anomaly_score.item(), options.thresholds, values)
        names = picture_name(file.output), map_name(file.output)
        if draw is not None:
            save_picture(draw(picture, decision, values, None, ""), folder.claim(names[0]))
        if pictures.save_maps:
            save_map(prediction.anomaly_map.numpy(), folder.claim(names[1]))
        path, position, size = str(file.path), len(kept) + number, picture.size
        for observer in observers.values():
            observer.observe(ScoredImage(position, path, "", None, decision, size, picture, prediction, values))
        written = (draw is not None, pictures.save_maps)
        shown = (name.as_posix() if wanted else "" for name, wanted in zip(names, written, strict=True))
        return PredictionRow(path, "", None, decision, "", *shown)

    task, paths = image_task(detector, left, conclude), [file.path for file in left]
    record.begin(kept, paths)
    rows: list[PredictionRow] = []
    hidden = True if len(files) == 1 or not ranks.is_main else None  # None: where nobody looks
    initial = len(files) - len(left)
    bar = tqdm(total=len(files), initial=initial, desc="scoring", unit="image", leave=False, disable=hidden)
    with bar:
        for own in score_images(detector, task, paths, options.batch_size, options.workers, ranks=ranks):
            together = list(chain.from_iterable(ranks.gather(own)))
            if ranks.is_main and len(files) == 1 and isinstance(together[0][1], InputError):
                raise together[0][1]
            new = [
                PredictionRow(str(left[number].path), error=str(outcome))
                if isinstance(outcome, InputError)
                else outcome
                for number, outcome in together
            ]
            record.add(new)
            rows += new
            for row in new:
                if row.decision is None:
                    bar.write(f"error: {row.error}", file=sys.stderr)
                else:
                    bar.write(f"{printable(row.image_path)}\t{row.decision.anomaly_score:.6f}", file=sys.stdout)
            sys.stdout.flush()
            bar.update(len(new))
    record.save()
    for observer in observers.values():
        observer.end_class("", ranks)
    decisions = [row.decision.called for row in rows if row.decision]
    bad = len(rows) - len(decisions)
    if ranks.is_main and left:
        print(f"called anomalous: {decisions.count(ANOMALOUS)} of {len(decisions)}", file=sys.stderr)
    if bad:
        print(f"{bad} of {len(left)} images could not be read.", file=sys.stderr)
    return 1 if bad or any(row.error for row in kept) else 0


def _key(path: str) -> str:
    """The same for all ways to write a path from this folder."""
    return os.path.abspath(path)


def run_settings(detector: Detector, thresholds: Thresholds) -> dict[str, Any]:
    """All that scores and decisions depend on."""
    return {
        "threshold": thresholds.image.value,
        "pixel_threshold": thresholds.pixel.value,
        **detector.settings_dict(),
    }
