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
from pipeline.reporting.image_files import map_name, possible_names, refuse_to_overwrite, save_drawn, save_map
from pipeline.reporting.observing import Observer, ScoredImage
from pipeline.reporting.pictures import KINDS, MOST_SIDE, PictureOptions, reduced
from pipeline.reporting.predictions import PredictionRow, printable
from pipeline.run_record import RunRecord
from pipeline.scoring import Task, score_images

Conclusion = TypeVar("Conclusion")


class ReadImage(NamedTuple):
    """An image file that was read.

    Attributes:
        image: (3, S, S), what the model reads.
        picture: the image itself, RGB, no larger than it will be drawn.
        size: width and height of the image in its file, pixels.
    """

    image: Tensor
    picture: Image.Image
    size: tuple[int, int]


def image_task(
    detector: Detector,
    files: Sequence[ImageFile],
    conclude: Callable[[int, ReadImage, Prediction], Conclusion],
    most_side: int = MOST_SIDE,
) -> Task[ReadImage, Conclusion]:
    """A task on image files; of large ones, a picture of at most `most_side` pixels a side is kept."""

    def read(position: int) -> ReadImage:
        image = read_image(files[position].path)
        return ReadImage(detector.preprocess(image), reduced(image, most_side), image.size)

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
        folder.check(name for output in outputs for name in possible_names(output))
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
        file, path = left[number], str(left[number].path)
        values = prediction.values(read.size)
        decision = decide(prediction.anomaly_score.item(), options.thresholds, values)
        drawn = saved = ""
        if draw is not None:
            share = read.picture.width / read.size[0]
            note = f"drawn at {share:.0%} of its size" if read.picture.size != read.size else ""
            shown = prediction.values(read.picture.size) if note else values
            drawn = save_drawn(draw(read.picture, decision, shown, None, note), folder, file.output, pictures)
        if pictures.save_maps:
            saved = map_name(file.output).as_posix()
            save_map(prediction.anomaly_map.numpy(), folder.claim(saved))
        position = len(kept) + number
        for observer in observers.values():
            observer.observe(
                ScoredImage(position, path, "", None, decision, read.size, read.picture, prediction, values)
            )
        return PredictionRow(path, "", None, decision, "", drawn, saved)

    task, paths = image_task(detector, left, conclude, pictures.most_side), [file.path for file in left]
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
