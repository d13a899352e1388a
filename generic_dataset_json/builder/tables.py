"""Reading the tables in which some datasets, and users, keep labels and splits."""

import csv
from collections.abc import Sequence
from pathlib import Path

from AnomalyCLIP_lib.errors import InputError

_NORMAL = frozenset({"0", "normal", "good", "ok", "no", "false"})
_ANOMALOUS = frozenset({"1", "anomaly", "anomalous", "abnormal", "defect", "defective", "bad", "ko", "yes", "true"})


def read_table(path: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header, as dictionaries with small-letter names and trimmed values.

    Columns may be divided by commas, semicolons or tabs. A cell that a row lacks is "".

    Raises:
        InputError: the file is missing or not text, a required column is missing, or there are no rows.
    """
    lines = read_text(path).splitlines()
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    missing = [name for name in required if name not in names]
    if missing:
        raise InputError(
            f"{path} has no column {' or '.join(missing)}; its first line must name {', '.join(required)}."
        )
    rows = [
        {name: (row.get(name) or "").strip() for name in names}
        for row in csv.DictReader(lines[1:], fieldnames=names, delimiter=delimiter)
    ]
    if not rows:
        raise InputError(f"{path} has no rows below its header; add one for each image.")
    return rows


def read_text(path: Path) -> str:
    """A text file's contents.

    Raises:
        InputError: it is missing, not readable or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; it is needed for the labels.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; save it as such.") from error


def read_label(text: str, path: Path) -> int:
    """0 for normal, 1 for anomalous, from a table's cell.

    Raises:
        InputError: it is neither; the sentence names the file.
    """
    if text.lower() in _NORMAL:
        return 0
    if text.lower() in _ANOMALOUS:
        return 1
    raise InputError(f"{path} has the label {text!r}; use 0 or normal, 1 or anomalous.")


def read_split(text: str, path: Path) -> str:
    """ "train" or "test", from a table's cell.

    Raises:
        InputError: it is neither; the sentence names the file.
    """
    if text.lower() in ("train", "test"):
        return text.lower()
    raise InputError(f"{path} has the split {text!r}; use train or test.")
