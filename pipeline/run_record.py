"""What a run has found so far: rows in predictions.csv as they come, and what a stopped run goes on from.

The rows are appended to a log beside the table, in records with a checksum, and every half minute the state of the
run's parts (counts, thumbnails) is written whole. A run that is killed loses what came after that; the rest is read
again, and only objects of the types below are made of it, whatever the files hold.
"""

import io
import json
import pickle
import struct
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write
from pipeline.distributed import Ranks
from pipeline.output_folder import PREDICTIONS, SETTINGS, OutputFolder
from pipeline.reporting.predictions import COLUMNS, PredictionRow, csv_lines

ROWS, PARTS = "rows", "parts"
SECONDS_BETWEEN_SAVES = 30
_HEADER = struct.Struct("<QI")  # length and CRC-32 of a record
_TYPES = {
    "AnomalyCLIP_lib.decisions": {"Decision", "Threshold", "Thresholds"},
    "pipeline.reporting.predictions": {"PredictionRow"},
    "pipeline.reporting.report.gallery": {"Card"},
    "pipeline.reporting.report.thumbnails": {"Thumbnails"},
    "pipeline.evaluation.bootstrap": {"ImageCounts", "PixelCounts"},
    "pipeline.evaluation.pixel_histogram": {"PixelCurve", "PixelHistogram"},
    "pipeline.evaluation.streaming_metrics": {"ClassMetrics"},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
}


class Part(Protocol):
    """Something of a run that adds up image by image and is not in its rows."""

    def gather_state(self, ranks: Ranks) -> Any:
        """Collective: on the main process what all processes have so far, to be pickled."""

    def restore(self, state: Any) -> None:
        """Go on from a state; called on the main process."""

    def restart_class(self, name: str) -> None:
        """Forget all images of a class, which are scored again; called on the main process after `restore`."""


class RunRecord:
    """The rows of a run on the main process; the other processes have none and only take part in saving.

    Args:
        folder: of the run.
        settings: all that rows depend on, as plain types; a run that goes on must have the same.
        resume: go on from what the folder holds, if anything.

    Attributes:
        rows: those found before and in this run.

    Raises:
        InputError: the run cannot go on: it had other settings, or what it left is not this program's.
    """

    def __init__(self, folder: OutputFolder, settings: Mapping[str, Any], ranks: Ranks, resume: bool = False):
        self.folder, self.settings, self.ranks, self.resume = folder, settings, ranks, resume
        self.rows: list[PredictionRow] = []
        self._parts: Mapping[str, Part] = {}
        self._saved = time.monotonic()
        if resume and ranks.is_main and (records := _records(folder.state / ROWS)):
            self._check_settings(records[0])
            self.rows = [row for record in records[1:] for row in record]

    def restore(self, parts: Mapping[str, Part], exact: bool) -> list[PredictionRow]:
        """Take up what an earlier run left, where going on from it was asked for.

        Args:
            parts: of the run, by name; they take up their state.
            exact: leave out rows that the saved state of the parts does not cover.

        Returns:
            the rows of the earlier run, on all processes.

        Raises:
            InputError: what it left is not this program's.
        """
        self._parts = parts
        if self.rows:
            covered, states = next(iter(_records(self.folder.state / PARTS)), (0, {}))
            for name in parts.keys() & states:
                parts[name].restore(states[name])
            self.rows = self.rows[:covered] if exact else self.rows
        return self.ranks.broadcast(self.rows)

    def begin(self, kept: Sequence[PredictionRow], inputs: Iterable[Path]) -> None:
        """Take over the folder, before any process writes to it; without rows, an earlier run's files go. Collective.

        Args:
            kept: of the earlier run's rows.
            inputs: files that are never removed, see `OutputFolder.begin`.
        """
        self.rows = list(kept)
        if self.ranks.is_main:
            if not kept:
                self.folder.begin(inputs)
                (self.folder.state / PARTS).unlink(missing_ok=True)
            self.folder.write_text(SETTINGS, json.dumps(self.settings, indent=4, ensure_ascii=False) + "\n")
            self.folder.write_text(PREDICTIONS, csv_lines([COLUMNS, *(row.cells() for row in kept)]))
            with atomic_write(self.folder.state / ROWS) as temporary:
                temporary.write_bytes(_record(dict(self.settings)) + (_record(self.rows) if kept else b""))
        self.ranks.broadcast(None)

    def add(self, rows: Sequence[PredictionRow]) -> None:
        """Append rows. Collective: from time to time the parts are saved.

        Raises:
            InputError: the disk is full; all rows added before are still there.
        """
        if rows:  # on the main process
            self.rows += rows
            self._append(self.folder.path / PREDICTIONS, csv_lines(row.cells() for row in rows).encode())
            self._append(self.folder.state / ROWS, _record(list(rows)))
        if self.ranks.broadcast(time.monotonic() - self._saved > SECONDS_BETWEEN_SAVES):
            self.save()

    def save(self) -> None:
        """Write the state of the parts. Collective."""
        states = {name: part.gather_state(self.ranks) for name, part in self._parts.items()}
        if self.ranks.is_main:
            with atomic_write(self.folder.state / PARTS) as temporary:
                temporary.write_bytes(_record((len(self.rows), states)))
        self._saved = time.monotonic()

    def _append(self, path: Path, data: bytes) -> None:
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write(data)
        except OSError as error:
            if path.exists():
                with path.open("r+b") as file:
                    file.truncate(size)
            raise InputError(f"Cannot write {path}: {error.strerror}; make room and go on with --continue.") from error

    def _check_settings(self, before: Mapping[str, Any]) -> None:
        for name in {**before, **self.settings}:
            if before.get(name) != self.settings.get(name):
                raise InputError(
                    f"--continue is impossible: the rows in {self.folder.path / PREDICTIONS} were made with {name} "
                    f"{before.get(name)}, and this run has {self.settings.get(name)}; use the same, or another "
                    "--save_path."
                )


def _record(content: Any) -> bytes:
    data = pickle.dumps(content, protocol=5)
    return _HEADER.pack(len(data), zlib.crc32(data)) + data


def _records(path: Path) -> list[Any]:
    """The whole records of a file, up to the first that is cut off or damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    found, place = [], 0
    while place + _HEADER.size <= len(content):
        length, checksum = _HEADER.unpack_from(content, place)
        data = content[place + _HEADER.size : place + _HEADER.size + length]
        if len(data) < length or zlib.crc32(data) != checksum:
            break
        try:
            found.append(_Unpickler(io.BytesIO(data)).load())
        except Exception as error:  # unpickling raises whatever its content asks for
            raise InputError(f"{path} was not written by this program; use another --save_path.") from error
        place += _HEADER.size + length
    return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _TYPES.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")
