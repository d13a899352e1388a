"""Arrays that are computed once and kept on disk: the features of images, and masks at the model's size.

A kind of array has a folder <kind>-<digest of what decides the values, but for the file's contents>, and there a file
<SHA-256 of the image's or mask's contents>.npz. So images are found again wherever they lie, a run that is killed goes
on where it was, and one that finds a damaged file computes that one anew. The archive's own checksums tell.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write, make_folder
from AnomalyCLIP_lib.images import read_bytes

FORMAT_VERSION = 2
"""Raise it whenever other numbers come of the same key: another preprocessing, another layout of the files."""

SPARE = 1.1
"""How many times the size of what is to be written the disk must have free."""


class CacheUnusable(InputError):
    """The cache cannot be used, and the run could go on without it."""


@dataclass(frozen=True)
class ArrayType:
    """The type and shape of one array of a file."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


class ArrayCache:
    """The files of one kind and key.

    Args:
        folder: the cache, with kinds and keys of many runs.
        kind: what it holds.
        key: plain types that decide the values, as JSON stores them.
        arrays: what each file holds, by name.
    """

    def __init__(self, folder: Path, kind: str, key: Mapping[str, Any], arrays: Mapping[str, ArrayType]):
        text = json.dumps({"format": FORMAT_VERSION, **key}, sort_keys=True)
        self.folder = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        self.arrays = arrays

    @property
    def file_size(self) -> int:
        """Bytes of one file's arrays."""
        return sum(array.size for array in self.arrays.values())

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those whose file is not there or damaged, each once, in their order; every file is read."""
        distinct = list(dict.fromkeys(digests))
        with ThreadPoolExecutor() as pool:
            return [
                digest for digest, found in zip(distinct, pool.map(self._is_whole, distinct), strict=True) if not found
            ]

    def make_room(self, files: int) -> None:
        """Create the folder for so many new files.

        Raises:
            CacheUnusable: the folder cannot be written to, or the disk has not their size and 10 % free.
        """
        needed = files * self.file_size
        try:
            make_folder(self.folder, "--feature_cache")
            free = shutil.disk_usage(self.folder).free
        except (InputError, OSError) as error:
            raise CacheUnusable(str(error)) from error
        if free < SPARE * needed:
            raise CacheUnusable(
                f"The feature cache needs {readable_size(needed)} and a tenth more, and the disk of "
                f"{self.folder.parent} has {readable_size(free)} free; name a folder on another one by --feature_cache."
            )

    def write(self, digest: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one file, atomically.

        Raises:
            CacheUnusable: the disk is full or the folder has gone.
        """
        assert {name: values.shape for name, values in arrays.items()} == {n: a.shape for n, a in self.arrays.items()}
        try:
            with atomic_write(self._path(digest)) as temporary:
                np.savez(temporary, **{name: values.astype(self.arrays[name].dtype) for name, values in arrays.items()})  # pyright: ignore[reportArgumentType] - allow_pickle is none of them
        except InputError as error:
            raise CacheUnusable(f"{error} Name another folder by --feature_cache.") from error

    def read(self, digest: str) -> dict[str, np.ndarray]:
        """The arrays of one file.

        Raises:
            InputError: it is damaged or gone; the next run computes it anew.
        """
        path = self._path(digest)
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in self.arrays}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} in the feature cache is damaged or gone; start the run again.") from error
        for name, array in self.arrays.items():
            if (arrays[name].dtype, arrays[name].shape) != (np.dtype(array.dtype), array.shape):
                raise InputError(f"{path} in the feature cache was not written by this program; delete it.")
        return arrays

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.npz"

    def _is_whole(self, digest: str) -> bool:
        try:
            self.read(digest)
        except InputError:
            return False
        return True


def content_digests(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file's contents.

    Raises:
        InputError: a file cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: hashlib.sha256(read_bytes(path)).hexdigest(), paths))


def readable_size(size: float) -> str:
    """A number of bytes for people: 4.2 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"
