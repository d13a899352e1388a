"""What all commands share: how they end, argparse types, seeds and the log."""

import argparse
import errno
import logging
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from AnomalyCLIP_lib.errors import InputError

NAMED_FILES = 10
"""How many files a message names before it only counts."""


def run(main: Callable[[Sequence[str] | None], int]) -> int:
    """Call `main(None)` and turn bad input into one sentence on standard error and exit code 2.

    `main` takes the argument list (None: sys.argv) and returns the exit code. Code in other places
    calls `main(argv)` itself and sees `InputError`.
    """
    try:
        return main(None)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` for instance, has gone
        _drop_output()
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        print("error: the disk that this writes to is full; make room.", file=sys.stderr)
        return 2


def _drop_output() -> None:
    """What is still waiting for standard output cannot be written; Python would try it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch, and let cuDNN choose deterministic algorithms."""
    import numpy as np  # commands that draw nothing do not wait for these
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def open_log(path: Path, append: bool = False) -> logging.Logger:
    """A logger that writes to standard output and to the file `path`, anew or at its end; both without time stamps.

    Raises:
        InputError: the file cannot be written.
    """
    logger = logging.getLogger(f"anomalyclip.{path.resolve()}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    try:
        to_file = logging.FileHandler(path, mode="a" if append else "w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}; choose another --save_path.") from error
    for handler in (logging.StreamHandler(sys.stdout), to_file):
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    return logger


def silent_log() -> logging.Logger:
    """A logger that says nothing: for the processes of a run beside the main one."""
    logger = logging.getLogger("anomalyclip.silent")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 mask", "2 masks"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def named(paths: Sequence[Path]) -> str:
    """The first `NAMED_FILES` files, and how many more there are."""
    more = len(paths) - NAMED_FILES
    return ", ".join(map(str, paths[:NAMED_FILES])) + (f" and {more} more" if more > 0 else "")


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return value


def non_negative(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0")
    return value


def seed(text: str) -> int:
    """An argparse type: a seed that torch takes."""
    value = non_negative(text)
    if value >= 2**64:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number below 2 to the 64th")
    return value


def threshold(text: str) -> float | Literal["checkpoint"]:
    """An argparse type: "checkpoint" or a number from 0 to 1."""
    if text == "checkpoint":
        return "checkpoint"
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is neither checkpoint nor a number from 0 to 1")
    return value


def rate(text: str) -> float:
    """An argparse type: a number between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0 and below 1")
    return value


def mask_threshold(text: str) -> Literal["auto"] | int:
    """An argparse type: "auto" or a grey value; masks of 16 bits have values above 255."""
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither auto nor a grey value of at least 0")
    return int(text)
