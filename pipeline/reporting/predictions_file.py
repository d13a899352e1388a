"""predictions.csv as a file that grows while a run scores images, and that a stopped run goes on from."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write
from pipeline.reporting.predictions import COLUMNS, PredictionRow, csv_lines, printable
from pipeline.reporting.run_folder import PREDICTIONS, SETTINGS

MOST_LINES = 10  # of a row; only line breaks in a file's name make it more than one
IMAGE_PATH, LABEL, SCORE, ERROR = (COLUMNS.index(name) for name in ("image_path", "label", "anomaly_score", "error"))


class HasPath(Protocol):
    """Something with a file, a picture for instance."""

    @property
    def path(self) -> Path: ...


AnyPicture = TypeVar("AnyPicture", bound=HasPath)


@dataclass(frozen=True)
class EarlierRun:
    """What a run before this one left in the folder.

    Attributes:
        rows: those of its predictions.csv, as cells.
        settings: what they were made with; empty where there are no rows.
        source: the file, for messages.
    """

    rows: tuple[tuple[str, ...], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: Path = Path(PREDICTIONS)

    @property
    def has_errors(self) -> bool:
        return any(row[ERROR] for row in self.rows)

    def left(self, pictures: Sequence[AnyPicture]) -> list[AnyPicture]:
        """Those that have no row, or only one with an error."""
        done = {_key(row[IMAGE_PATH]) for row in self.rows if not row[ERROR]}
        return [picture for picture in pictures if _key(printable(str(picture.path))) not in done]

    def without(self, pictures: Iterable[HasPath]) -> "EarlierRun":
        """What stays of it when these pictures are scored again."""
        again = {_key(printable(str(picture.path))) for picture in pictures}
        return replace(self, rows=tuple(row for row in self.rows if _key(row[IMAGE_PATH]) not in again))

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise InputError where a run with these settings would give rows that mean something else."""
        if not self.rows:
            return
        for name in {**self.settings, **settings}:
            before, now = self.settings.get(name), settings.get(name)
            if before != now:
                raise InputError(
                    f"--continue is impossible: the rows in {self.source} were made with {name} {before}, and this "
                    f"run has {now}; use the same, or another --save_path."
                )


def read_earlier_run(folder: Path) -> EarlierRun:
    """What a run left in the folder; no rows where there was none. A last row that was cut off is dropped.

    Raises:
        InputError: the files cannot be read, or are not those of a run on single images.
    """
    path = folder / PREDICTIONS
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return EarlierRun(source=path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its permissions.") from error
    rows = _rows(content, path)
    return EarlierRun(rows, _settings(folder / SETTINGS) if rows else {}, path)


class PredictionsFile:
    """predictions.csv, to which rows are added as they come, and settings.json beside it.

    Args:
        folder: where they go; files of an earlier run are replaced.
        settings: what the rows are made with, as plain types.
        rows: that the file starts with, as cells.

    Raises:
        InputError: they cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], rows: Iterable[Sequence[str]] = ()):
        self.path = folder / PREDICTIONS
        _write(self.path, csv_lines([COLUMNS, *rows]))
        _write(folder / SETTINGS, json.dumps(settings, indent=4, ensure_ascii=False) + "\n")

    def add(self, rows: Iterable[PredictionRow]) -> None:
        """Append rows; from here on they outlive the run.

        Raises:
            InputError: the disk is full, or the file has gone; all rows added before are still there.
        """
        size = None
        try:
            with self.path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.write(csv_lines(row.cells() for row in rows).encode())
        except OSError as error:
            if size is not None:
                os.truncate(self.path, size)
            raise InputError(
                f"Cannot write {self.path}: {error.strerror}; make room and go on with --continue."
            ) from error


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def _key(path: str) -> str:
    """The same for all ways to write a path from this folder."""
    return os.path.abspath(path)


def _rows(content: bytes, path: Path) -> tuple[tuple[str, ...], ...]:
    header = csv_lines([COLUMNS]).encode()
    if not content.startswith(header):
        if header.startswith(content):  # cut off within the first line
            return ()
        raise InputError(f"{path} has not the columns of this version's predictions.csv; use another --save_path.")
    content = _without_cut_row(content, path)
    try:
        rows = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))[1:]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); use another --save_path.") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != len(COLUMNS) or not (row[ERROR] or _is_number(row[SCORE])):
            raise InputError(f"{path} is damaged (row {number}); use another --save_path.")
        if row[LABEL]:
            raise InputError(f"{path} is of a run on a dataset, which cannot be continued; use another --save_path.")
    return tuple(map(tuple, rows))


def _without_cut_row(content: bytes, path: Path) -> bytes:
    """Up to the last line break outside of quotes: a run that was killed may have left half a row after it."""
    for _ in range(MOST_LINES):
        if content.endswith(b"\n") and content.count(b'"') % 2 == 0:
            return content
        content = content[: content.rfind(b"\n", 0, len(content) - 1) + 1]
    raise InputError(f"{path} is damaged (a quotation mark has no partner); use another --save_path.")


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing, so nobody knows which model made the rows of {PREDICTIONS} beside it; use another "
            "--save_path."
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); use another --save_path.") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} holds no settings; use another --save_path.")
    return settings


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
