"""predictions.csv as a file that grows, and that a stopped run goes on from."""

from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest

from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.decisions import Threshold, Thresholds, decide
from pipeline.reporting.predictions import COLUMNS, PredictionRow, csv_lines, write_predictions
from pipeline.reporting.predictions_file import PredictionsFile, read_earlier_run

SETTINGS = {"threshold": 0.5, "sigma": 4.0, "features_list": [24]}
NAMES = ("a.png", 'b, "quoted".png', "c\nbroken.png", "ä 图.png")


def row(name, error=""):
    thresholds = Thresholds(Threshold(0.5, "a test"), Threshold(0.5, "a test"))
    return PredictionRow(name, decision=None if error else decide(0.123456789, thresholds), error=error)


def pictures(*names):
    return [SimpleNamespace(path=Path(name)) for name in names]


def names_of(earlier):
    return [row[0] for row in earlier.rows]


@pytest.fixture
def written(tmp_path):
    """A file with four rows, the last with an error."""
    file = PredictionsFile(tmp_path, SETTINGS)
    file.add([row(NAMES[0]), row(NAMES[1])])
    file.add([row(NAMES[2])])
    file.add([row(NAMES[3], "it is damaged, sadly")])
    return file.path


def test_rows_added_one_by_one_are_the_file_written_at_once(written, tmp_path):
    write_predictions([*map(row, NAMES[:3]), row(NAMES[3], "it is damaged, sadly")], tmp_path / "whole.csv")
    assert written.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_what_was_written_is_read_again(written):
    earlier = read_earlier_run(written.parent)
    assert names_of(earlier) == list(NAMES) and earlier.settings == SETTINGS and earlier.has_errors
    assert [picture.path.name for picture in earlier.left(pictures(*NAMES, "new.png"))] == [NAMES[3], "new.png"]
    kept = earlier.without(pictures(NAMES[3], "new.png"))
    assert names_of(kept) == list(NAMES[:3]) and not kept.has_errors
    again = PredictionsFile(written.parent, SETTINGS, earlier.rows)
    assert names_of(read_earlier_run(again.path.parent)) == list(NAMES)


def test_a_path_is_the_same_however_it_is_written(written):
    earlier = read_earlier_run(written.parent)
    assert earlier.left(pictures(Path.cwd() / "a.png", "../" + Path.cwd().name + "/a.png")) == []
    assert len(earlier.left(pictures("elsewhere/a.png"))) == 1


def test_wherever_a_killed_run_cuts_the_file_whole_rows_are_kept(written):
    whole = written.read_bytes()
    rows = [csv_lines([COLUMNS]), *(csv_lines([cells]) for cells in read_earlier_run(written.parent).rows)]
    ends = list(accumulate(len(row.encode()) for row in rows))
    assert ends[-1] == len(whole)
    for cut in sorted({*range(0, len(whole), 7), *(end + shift for end in ends for shift in (-2, -1, 0))}):
        written.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends[1:])
        assert names_of(read_earlier_run(written.parent)) == list(NAMES[:complete]), cut


def test_nothing_before(tmp_path):
    for content in (None, b"", b"image_pa"):
        if content is not None:
            (tmp_path / "predictions.csv").write_bytes(content)
        earlier = read_earlier_run(tmp_path)
        earlier.check_settings(SETTINGS)
        assert earlier.rows == () and len(earlier.left(pictures("a.png"))) == 1


HEADER = ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    "content, complaint",
    [
        ("time,value\n1,2\n", "has not the columns"),
        (HEADER.replace("label", "class") + "a\n", "has not the columns"),
        (HEADER + "a.png,1,2\n", r"damaged \(row 1\)"),
        (HEADER + "a.png,,,0.5,,,,,,,\nb.png,,,much,,,,,,,\n", r"damaged \(row 2\)"),
        (HEADER + 'a.png,,,"0.5,,,,,,,\n' + "b.png,,,0.5,,,,,,,\n" * 50, "damaged.*quotation"),
        (HEADER + "a.png,cup,1,0.5,,,,,,,\n", "run on a dataset"),
        ("ÿ", "has not the columns"),
    ],
)
def test_files_that_are_not_ours(tmp_path, content, complaint):
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "predictions.csv").write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=rf"predictions\.csv .*{complaint}.*another --save_path"):
        read_earlier_run(tmp_path)
    assert (tmp_path / "predictions.csv").read_text(encoding="latin-1") == content


@pytest.mark.parametrize("content, complaint", [(None, "missing"), ("{", "cannot be read"), ("[]", "no settings")])
def test_rows_without_their_settings(written, content, complaint):
    settings = written.parent / "settings.json"
    settings.unlink()
    if content is not None:
        settings.write_text(content)
    with pytest.raises(InputError, match=rf"settings\.json .*{complaint}"):
        read_earlier_run(written.parent)


@pytest.mark.parametrize("changed", [{"threshold": 0.4}, {"features_list": [12, 24]}, {"new": True}])
def test_other_settings_are_refused(written, changed):
    earlier = read_earlier_run(written.parent)
    earlier.check_settings(dict(SETTINGS))
    [(name, value)] = changed.items()
    with pytest.raises(InputError) as refused:
        earlier.check_settings({**SETTINGS, **changed})
    assert f"{name} {SETTINGS.get(name)}" in str(refused.value) and f"has {value}" in str(refused.value)


def test_a_name_that_is_no_utf_8_keeps_the_file_readable(tmp_path):
    name = b"\xff.png".decode("utf-8", "surrogateescape")
    PredictionsFile(tmp_path, SETTINGS).add([row(name)])
    (tmp_path / "predictions.csv").read_text(encoding="utf-8")
    assert read_earlier_run(tmp_path).left(pictures(name)) == []


def test_a_carriage_return_in_a_name_keeps_the_file_readable(tmp_path):
    predictions = PredictionsFile(tmp_path, {"a": 1})
    predictions.add([PredictionRow("odd\rname.png", error="cannot be read")])
    [row] = read_earlier_run(tmp_path).rows
    assert row[0] == "odd\rname.png"


def test_a_full_disk_leaves_the_rows_before(written, monkeypatch):
    before = written.read_bytes()
    file = PredictionsFile(written.parent, SETTINGS, read_earlier_run(written.parent).rows)
    opened = Path.open

    class Full:
        """A file on a disk that takes ten more bytes."""

        def __init__(self, path, mode):
            self.file = opened(path, mode)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def seek(self, *place):
            return self.file.seek(*place)

        def write(self, data):
            self.file.write(data[:10])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda path, mode="r", **_: Full(path, mode))
    with pytest.raises(InputError, match=r"predictions\.csv: No space left on device.*--continue"):
        file.add([row("more.png")])
    monkeypatch.undo()
    assert written.read_bytes() == before


def test_a_file_that_went_away_is_told(written):
    file = PredictionsFile(written.parent, SETTINGS)
    written.unlink()
    with pytest.raises(InputError, match=r"Cannot write .*predictions\.csv"):
        file.add([row("a.png")])
