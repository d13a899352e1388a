"""Scoring pictures that belong to no dataset: what is written for each, and what happens to bad ones."""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from AnomalyCLIP_lib.decisions import ANOMALOUS, Decision, Thresholds, decide
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import read_image
from AnomalyCLIP_lib.model import AnomalyCLIP, Prediction
from AnomalyCLIP_lib.prompts import PromptLearner
from AnomalyCLIP_lib.weights import fingerprint
from pipeline.distributed import ALONE, Ranks
from pipeline.inference.picture_files import Picture
from pipeline.reporting.image_files import refuse_to_overwrite, save_image_picture, save_map
from pipeline.reporting.pictures import KINDS
from pipeline.reporting.predictions import PredictionRow, printable
from pipeline.reporting.predictions_file import EarlierRun, PredictionsFile
from pipeline.reporting.report.gallery import Gallery
from pipeline.reporting.run_folder import remove_results
from pipeline.scoring import score_batch

Conclusion = TypeVar("Conclusion")


@dataclass(frozen=True)
class ScoredPicture:
    """What `score_in_turn` found out about a picture.

    Attributes:
        picture: the file.
        image: as it was read, RGB.
        prediction: its score and map.
        values: (height, width) float32, the map in [0, 1] at the picture's own size.
    """

    picture: Picture
    image: Image.Image
    prediction: Prediction
    values: np.ndarray


def score_in_turn(
    model: AnomalyCLIP,
    pictures: Sequence[Picture],
    batch_size: int,
    conclude: Callable[[ScoredPicture], Conclusion],
    ranks: Ranks = ALONE,
) -> Iterator[list[tuple[Picture, Conclusion | InputError]]]:
    """Score pictures of any kind; the next batch is read while the model computes.

    Processes of one run share the batches. All of them have to iterate to the end.

    Args:
        conclude: what to keep of a picture; called in the process that scored it.

    Yields:
        on the main process, a batch (of every process) after the other in the order of the pictures, each picture
        with its conclusion or with the reason why it has none. On the others, empty lists.
    """
    batches = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]
    own = batches[ranks.rank :: ranks.size]
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = [reader.submit(_read, model, own[0])] if own else []
        for turn in range(-(-len(batches) // ranks.size)):
            outcome: list[tuple[Picture, Conclusion | InputError]] = []
            if turn < len(own):
                readings = ahead.pop().result()
                if turn + 1 < len(own):
                    ahead.append(reader.submit(_read, model, own[turn + 1]))
                outcome = [
                    (picture, scored if isinstance(scored, InputError) else conclude(scored))
                    for picture, scored in zip(own[turn], _scored(model, own[turn], readings), strict=True)
                ]
            yield list(chain.from_iterable(ranks.gather(outcome)))


def score_pictures(
    model: AnomalyCLIP,
    pictures: Sequence[Picture],
    save_path: Path,
    batch_size: int,
    save_maps: bool,
    thresholds: Thresholds,
    visualize: str = "overlay",
    ranks: Ranks = ALONE,
    earlier: EarlierRun | None = None,
    gallery: Gallery | None = None,
    take_row: Callable[[PredictionRow], object] = lambda row: None,
) -> int:
    """Score pictures, print `path<TAB>score` a line and write their files.

    These are pictures, if asked for maps, and predictions.csv, whose rows are written batch by batch: a run that ends
    early keeps them. A file that cannot be read is reported on standard error, becomes a row with its error, and the
    others go on. Processes of one run share the pictures; the main one prints and writes predictions.csv.

    Args:
        visualize: which of `pictures.KINDS` is written for every image, or "none".
        earlier: the run that this one continues; pictures that it has scored are left out, and its rows stay.
        gallery: sees every picture that could be read; None: nobody.
        take_row: called for every row, on the main process.

    Returns:
        the exit code: 0, or 1 where predictions.csv has a row with an error.

    Raises:
        InputError: the only file is bad, a heat map would overwrite one of the pictures, a file cannot be written, or
            the earlier run had other settings.
    """
    if visualize in KINDS or save_maps:
        refuse_to_overwrite((picture.path for picture in pictures), save_path, (picture.output for picture in pictures))
    earlier = earlier or EarlierRun()
    settings = run_settings(model, thresholds)
    earlier.check_settings(settings)
    left = earlier.left(pictures)
    kept = earlier.without(left)

    def conclude(scored: ScoredPicture) -> Decision:
        finding = decide(scored.prediction.anomaly_score.item(), thresholds, scored.values)
        _write_pictures(scored, finding, visualize, save_path, save_maps)
        if gallery is not None:
            name, size = str(scored.picture.path), scored.image.size
            gallery.add(positions[scored.picture.path], name, "", None, finding, scored.image, size, scored.values)
        return finding

    positions = {picture.path: position for position, picture in enumerate(pictures)}
    predictions: PredictionsFile | None = None
    bad = anomalous = 0
    done = len(pictures) - len(left)
    hidden = True if len(pictures) == 1 or not ranks.is_main else None  # None: where nobody looks
    with tqdm(total=len(pictures), initial=done, desc="scoring", unit="image", leave=False, disable=hidden) as bar:
        for batch in score_in_turn(model, left, batch_size, conclude, ranks):
            if not ranks.is_main:
                continue
            if len(pictures) == 1 and isinstance(batch[0][1], InputError):
                raise batch[0][1]
            if predictions is None:  # from here on the folder is this run's
                remove_results(save_path)
                predictions = PredictionsFile(save_path, settings, kept.rows)
            rows = [_row(picture, outcome) for picture, outcome in batch]
            predictions.add(rows)
            for row in rows:
                take_row(row)
            for picture, outcome in batch:
                if isinstance(outcome, InputError):
                    bad += 1
                    bar.write(f"error: {outcome}", file=sys.stderr)
                else:
                    anomalous += outcome.decision == ANOMALOUS
                    path = printable(str(picture.path))
                    bar.write(f"{path}\t{outcome.anomaly_score:.6f}", file=sys.stdout)
            sys.stdout.flush()
            bar.update(len(batch))
    if gallery is not None:
        gallery.end_class("", ranks)
    if ranks.is_main and left:
        print(f"called anomalous: {anomalous} of {len(left) - bad}", file=sys.stderr)
    if bad:
        print(f"{bad} of {len(left)} images could not be read.", file=sys.stderr)
    return 1 if bad or kept.has_errors else 0


def _row(picture: Picture, outcome: Decision | InputError) -> PredictionRow:
    if isinstance(outcome, InputError):
        return PredictionRow(str(picture.path), error=str(outcome))
    return PredictionRow(str(picture.path), finding=outcome)


def _write_pictures(scored: ScoredPicture, finding: Decision, visualize: str, save_path: Path, save_maps: bool) -> None:
    if visualize in KINDS:
        drawn = KINDS[visualize](scored.image, finding, scored.values, None, "")
        save_image_picture(drawn, save_path, scored.picture.output)
    if save_maps:
        save_map(scored.prediction.anomaly_map.numpy(), save_path, scored.picture.output)


def run_settings(model: AnomalyCLIP, thresholds: Thresholds) -> dict[str, Any]:
    """All that scores and decisions depend on."""
    return {
        "threshold": thresholds.image.value,
        "pixel_threshold": thresholds.pixel.value,
        "backbone": model.backbone.name,
        "weights": model.provenance.fingerprint,
        "prompts": fingerprint(model.prompts) if isinstance(model.prompts, PromptLearner) else "handwritten",
        **model.settings.to_dict(),
    }


Reading = tuple[Image.Image, Tensor] | InputError
"""A picture and what the model reads of it, (3, S, S); or why there is none."""


def _read(model: AnomalyCLIP, pictures: Sequence[Picture]) -> list[Reading]:
    readings: list[Reading] = []
    for picture in pictures:
        try:
            image = read_image(picture.path)
            readings.append((image, model.preprocess(image)))
        except InputError as error:
            readings.append(InputError(str(error)))  # without the traceback, which would keep the file's bytes
    return readings


def _scored(
    model: AnomalyCLIP, pictures: Sequence[Picture], readings: Sequence[Reading]
) -> Iterator[ScoredPicture | InputError]:
    """Each picture with its score and map, one at a time: at its own size, a map may be large."""
    usable = [
        (picture, reading[1])
        for picture, reading in zip(pictures, readings, strict=True)
        if not isinstance(reading, InputError)
    ]
    paths = [picture.path for picture, _ in usable]
    predictions = iter(score_batch(model, torch.stack([tensor for _, tensor in usable]), paths) if usable else ())
    for picture, reading in zip(pictures, readings, strict=True):
        if isinstance(reading, InputError):
            yield reading
            continue
        result = next(predictions)
        if isinstance(result, InputError):
            yield result
        else:
            yield ScoredPicture(picture, reading[0], result, result.values(reading[0].size))
