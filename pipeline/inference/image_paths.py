"""Which files `--image` means: files, folders, globs and a list on standard input."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import list_images
from pipeline.flags import STANDARD_INPUT
from pipeline.reporting.image_files import output_names


@dataclass(frozen=True)
class ImageFile:
    """A file to score and the name of what is written for it, without extension and relative to the save path."""

    path: Path
    output: PurePath


def find_image_files(
    paths: Sequence[str], recursive: bool = True, save_path: str | Path | None = None
) -> list[ImageFile]:
    """The files behind the given paths, each once, sorted.

    Output names mirror the folders below a given folder or below the fixed part of a glob; those of paths listed on
    standard input mirror the path itself, so that they stay the same when the list grows. See
    `image_files.output_names` for names that are the same.

    Args:
        paths: files as they are; folders; globs (`**` too) that name no existing file, with what the shell would make
            of them; "-" for a list of all these on standard input, one a line.
        recursive: whether folders are searched with their subfolders.
        save_path: where the run writes; folders and globs above it do not find what an earlier run wrote there.

    Raises:
        InputError: an empty path, a folder without images, a glob that matches nothing, or a list without paths.
    """
    if not all(paths):
        raise InputError("--image was given an empty path; name a file or a folder.")
    own = None if save_path is None else os.path.realpath(save_path)
    found: list[tuple[Path, PurePath]] = []
    for given in dict.fromkeys(paths):
        if given == STANDARD_INPUT:
            found += [(path, _as_given(path)) for line in _listed_paths() for path, _ in _behind(line, recursive, own)]
        else:
            found += _behind(given, recursive, own)
    found = list({os.path.realpath(path): (path, name) for path, name in reversed(found)}.values())[::-1]
    found.sort(key=lambda item: item[0])
    outputs = output_names([name for _, name in found])
    return [ImageFile(path, output) for (path, _), output in zip(found, outputs, strict=True)]


def _listed_paths() -> list[str]:
    content = sys.stdin.buffer.read() if sys.stdin else b""  # None where it is closed
    if b"\0" in content:
        raise InputError("The list on standard input holds null bytes; write one path a line (find without -print0).")
    paths = [line for line in os.fsdecode(content).replace("\r\n", "\n").split("\n") if line.strip()]
    if not paths:
        raise InputError("The list on standard input is empty; write one path a line, or name images after --image.")
    return paths


def _behind(given: str, recursive: bool, own: str | None) -> list[tuple[Path, PurePath]]:
    """The files behind one path and their names below what is fixed in it."""
    path = Path(given)
    if os.path.isdir(path):
        found = [(image, PurePath(image.relative_to(path))) for image in _searched(path, path, recursive, own)]
        if not found:
            raise InputError(f"The folder {path} holds no images; give a folder with images or image files.")
        return found
    if glob.escape(given) == given or os.path.lexists(path):
        return [(path, PurePath(path.name))]  # a missing file is reported when its turn comes, like any other bad file
    root = _fixed_part(path)
    matches = [
        image
        for match in map(Path, sorted(glob.glob(given, recursive=True)))
        for image in _searched(match, root, recursive, own)
    ]
    if not matches:
        raise InputError(
            f"The glob {given} matches no images; check it, and quote it so that the shell leaves it as is."
        )
    return [(image, PurePath(image.relative_to(root))) for image in matches]


def _searched(path: Path, root: Path, recursive: bool, own: str | None) -> Iterator[Path]:
    """The file itself or the images in the folder, without those in the run's own folder unless `root` is there."""
    images = list_images(path, recursive) if os.path.isdir(path) else [path]
    if own is None or _is_below(os.path.join(os.path.realpath(root), ""), own):
        yield from images
    else:
        yield from (image for image in images if not _is_below(os.path.realpath(image), own))


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob up to the first that holds a wildcard."""
    fixed = Path(pattern.anchor)
    for part in pattern.relative_to(pattern.anchor).parts:
        if glob.escape(part) != part:
            break
        fixed /= part
    return fixed


def _as_given(path: Path) -> PurePath:
    """The path with all its folders, below any folder."""
    return PurePath(*(part for part in path.parts if part not in (path.anchor, "..")))
