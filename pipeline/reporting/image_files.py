"""The files that a run writes for an image, its picture and its anomaly map: their names, and writing them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write, make_folder
from pipeline.reporting.pictures import save_picture

PICTURE_SUFFIX = ".png"
MAP_SUFFIX = ".npy"
FAST = 2
"""Compression of PNG: four times as fast as the usual 6, and a tenth larger."""


def output_names(names: Sequence[PurePath]) -> list[PurePath]:
    """Names of outputs, without their ending, for images of these relative names; all different, on any disk.

    An image's own extension goes, but where two would be the same they keep it (1.jpg.png beside 1.png.png), and
    where that does not tell them apart either, they are numbered.
    """
    stems = Counter(_key(name.with_suffix("")) for name in names)
    chosen = [name if stems[_key(name.with_suffix(""))] > 1 else name.with_suffix("") for name in names]
    seen: Counter[str] = Counter()
    result = []
    for name in chosen:
        seen[_key(name)] += 1
        number = seen[_key(name)]
        result.append(name if number == 1 else name.with_name(f"{name.name}_{number}"))
    return result


def refuse_to_overwrite(images: Iterable[Path], folder: Path, outputs: Iterable[PurePath]) -> None:
    """Raise InputError where an output would replace one of the images themselves, or come to lie among them.

    Whoever searches a folder for images would find heat maps there.
    """
    own = {path.resolve() for path in images}
    folders = {path.parent for path in own}
    for output in outputs:
        for suffix in (PICTURE_SUFFIX, MAP_SUFFIX):
            path = _path(folder, output, suffix)
            if path.resolve() in own:
                raise InputError(f"--save_path {folder} would overwrite the image {path}; choose another folder.")
            if path.resolve().parent in folders:
                place = f"among the images in {path.parent}"
                raise InputError(f"--save_path {folder} would put {path.name} {place}; choose another folder.")


def save_image_picture(picture: np.ndarray, folder: Path, output: PurePath) -> None:
    """Write a picture of `pictures.KINDS` as PNG, atomically."""
    path = picture_path(folder, output)
    make_folder(path.parent, "--save_path")
    save_picture(picture, path, FAST)


def save_map(anomaly_map: np.ndarray, folder: Path, output: PurePath) -> None:
    """Write the (S, S) float32 map itself as .npy, atomically."""
    path = _path(folder, output, MAP_SUFFIX)
    make_folder(path.parent, "--save_path")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, anomaly_map)


def picture_path(folder: Path, output: PurePath) -> Path:
    """Where `save_image_picture` writes."""
    return _path(folder, output, PICTURE_SUFFIX)


def _path(folder: Path, output: PurePath, suffix: str) -> Path:
    return folder / output.with_name(output.name + suffix)


def _key(name: PurePath) -> str:
    """Some disks take names that differ in case for the same."""
    return str(name).casefold()
