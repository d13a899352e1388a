"""Small things that train.py and test.py share: seeds and logging."""

import logging
import random
import sys
from pathlib import Path

import numpy as np
import torch

from AnomalyCLIP_lib.errors import InputError


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch, and let cuDNN choose deterministic algorithms."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def open_log(folder: Path) -> logging.Logger:
    """A logger that writes to standard output and, anew, to `folder`/log.txt; both without time stamps.

    Raises:
        InputError: the file cannot be written.
    """
    logger = logging.getLogger(f"anomalyclip.{folder.resolve()}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for handler in list(logger.handlers):
        handler.close()
        logger.removeHandler(handler)
    try:
        to_file = logging.FileHandler(folder / "log.txt", mode="w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write {folder / 'log.txt'}: {error.strerror}; choose another --save_path.") from error
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
