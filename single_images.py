"""Scoring pictures that belong to no dataset: which files, what is written for each, and what happens to bad ones."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePath

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from AnomalyCLIP_lib.distributed import ALONE, Ranks
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.findings import Finding, judge, values_at
from AnomalyCLIP_lib.images import list_images, read_image
from AnomalyCLIP_lib.model import AnomalyCLIP
from AnomalyCLIP_lib.thresholds import Thresholds
from reporting.image_files import output_names, refuse_to_overwrite, save_image_picture, save_map
from reporting.pictures import KINDS
from reporting.predictions import PredictionRow, write_predictions


@dataclass(frozen=True)
class Picture:
    """A file to score and the name of what is written for it, without extension and relative to the save path."""

    path: Path
    output: PurePath


def find_pictures(paths: Sequence[str]) -> list[Picture]:
    """The files behind the given paths: files as they are, folders searched with their subfolders, sorted.

    Output names mirror the folders below the given one, see `image_files.output_names`.

    Raises:
        InputError: an empty path, or a folder without images.
    """
    if not all(paths):
        raise InputError("--image was given an empty path; name a file or a folder.")
    found: list[tuple[Path, PurePath]] = []
    for given in map(Path, paths):
        if given.is_dir():
            inside = list_images(given)
            if not inside:
                raise InputError(f"The folder {given} holds no images; give a folder with images or image files.")
            found += [(path, PurePath(path.relative_to(given))) for path in inside]
        else:  # a missing file is told when its turn comes, like any other bad file
            found.append((given, PurePath(given.name)))
    found = list({path.resolve(): (path, name) for path, name in reversed(found)}.values())[::-1]  # each file once
    found.sort(key=lambda item: item[0])
    outputs = output_names([name for _, name in found])
    return [Picture(path, output) for (path, _), output in zip(found, outputs, strict=True)]


def score_pictures(
    model: AnomalyCLIP,
    pictures: Sequence[Picture],
    save_path: Path,
    batch_size: int,
    save_maps: bool,
    thresholds: Thresholds,
    visualize: str = "overlay",
    ranks: Ranks = ALONE,
) -> int:
    """Score pictures and print `path<TAB>score` a line; write predictions.csv, pictures and, if asked for, maps.

    A file that cannot be read is told on standard error and the others go on. Processes of one run share the
    pictures; the main one prints, in their order, and writes predictions.csv.

    Args:
        visualize: which of `pictures.KINDS` is written for every image, or "none".

    Returns:
        the exit code: 0, or 1 where a file among several was bad.

    Raises:
        InputError: the only file is bad, or all of them are; or a heat map would overwrite one of the pictures.
    """
    refuse_to_overwrite((picture.path for picture in pictures), save_path, (picture.output for picture in pictures))
    with torch.no_grad():
        text_features = model.text_features()
    rows: list[PredictionRow] = []
    bad: list[str] = []
    batches = [pictures[start : start + batch_size] for start in range(0, len(pictures), batch_size)]
    hidden = True if len(pictures) == 1 or not ranks.is_main else None  # None: where nobody looks
    bar = tqdm(total=len(pictures), desc="scoring", unit="image", leave=False, disable=hidden)
    with ThreadPoolExecutor(max_workers=1) as reader:
        own = batches[ranks.rank :: ranks.size]
        ahead = [reader.submit(_read, model, own[0])] if own else []
        for turn in range(-(-len(batches) // ranks.size)):
            outcome: list[tuple[Picture, Finding | str]] = []
            if turn < len(own):
                readings = ahead.pop().result()
                if turn + 1 < len(own):  # read while the model computes
                    ahead.append(reader.submit(_read, model, own[turn + 1]))
                outcome = _score_batch(
                    model, text_features, own[turn], readings, save_path, save_maps, thresholds, visualize
                )
            for picture, finding in chain.from_iterable(ranks.gathered(outcome)):
                if isinstance(finding, str):
                    bad.append(finding)
                    if len(pictures) > 1:
                        bar.write(f"error: {finding}", file=sys.stderr)
                else:
                    rows.append(PredictionRow(str(picture.path), finding=finding))
                    bar.write(f"{picture.path}\t{finding.anomaly_score:.6f}", file=sys.stdout)
                bar.update()
    bar.close()
    if not ranks.is_main:
        return 0
    if not rows:
        raise InputError(bad[0] if len(bad) == 1 else f"None of the {len(bad)} images could be read.")
    write_predictions(rows, save_path / "predictions.csv")
    if bad:
        print(f"{len(bad)} of {len(pictures)} images could not be read.", file=sys.stderr)
    return 1 if bad else 0


Reading = tuple[Image.Image, Tensor] | str
"""A picture and what the model reads of it, (3, S, S); or a sentence that says why there is none."""


def _read(model: AnomalyCLIP, pictures: Sequence[Picture]) -> list[Reading]:
    readings: list[Reading] = []
    for picture in pictures:
        try:
            image = read_image(picture.path)
            readings.append((image, model.preprocess(image)))
        except InputError as error:
            readings.append(str(error))
    return readings


def _score_batch(
    model: AnomalyCLIP,
    text_features: Tensor,
    pictures: Sequence[Picture],
    readings: Sequence[Reading],
    save_path: Path,
    save_maps: bool,
    thresholds: Thresholds,
    visualize: str,
) -> list[tuple[Picture, Finding | str]]:
    """Per picture its score, its heat map being written, or the sentence about it."""
    tensors = [reading[1] for reading in readings if not isinstance(reading, str)]
    if not tensors:
        return [(picture, str(reading)) for picture, reading in zip(pictures, readings, strict=True)]
    prediction = model.score(torch.stack(tensors), text_features)
    scored = zip(prediction.anomaly_score.tolist(), prediction.anomaly_map.numpy(), strict=True)
    layers = len(model.settings.map_positions())
    outcome: list[tuple[Picture, Finding | str]] = []
    for picture, reading in zip(pictures, readings, strict=True):
        if isinstance(reading, str):
            outcome.append((picture, reading))
            continue
        score, anomaly_map = next(scored)
        values = values_at(anomaly_map, layers, reading[0].size)
        finding = judge(score, thresholds, values)
        if visualize in KINDS:
            drawn = KINDS[visualize](reading[0], finding, values, None, "")
            save_image_picture(drawn, save_path, picture.output)
        if save_maps:
            save_map(anomaly_map, save_path, picture.output)
        outcome.append((picture, finding))
    return outcome
