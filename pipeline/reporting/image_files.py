"""The files that a run writes for an image, its picture and its anomaly map: their names, and writing them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write
from pipeline.output_folder import OutputFolder
from pipeline.reporting.pictures import PictureOptions, save_picture

PICTURE_SUFFIXES = (".png", ".jpg")
MAP_SUFFIX = ".npy"


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
        for path in (folder / name for name in possible_names(output)):
            if path.resolve() in own:
                raise InputError(f"--save_path {folder} would overwrite the image {path}; choose another folder.")
            if path.resolve().parent in folders:
                place = f"among the images in {path.parent}"
                raise InputError(f"--save_path {folder} would put {path.name} {place}; choose another folder.")


def possible_names(output: PurePath) -> list[PurePath]:
    """All files that may be written for an image, for a name from `output_names`."""
    return [output.with_name(output.name + suffix) for suffix in (*PICTURE_SUFFIXES, MAP_SUFFIX)]


def save_drawn(picture: np.ndarray, folder: OutputFolder, output: PurePath, options: PictureOptions) -> str:
    """Write an image's picture; the name of its file."""
    name = output.with_name(output.name + options.suffix(picture))
    save_picture(picture, folder.claim(name))
    return name.as_posix()


def map_name(output: PurePath) -> PurePath:
    """The file of an image's anomaly map, for a name from `output_names`."""
    return output.with_name(output.name + MAP_SUFFIX)


def save_map(anomaly_map: np.ndarray, path: Path) -> None:
    """Write the (S, S) float32 map itself as .npy, atomically."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, anomaly_map)


def _key(name: PurePath) -> str:
    """Some disks take names that differ in case for the same."""
    return str(name).casefold()
