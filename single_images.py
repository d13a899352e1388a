"""Scoring pictures that belong to no dataset: which files, what is written for each, and what happens to bad ones."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import torch
from PIL import Image
from tqdm import tqdm

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import list_images, read_image
from AnomalyCLIP_lib.model import AnomalyCLIP
from evaluation import save_map, write_predictions
from visualization import overlay, save_picture


@dataclass(frozen=True)
class Picture:
    """A file to score and the name of what is written for it, without extension and relative to the save path."""

    path: Path
    output: PurePath


def find_pictures(paths: Sequence[str]) -> list[Picture]:
    """The files behind the given paths: files as they are, folders searched with their subfolders, sorted.

    Output names mirror the folders below the given one. Where two would be the same, they keep their file
    extension, and where that does not tell them apart either, they are numbered.

    Raises:
        InputError: a folder without images.
    """
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
    without_extension = Counter(name.with_suffix("") for _, name in found)
    names = [name if without_extension[name.with_suffix("")] > 1 else name.with_suffix("") for _, name in found]
    seen: Counter[PurePath] = Counter()
    pictures = []
    for (path, _), name in zip(found, names, strict=True):
        seen[name] += 1
        pictures.append(Picture(path, name if seen[name] == 1 else name.with_name(f"{name.name}_{seen[name]}")))
    return pictures


def score_pictures(
    model: AnomalyCLIP, pictures: Sequence[Picture], save_path: Path, batch_size: int, save_maps: bool
) -> int:
    """Score pictures and print `path<TAB>score` a line; write predictions.csv, overlays and, if asked for, maps.

    A file that cannot be read is told on standard error and the others go on.

    Returns:
        the exit code: 0, or 1 where a file among several was bad.

    Raises:
        InputError: the only file is bad, or all of them are.
    """
    layers = len(model.settings.map_positions())
    with torch.no_grad():
        text_features = model.text_features()
    rows: list[tuple[str, str, str, float]] = []
    bad: list[str] = []
    bar = tqdm(total=len(pictures), desc="scoring", unit="image", leave=False, disable=len(pictures) == 1)
    for batch in _batches(pictures, batch_size, bad):
        tensors = torch.stack([model.preprocess(image) for _, image in batch])
        prediction = model.score(tensors, text_features)
        for (picture, image), score, anomaly_map in zip(
            batch, prediction.anomaly_score.tolist(), prediction.anomaly_map.numpy(), strict=True
        ):
            target = save_path / picture.output
            target.parent.mkdir(parents=True, exist_ok=True)
            save_picture(overlay(image, anomaly_map, layers), target.with_name(target.name + ".png"))
            if save_maps:
                save_map(anomaly_map, target.with_name(target.name + ".npy"))
            rows.append((str(picture.path), "", "", score))
            bar.write(f"{picture.path}\t{score:.6f}", file=sys.stdout)
        bar.update(len(batch))
    bar.close()
    if not rows:
        raise InputError(bad[0] if len(bad) == 1 else f"None of the {len(bad)} images could be read.")
    write_predictions(rows, save_path / "predictions.csv")
    if bad:
        print(f"{len(bad)} of {len(pictures)} images could not be read.", file=sys.stderr)
    return 1 if bad else 0


def _batches(
    pictures: Sequence[Picture], batch_size: int, bad: list[str]
) -> Iterator[list[tuple[Picture, Image.Image]]]:
    """Batches of pictures that could be read; sentences about the others are appended to `bad` and printed."""
    batch = []
    for picture in pictures:
        try:
            batch.append((picture, read_image(picture.path)))
        except InputError as error:
            bad.append(str(error))
            if len(pictures) > 1:
                print(f"error: {error}", file=sys.stderr)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
