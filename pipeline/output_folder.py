"""The folder that a run writes to: for one run at a time, and with a list of what the run wrote.

The next run into the folder removes exactly what is listed, once it can begin itself. What somebody else put there is
never replaced.
"""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from filelock import FileLock, Timeout

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write, make_folder, output_folder

PREDICTIONS = "predictions.csv"
METRICS, METRICS_TABLE = "metrics.json", "metrics.csv"
REPORT = "report.html"
LOG = "log.txt"
SETTINGS = "settings.json"
"""What the rows of predictions.csv were made with."""

STATE = ".run"
"""The hidden folder that holds what follows, and what a stopped run goes on from (run_record.py)."""
WRITTEN, LOCK, HOLDER = "written", "lock", "holder"


class OutputFolder:
    """A folder with the results of one run. Created where it does not exist.

    Args:
        path: the folder.
        flag: that named it, for messages.

    Raises:
        InputError: it cannot be created or written to.
    """

    def __init__(self, path: str | Path, flag: str = "--save_path"):
        self.path = output_folder(path, flag)
        self.flag, self.state = flag, self.path / STATE
        self._adding = threading.Lock()
        self._earlier, self._own = self._listed(), set[str]()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out of the folder while the block runs.

        Raises:
            InputError: another run is writing to it; the sentence says which.
        """
        holder = make_folder(self.state, self.flag) / HOLDER
        lock = FileLock(self.state / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            who = holder.read_text(encoding="utf-8") if holder.is_file() else "another process"
            raise InputError(
                f"{self.flag} {self.path} is in use by {who}; wait for it to end, or choose another folder."
            ) from None
        try:
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()
            if not (self.state / WRITTEN).exists():  # nothing was written: leave no trace
                shutil.rmtree(self.state, ignore_errors=True)

    def check(self, names: Iterable[str | PurePath]) -> None:
        """Raise InputError where one of these files is there and no run has written it."""
        for name in names:
            path = self.path / name
            if path.exists() and PurePath(name).as_posix() not in self._earlier:
                raise InputError(
                    f"{path} is there already and not the result of an earlier run; choose another {self.flag}."
                )

    def wrote(self, paths: Iterable[Path]) -> bool:
        """Whether an earlier run has written all of these files in the folder."""
        return all(path.relative_to(self.path).as_posix() in self._earlier for path in paths)

    def begin(self, inputs: Iterable[Path] = ()) -> None:
        """Remove what the earlier run wrote: from here on the folder is this run's.

        Args:
            inputs: files that this run reads; they are never removed, whatever the list says.
        """
        protected, root = {path.resolve() for path in inputs}, self.path.resolve()
        for name in self._earlier - self._own:
            path = (self.path / name).resolve()
            if root in path.parents and path not in protected and path.is_file():
                path.unlink()
                for folder in path.parents:  # those that it leaves empty
                    if folder == root or any(folder.iterdir()):
                        break
                    folder.rmdir()
        self._earlier = set()
        with atomic_write(make_folder(self.state, self.flag) / WRITTEN) as temporary:
            temporary.write_text("".join(json.dumps(name) + "\n" for name in self._own), encoding="utf-8")

    def claim(self, name: str | PurePath) -> Path:
        """The path of a file that this run is about to write; its folder is there.

        Args:
            name: relative to the folder.

        Raises:
            InputError: the folder cannot be written to.
        """
        name = PurePath(name).as_posix()
        with self._adding:
            if name not in self._own:
                self._own.add(name)
                make_folder((self.path / name).parent, self.flag)
                make_folder(self.state, self.flag)
                if name not in self._earlier:  # a run that goes on keeps the list
                    with open(self.state / WRITTEN, "a", encoding="utf-8") as file:
                        file.write(json.dumps(name) + "\n")  # a name may hold line breaks
        return self.path / name

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, atomically."""
        with atomic_write(self.claim(name)) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")

    def _listed(self) -> set[str]:
        try:
            lines = (self.state / WRITTEN).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return set()
        names = set()
        for line in lines:
            try:
                names.add(str(json.loads(line)))
            except ValueError:  # cut off by a kill, before its file was written
                continue
        return names
