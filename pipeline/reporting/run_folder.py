"""The result files of a run. A folder holds those of one run: a later one, of whichever kind, replaces them."""

from pathlib import Path

from AnomalyCLIP_lib.errors import InputError

PREDICTIONS = "predictions.csv"
SETTINGS = "settings.json"
"""Beside the predictions of single images: what they were made with."""
METRICS, METRICS_TABLE = "metrics.json", "metrics.csv"
REPORT = "report.html"
LOG = "log.txt"
FIRST_COLUMN = b"image_path,"


def refuse_foreign(folder: Path) -> None:
    """Raise InputError where a predictions.csv is in the way that no run has written."""
    path = folder / PREDICTIONS
    if path.is_file() and path.stat().st_size and not path.read_bytes().startswith(FIRST_COLUMN):
        raise InputError(f"{path} is there already and not of a run of test.py; choose another --save_path.")


def remove_results(folder: Path) -> None:
    """Remove what an earlier run left, so that it is not taken for the result of a run that ends early.

    Pictures stay: those of a dataset are listed in pictures.csv, and the next run on a dataset clears them away.
    """
    for name in (PREDICTIONS, SETTINGS, METRICS, METRICS_TABLE, REPORT, LOG):
        (folder / name).unlink(missing_ok=True)
