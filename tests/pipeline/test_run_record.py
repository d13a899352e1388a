"""What a run leaves while it goes on, and going on from wherever it was stopped."""

import csv
import os
import pickle
import resource
import zlib
from pathlib import Path

import pytest

from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.decisions import Threshold, Thresholds, decide
from pipeline.distributed import ALONE
from pipeline.output_folder import OutputFolder
from pipeline.reporting.predictions import COLUMNS, PredictionRow, csv_lines
from pipeline.run_record import RunRecord

SETTINGS = {"threshold": 0.5, "sigma": 4.0, "features_list": [24]}
NAMES = (
    "a.png",
    'b, "quoted".png',
    "c\nbroken.png",
    "ä 图.png",
    "odd\rname.png",
    b"\xff.png".decode("utf-8", "surrogateescape"),
)


def row(name, error=""):
    thresholds = Thresholds(Threshold(0.5, "a test"), Threshold(0.5, "a test"))
    return PredictionRow(name, decision=None if error else decide(0.123456789, thresholds), error=error)


ROWS = [*map(row, NAMES), row("bad.png", "it is damaged, sadly")]


class Sum:
    """A part of a run: a number that grows with every image."""

    def __init__(self):
        self.value = 0

    def gather_state(self, ranks):
        return self.value

    def restore(self, state):
        self.value = state


def record_in(folder, resume=True, **changes):
    return RunRecord(OutputFolder(folder), SETTINGS | changes, ALONE, resume)


@pytest.fixture
def written(tmp_path):
    """A run that has added all rows, in two steps, and saved its part between them."""
    record, part = record_in(tmp_path, resume=False), Sum()
    with record.folder.held():
        assert record.restore({"sum": part}, exact=True) == []
        record.begin([], [])
        record.add(ROWS[:3])
        part.value = 3
        record.save()
        part.value = 7
        record.add(ROWS[3:])
    return tmp_path


def restored(folder, exact=False, **changes):
    part = Sum()
    return record_in(folder, **changes).restore({"sum": part}, exact), part.value


def test_the_table_has_all_rows(written):
    expected = csv_lines([COLUMNS, *(one.cells() for one in ROWS)])
    assert (written / "predictions.csv").read_bytes() == expected.encode()
    with (written / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert [line["image_path"] for line in csv.DictReader(file)][:5] == list(NAMES[:5])


def test_rows_and_parts_are_read_again(written):
    assert restored(written) == (ROWS, 3)
    assert restored(written, exact=True) == (ROWS[:3], 3)  # the others have not been counted in the part
    assert record_in(written, resume=False).restore({}, exact=False) == []


def test_wherever_a_killed_run_cuts_the_log_whole_records_are_kept(written):
    log = written / ".run" / "rows"
    whole = log.read_bytes()
    found = set()
    for cut in range(0, len(whole), 11):
        log.write_bytes(whole[:cut])
        rows, _ = restored(written)
        assert rows == ROWS[: len(rows)]
        found.add(len(rows))
    assert found == {0, 3}  # the last record is cut off until its last byte


@pytest.mark.parametrize("name", ["rows", "parts"])
def test_damage_is_noticed(written, name):
    path = written / ".run" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    assert restored(written) == ((ROWS[:3], 3) if name == "rows" else (ROWS, 0))


def test_a_part_that_was_never_saved_keeps_no_row(written):
    (written / ".run" / "parts").unlink()
    assert restored(written, exact=True) == ([], 0)


def test_nothing_but_rows_is_made_of_a_file(written):
    """A results folder of somebody else runs no code."""

    class Command:
        def __reduce__(self):
            return os.mkdir, (str(written / "made"),)

    data = pickle.dumps(Command())
    (written / ".run" / "rows").write_bytes(
        len(data).to_bytes(8, "little") + zlib.crc32(data).to_bytes(4, "little") + data
    )
    with pytest.raises(InputError, match=r"rows was not written by this program"):
        restored(written)
    assert not (written / "made").exists()


@pytest.mark.parametrize("changed", [{"threshold": 0.4}, {"features_list": [12, 24]}, {"new": True}])
def test_other_settings_are_refused(written, changed):
    [(name, value)] = changed.items()
    with pytest.raises(InputError, match="--continue is impossible") as refused:
        restored(written, **changed)
    assert f"{name} {SETTINGS.get(name)}" in str(refused.value) and f"has {value}" in str(refused.value)


def test_a_full_disk_leaves_the_rows_before(tmp_path):
    record = record_in(tmp_path, resume=False)
    with record.folder.held():
        record.begin([], [])
        record.add(ROWS[:2])
        before = (tmp_path / "predictions.csv").read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
        try:
            with pytest.raises(InputError, match=r"predictions\.csv: .*--continue"):
                record.add([ROWS[2]])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "predictions.csv").read_bytes() == before
    assert restored(tmp_path)[0] == ROWS[:2]


def test_formulas_are_no_formulas(tmp_path):
    names = ["=1+1.png", "+a", "-b", "@c", "\tx", "'=d", "-0.5", "plain", "'quoted'"]
    lines = list(csv.reader(csv_lines([[name] for name in names]).splitlines()))
    assert [line[0] for line in lines] == [
        "'=1+1.png",
        "'+a",
        "'-b",
        "'@c",
        "'\tx",
        "''=d",
        "-0.5",
        "plain",
        "'quoted'",
    ]


# --- the folder --------------------------------------------------------------------------------------------------


def test_two_runs_do_not_share_a_folder(tmp_path):
    folder = OutputFolder(tmp_path)
    with folder.held():
        with pytest.raises(InputError, match=rf"--save_path {tmp_path} is in use by process {os.getpid()}"):
            OutputFolder(tmp_path).held().__enter__()
        folder.claim("a.txt").write_text("")
    with OutputFolder(tmp_path).held():
        pass


def test_the_next_run_removes_what_is_listed_and_nothing_else(tmp_path):
    first = OutputFolder(tmp_path)
    with first.held():
        for name in ("results.csv", "deep/er/map.npy", "line\nbreak.png", "input.png"):
            first.claim(name).write_text("")
    (tmp_path / "own.txt").write_text("")
    with (tmp_path / ".run" / "written").open("a") as file:
        file.write(f'"../{tmp_path.name}_outside"\n"own_f')  # outside of the folder, and cut off
    outside = Path(f"{tmp_path}_outside")
    outside.write_text("")
    second = OutputFolder(tmp_path)
    with second.held():
        second.check(["results.csv"])
        with pytest.raises(InputError, match=r"own\.txt is there already"):
            second.check(["results.csv", "own.txt"])
        second.claim("log.txt").write_text("")
        second.begin([tmp_path / "input.png"])
    assert {path.name for path in tmp_path.iterdir()} == {".run", "own.txt", "log.txt", "input.png"}
    assert outside.exists()


def test_a_folder_that_nothing_was_written_to_keeps_no_trace(tmp_path):
    with OutputFolder(tmp_path / "out").held():
        pass
    assert list((tmp_path / "out").iterdir()) == []
