"""Writing files so that a killed run never leaves half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from AnomalyCLIP_lib.errors import InputError


@contextmanager
def atomic_write(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; rename it to `path` when the block ends well.

    If the block raises, the temporary file is removed and whatever stood at `path` before stays.

    Args:
        durable: wait until the disk has it, so that it outlives a power cut, too.

    Raises:
        InputError: the folder does not exist or cannot be written to, or the disk is full.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}; choose a folder that can be written to.") from error
    temporary = Path(name)
    try:
        yield temporary
        mode = 0o666 & ~_umask()  # mkstemp makes files that only their owner can read
        temporary.chmod(mode)
        if durable:
            _sync(temporary)
        temporary.replace(path)
        if durable and os.name == "posix":
            _sync(path.parent)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def output_folder(path: str | Path, flag: str) -> Path:
    """Create the folder `path` and check that files can be written to it.

    Raises:
        InputError: it cannot be created or written to; the message names `flag`.
    """
    path = make_folder(path, flag)
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise _unusable(path, flag, error) from error
    return path


def make_folder(path: str | Path, flag: str) -> Path:
    """Create the folder `path` where it does not exist.

    Raises:
        InputError: it cannot be created, or a file has its name; the message names `flag`.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, flag, error) from error
    return path


def _unusable(path: Path, flag: str, error: OSError) -> InputError:
    return InputError(f"{flag} {path} cannot be written to: {error.strerror or error}; choose another folder.")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
