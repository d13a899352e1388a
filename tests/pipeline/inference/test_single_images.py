"""Runs over many single images: rows as they come, bad files, and going on after a stop."""

import csv
import io
import json
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import save_picture

import test
from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.scoring import anomaly_maps
from pipeline.inference import single_images

NAMES = ("a.png", "b.png", "c.png", "d.png", "deep/e.png")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(1)
    for name in NAMES:
        save_picture(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8), tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def score(photos, tiny_flags, tmp_path):
    """Run test.py on these paths (the photos, where there are none) in batches of two; its exit code."""

    def run(*given, flags=()):
        paths = [str(path) for path in given] or [str(photos)]
        model = [*tiny_flags, "--checkpoint_path", "handwritten", "--batch_size", "2"]
        return test.main(["--image", *paths, *model, "--save_path", str(tmp_path / "out"), *flags])

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def rows(out):
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def paths(out):
    return [row["image_path"] for row in rows(out)]


def stop_at(monkeypatch, call, error):
    """Let the run end at a heat map: the files of the first batches are written by then."""
    calls = []
    save = single_images.save_drawn

    def save_or_stop(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise error
        return save(*arguments)

    monkeypatch.setattr("pipeline.inference.single_images.save_drawn", save_or_stop)


def list_on_standard_input(monkeypatch, *lines):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO("\n".join(map(str, lines)).encode())))


# --- what a run says and writes ----------------------------------------------------------------------------------


def test_a_line_and_a_row_for_every_picture(photos, score, out, capsys):
    assert score() == 0
    captured = capsys.readouterr()
    lines = [line.split("\t") for line in captured.out.splitlines()]
    table = rows(out)
    assert [line[0] for line in lines] == [str(photos / name) for name in NAMES] == paths(out)
    for (_, printed), row in zip(lines, table, strict=True):
        assert float(printed) == pytest.approx(float(row["anomaly_score"]), abs=1e-6)
        assert row["decision"] == ("anomalous" if float(row["anomaly_score"]) >= 0.5 else "normal")
        assert row["error"] == "" and 0 <= float(row["map_max"]) <= 1
    anomalous = sum(row["decision"] == "anomalous" for row in table)
    assert f"called anomalous: {anomalous} of {len(NAMES)}" in captured.err
    settings = json.loads((out / "settings.json").read_text())
    assert (settings["threshold"], settings["backbone"], settings["method"]) == (0.5, "tiny", "anomalyclip")


def test_subfolders_can_be_left_out(photos, score, out):
    assert score(photos, flags=["--no_recursive"]) == 0
    assert paths(out) == [str(photos / name) for name in NAMES[:4]]


def test_a_list_on_standard_input_gives_the_same_scores(photos, score, out, monkeypatch):
    assert score() == 0
    expected = {row["image_path"]: row["anomaly_score"] for row in rows(out)}
    list_on_standard_input(monkeypatch, photos / "deep", "", photos / "[a-d].png")
    assert score("-") == 0
    assert {row["image_path"]: row["anomaly_score"] for row in rows(out)} == expected
    assert (out / str(photos).lstrip("/") / "deep" / "e.png").is_file()


# --- bad files ---------------------------------------------------------------------------------------------------


def unpacks_to_far_too_much():
    """The beginning of a PNG file of 60000 x 60000 pixels."""
    chunks = (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)), (b"IDAT", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_bad_files_become_rows(photos, score, out, capsys):
    (photos / "a.png").write_bytes(b"")
    (photos / "c.png").write_bytes((photos / "b.png").read_bytes()[:60])
    (photos / "d.png").write_bytes(unpacks_to_far_too_much())
    assert score(photos, photos / "gone.png") == 1
    captured = capsys.readouterr()
    complaints = {"a.png": "is empty", "c.png": "damaged", "d.png": "far more pixels", "gone.png": "does not exist"}
    table = {row["image_path"]: row for row in rows(out)}
    assert list(table) == sorted(table) and len(table) == 6
    for name, complaint in complaints.items():
        row = table[str(photos / name)]
        assert complaint in row["error"]
        assert not any(row[column] for column in row if column not in ("image_path", "error"))
        assert captured.err.splitlines().count(f"error: {row['error']}") == 1
    assert "4 of 6 images could not be read" in captured.err and captured.out.count("\n") == 2


def test_a_file_that_vanishes_in_the_middle_becomes_a_row(photos, score, out, monkeypatch):
    read = single_images.read_image

    def read_and_remove(path):
        (photos / "d.png").unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr("pipeline.inference.single_images.read_image", read_and_remove)
    assert score() == 1
    assert [row["image_path"] for row in rows(out) if "does not exist" in row["error"]] == [str(photos / "d.png")]


def test_scores_that_are_not_finite_become_rows(photos, score, out, monkeypatch):
    def first_map_spoilt(*arguments):
        maps = anomaly_maps(*arguments)
        maps[0, 3, 3] = float("nan")
        return maps

    monkeypatch.setattr("AnomalyCLIP_lib.clip_detector.anomaly_maps", first_map_spoilt)
    assert score() == 1
    assert ["not finite" in row["error"] for row in rows(out)] == [True, False, True, False, True]


def test_all_of_several_bad(photos, score, out, tmp_path):
    assert score(tmp_path / "one.png", tmp_path / "two.png") == 1
    assert ["does not exist" in row["error"] for row in rows(out)] == [True, True]


@pytest.mark.parametrize("flags", [[], ["--continue"]])
def test_a_lone_bad_file_writes_nothing(photos, score, out, flags):
    (photos / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png is empty"):
        score(photos / "a.png", flags=flags)
    assert not out.exists()


def test_a_lone_bad_file_leaves_an_earlier_run_as_it_is(photos, score, out):
    assert score() == 0
    before = (out / "predictions.csv").read_bytes()
    (photos / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png is empty"):
        score(photos / "a.png")
    assert (out / "predictions.csv").read_bytes() == before


# --- stopped runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("Cannot write x.png: No space left on device.")])
def test_a_run_that_ends_early_keeps_its_rows_and_can_go_on(photos, score, out, monkeypatch, capsys, error):
    assert score() == 0
    whole = (out / "predictions.csv").read_bytes()
    with monkeypatch.context() as patch:
        stop_at(patch, 4, error)
        with pytest.raises(type(error)):
            score()
    assert paths(out) == [str(photos / name) for name in NAMES[:2]]
    capsys.readouterr()
    assert score(flags=["--continue"]) == 0
    captured = capsys.readouterr()
    assert "2 of 5 images were done before" in captured.err and captured.out.count("\n") == 3
    assert (out / "predictions.csv").read_bytes() == whole


def test_bad_files_are_tried_again(photos, score, out, capsys):
    good = (photos / "b.png").read_bytes()
    for name in ("b.png", "c.png"):
        (photos / name).write_bytes(good[:60])
    assert score() == 1
    (photos / "b.png").write_bytes(good)
    assert score(flags=["--continue"]) == 1
    assert "1 of 2 images could not be read" in capsys.readouterr().err
    assert sorted(paths(out)) == [str(photos / name) for name in NAMES]
    assert [row["image_path"] for row in rows(out) if row["error"]] == [str(photos / "c.png")]
    assert score(photos / "b.png", photos / "a.png", flags=["--continue"]) == 1  # the bad row is still there
    assert "nothing is left to do" in capsys.readouterr().err
    (photos / "c.png").write_bytes(good)
    assert score(flags=["--continue"]) == 0
    assert not any(row["error"] for row in rows(out)) and len(paths(out)) == 5


def test_nothing_left_to_do(score, out, capsys):
    assert score() == 0
    before = (out / "predictions.csv").read_bytes()
    capsys.readouterr()
    with pytest.raises(InputError, match="threshold"):  # other settings are refused all the same
        score(flags=["--continue", "--threshold", "0.123"])
    assert score(flags=["--continue"]) == 0
    captured = capsys.readouterr()
    assert "5 of 5 images were done before" in captured.err and "nothing is left" in captured.err
    assert captured.out == "" and (out / "predictions.csv").read_bytes() == before


def test_going_on_with_more_pictures_keeps_the_rows_of_others(photos, score, out, monkeypatch):
    list_on_standard_input(monkeypatch, photos / "c.png", photos / "a.png")
    assert score("-", flags=["--continue"]) == 0
    list_on_standard_input(monkeypatch, photos / "b.png", photos / "a.png")
    assert score("-", flags=["--continue"]) == 0
    assert paths(out) == [str(photos / name) for name in ("a.png", "c.png", "b.png")]


@pytest.mark.parametrize(
    "flags, complaint",
    [
        (["--threshold", "0.25"], "threshold 0.5, and this run has 0.25"),
        (["--pixel_threshold", "0.75"], "pixel_threshold 0.5, and this run has 0.75"),
        (["--sigma", "2"], "sigma 4.0, and this run has 2.0"),
    ],
)
def test_going_on_with_other_settings_is_refused(photos, score, out, flags, complaint):
    assert score(photos / "a.png") == 0
    before = (out / "predictions.csv").read_bytes()
    with pytest.raises(InputError, match=rf"--continue is impossible: .*predictions\.csv.* {complaint}"):
        score(flags=["--continue", *flags])
    assert (out / "predictions.csv").read_bytes() == before
    assert score(flags=flags) == 0  # anew


def test_a_foreign_file_is_left_as_it_is(score, out):
    out.mkdir()
    (out / "predictions.csv").write_text("my,own\n1,2\n")
    with pytest.raises(InputError, match=r"predictions\.csv is there already"):
        score(flags=["--continue"])
    assert (out / "predictions.csv").read_text() == "my,own\n1,2\n"


@pytest.mark.parametrize("flag, path", [("--no_recursive", "--data_path"), ("--strict", "--image")])
def test_flags_of_the_other_kind_of_run(tiny_dataset, flag, path):
    with pytest.raises(InputError, match=flag):
        test.main([path, str(tiny_dataset), flag])
