"""Arrays that are computed once and kept on disk: the features of a dataset's images, and its masks.

An entry is a folder <kind>-<digest of its key>: one file per array, the rows of all images one after the other, and
manifest.json with the key, the format, and the size and checksum of each file. It is written under a hidden temporary
name and renamed when it is complete, so an entry that can be seen is whole. What remains of a killed run is removed by
the next one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import read_bytes

FORMAT_VERSION = 1
"""Raise it whenever other numbers come of the same key: another preprocessing, another layout of the files."""

SPARE = 1.1
"""How many times the size of an entry the disk must have free."""

MANIFEST = "manifest.json"
_LOCK = "lock"
_BLOCK = 4 * 2**20


class CacheUnusable(InputError):
    """The cache cannot be used, and the run could go on without it."""


@dataclass(frozen=True)
class RowType:
    """One array of an entry: its type and the shape of the row that belongs to one image."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class CacheEntry:
    """An entry that may or may not exist yet.

    Attributes:
        folder: the cache, with entries of many runs.
        kind: what it holds, the first part of its name.
        key: plain types that decide the values, as JSON stores them; equal keys share an entry.
        rows: number of images.
        arrays: per name what is stored.
    """

    folder: Path
    kind: str
    key: Mapping[str, Any]
    rows: int
    arrays: Mapping[str, RowType]

    @property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{self.kind}-{digest[:32]}"

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return self.rows * sum(array.row_bytes for array in self.arrays.values())

    def exists(self) -> bool:
        """Whether it is there and whole; its files are read once, block by block, to compare checksums.

        Raises:
            CacheUnusable: something is there under its name, but damaged, foreign or of another format.
        """
        if not self.path.exists():
            return False
        remedy = "delete it, or name another folder by --feature_cache"
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            if not isinstance(manifest, dict) or "format" not in manifest:
                raise CacheUnusable(f"{self.path} in the feature cache was not written by this program; {remedy}.")
            if manifest["format"] != FORMAT_VERSION:
                raise CacheUnusable(
                    f"The feature cache {self.path} has format {manifest['format']} of another version of this "
                    f"program, and this one reads {FORMAT_VERSION}; {remedy}."
                )
            if manifest.get("key") != self.key or set(manifest.get("files", ())) != set(self.arrays):
                raise CacheUnusable(f"The feature cache {self.path} belongs to other images or weights; {remedy}.")
            for name, array in self.arrays.items():
                size, checksum = _checksum(self.path / name)
                if size != self.rows * array.row_bytes or checksum != manifest["files"][name]:
                    raise CacheUnusable(f"{self.path / name} in the feature cache is damaged; {remedy}.")
        except OSError as error:
            raise CacheUnusable(f"The feature cache {self.path} cannot be read: {error}; {remedy}.") from error
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, CacheUnusable):
                raise
            raise CacheUnusable(f"{self.path / MANIFEST} in the feature cache is damaged; {remedy}.") from error
        return True

    def read(self, name: str, rows: Sequence[int]) -> np.ndarray:
        """Rows of one array, (len(rows), *shape), copied.

        Each row is mapped for itself and let go, so that the memory in use does not grow with what has been read.
        """
        array = self.arrays[name]
        result = np.empty((len(rows), *array.shape), array.dtype)
        try:
            for place, row in enumerate(rows):
                result[place] = np.memmap(
                    self.path / name, array.dtype, "r", offset=row * array.row_bytes, shape=array.shape
                )
        except (OSError, ValueError) as error:  # numpy's ValueError: the file has become shorter
            raise InputError(
                f"{self.path / name} in the feature cache was changed while it was in use; start the run again."
            ) from error
        return result

    @contextmanager
    def written(self) -> Iterator["CacheWriter"]:
        """Give a writer; once the block has ended well and all rows were written, the entry exists.

        Raises:
            CacheUnusable: the folder cannot be written to, or the disk has not the entry's size and 10 % free.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_remains()
            free = shutil.disk_usage(self.folder).free
            if free < SPARE * self.size:
                raise CacheUnusable(
                    f"The feature cache needs {readable_size(self.size)} and a tenth more, and the disk of "
                    f"{self.folder} has {readable_size(free)} free; name a folder on another one by --feature_cache."
                )
            temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{self.path.name}.", suffix=".partial"))
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            with (temporary / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                writer = CacheWriter(self, temporary)
                try:
                    yield writer
                    writer.finish()
                finally:
                    writer.close()
                (temporary / _LOCK).unlink()
                self._publish(temporary)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _publish(self, temporary: Path) -> None:
        mode = os.umask(0)
        os.umask(mode)
        temporary.chmod(0o777 & ~mode)  # mkdtemp makes folders that only their owner can enter
        try:
            temporary.rename(self.path)
        except OSError:
            if not self.path.exists():  # else another run was faster, and its entry is as good
                raise

    def _remove_remains(self) -> None:
        """Remove what killed runs left of this entry: temporary folders that nobody holds a lock on."""
        for remains in self.folder.glob(f".{self.path.name}.*.partial"):
            try:
                with (remains / _LOCK).open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(remains, ignore_errors=True)
            except OSError:
                continue  # another run is writing it at this moment

    def _unwritable(self, error: OSError) -> CacheUnusable:
        return CacheUnusable(
            f"The feature cache {self.folder} cannot be written to: {error.strerror or error}; name another folder "
            "by --feature_cache."
        )


class CacheWriter:
    """Writes the rows of an entry, in order. Made by `CacheEntry.written`."""

    def __init__(self, entry: CacheEntry, folder: Path):
        self.entry = entry
        self.folder = folder
        self.rows = 0
        self._checksums = dict.fromkeys(entry.arrays, 0)
        self._files: dict[str, IO[bytes]] = {}
        for name, array in entry.arrays.items():
            file = self._files[name] = (folder / name).open("wb")
            # Claim the space now: a disk that fills up is better found before hours of encoding than after them.
            if hasattr(os, "posix_fallocate") and entry.rows:
                os.posix_fallocate(file.fileno(), 0, entry.rows * array.row_bytes)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the next rows, (b, *shape) of every array of the entry.

        Raises:
            OSError: as any write; `CacheEntry.written` turns it into a sentence.
        """
        counts = {len(values) for values in arrays.values()}
        assert len(counts) == 1 and set(arrays) == set(self.entry.arrays)
        for name, values in arrays.items():
            row_type = self.entry.arrays[name]
            assert values.shape[1:] == row_type.shape, (name, values.shape, row_type)
            data = np.ascontiguousarray(values, row_type.dtype).data.cast("B")
            self._files[name].write(data)
            self._checksums[name] = zlib.crc32(data, self._checksums[name])
        self.rows += counts.pop()

    def finish(self) -> None:
        """Bring everything to the disk, the manifest last."""
        assert self.rows == self.entry.rows, (self.rows, self.entry.rows)
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        manifest = {"format": FORMAT_VERSION, "key": self.entry.key, "files": self._checksums}
        with (self.folder / MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=4, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        for file in self._files.values():
            try:
                file.close()
            except OSError:  # what a full disk did not take; the entry is given up anyway, or was flushed before
                continue


def content_digests(paths: Sequence[Path | None]) -> list[str | None]:
    """SHA-256 of each file's contents, None for None.

    Raises:
        InputError: a file cannot be read.
    """

    def digest(path: Path | None) -> str | None:
        return None if path is None else hashlib.sha256(read_bytes(path)).hexdigest()

    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest, paths))


def readable_size(size: float) -> str:
    """A number of bytes for people: 4.2 MB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def _checksum(path: Path) -> tuple[int, int]:
    """Size and CRC-32 of a file."""
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum
