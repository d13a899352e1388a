"""Thresholds from normal images: the quantile, its promise, and the flags."""

import csv
import json
import shutil
from argparse import Namespace

import numpy as np
import pytest
from conftest import save_picture

import test
from AnomalyCLIP_lib import InputError
from pipeline.flags import check_threshold_flags
from pipeline.inference.calibration import false_alarm_threshold, images_needed

# --- the quantile ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rate, needed", [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999), (0.3, 3), (1e-5, 99999)]
)
def test_how_many_images_a_rate_needs(rate, needed):
    assert images_needed(rate) == needed


@pytest.mark.parametrize("rate", [0.5, 0.3, 0.1, 0.05, 0.01])
@pytest.mark.parametrize("count", [1, 2, 9, 10, 99, 100, 257])
def test_the_threshold_lies_just_above_the_place_that_the_rate_allows(rate, count):
    values = np.random.default_rng(count).random(count, dtype=np.float32)
    reached = int((values >= np.float32(false_alarm_threshold(values.tolist(), rate))).sum())
    if count < images_needed(rate):
        assert reached == 0
    else:  # of count + 1 exchangeable values, the new one included, at most this share may reach it
        assert (reached + 1) / (count + 1) <= rate + 1e-12
        assert (reached + 2) / (count + 1) > rate


@pytest.mark.parametrize("draw", ["random", "exponential", "standard_cauchy"])
def test_new_normal_values_keep_to_the_rate_whatever_their_distribution(draw):
    rng = np.random.default_rng(5)
    alarms = []
    for _ in range(2000):
        values = getattr(rng, draw)(size=40)
        alarms.append(np.float32(values[-1]) >= false_alarm_threshold(values[:-1], 0.1))
    assert 0.075 < np.mean(alarms) <= 0.115  # 4 of 40 places; the standard error is 0.007


def test_the_largest_value_itself_does_not_reach_the_threshold():
    for largest in (np.float32(0.7), np.float32(1)):
        threshold = false_alarm_threshold([0.1, float(largest)], 0.01)
        assert largest < np.float32(threshold) == threshold < largest + 1e-6


def test_equal_values_raise_no_alarm():
    assert 0.25 < false_alarm_threshold([0.25] * 200, 0.05) < 0.2501


# --- the flags ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, complaint",
    [
        ((0.5, 0.5, ".", None), "--calibrate contradicts --threshold together with --pixel_threshold"),
        (("checkpoint", 0.5, ".", 0.1), "--calibrate contradicts"),
        ((None, None, None, 0.1), "--false_alarm_rate says nothing without --calibrate"),
        ((None, None, "nowhere", None), "--calibrate nowhere is not a folder"),
        ((None, None, __file__, None), r"--calibrate .*\.py is not a folder"),
    ],
)
def test_flags_that_contradict_each_other(flags, complaint):
    names = ("threshold", "pixel_threshold", "calibrate", "false_alarm_rate")
    with pytest.raises(InputError, match=complaint):
        check_threshold_flags(Namespace(**dict(zip(names, flags, strict=True))))


def test_contradictions_are_told_before_anything_is_loaded(tmp_path):
    with pytest.raises(InputError, match="says nothing without --calibrate"):
        test.main(["--image", str(tmp_path), "--false_alarm_rate", "0.1", "--checkpoint_path", "nowhere.pth"])


@pytest.mark.parametrize("save_path", [".", "below/results", ".."])
def test_pictures_of_the_run_stay_away_from_the_normal_images(tmp_path, save_path):
    (tmp_path / "photos" / "good").mkdir(parents=True)
    for flag in ("--image", "--data_path"):
        with pytest.raises(InputError, match=r"--save_path .*lie in one another"):
            folder = tmp_path / "photos" / "good"
            test.main([flag, "a.png", "--calibrate", str(folder), "--save_path", str(folder / save_path)])
    assert not any((tmp_path / "photos" / "good").iterdir())


@pytest.mark.parametrize("rate", ["0", "1", "-0.1", "1.5", "nan", "inf", "little"])
def test_rates_out_of_range(rate, capsys):
    with pytest.raises(SystemExit) as stopped:
        test.main(["--image", "a.png", "--calibrate", ".", "--false_alarm_rate", rate])
    assert stopped.value.code == 2 and "--false_alarm_rate" in capsys.readouterr().err


# --- whole runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    """Twelve normal pictures of several sizes, some in a subfolder."""
    folder = tmp_path_factory.mktemp("normals")
    rng = np.random.default_rng(3)
    for number in range(12):
        shape = (30 + number, 60 - number, 3)
        save_picture(
            rng.integers(60, 200, shape, dtype=np.uint8), folder / "deep"[: 4 * (number % 2)] / f"{number}.png"
        )
    return folder


@pytest.fixture
def flags(tiny_flags, tmp_path):
    return [*tiny_flags, "--checkpoint_path", "handwritten", "--save_path", str(tmp_path / "out")]


def rows(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_with_too_few_images_none_of_them_is_an_alarm(normals, flags, tmp_path, capsys):
    assert test.main(["--image", str(normals), "--calibrate", str(normals), *flags]) == 0
    told = capsys.readouterr().err
    assert "WARNING: a false alarm rate of 0.01 needs at least 99 normal images" in told and "gave 12" in told
    table = rows(tmp_path / "out")
    assert len(table) == 12
    for row in table:
        assert (row["decision"], row["area_fraction"], row["regions"]) == ("normal", "0.0", "[]")
        assert row["threshold_source"].startswith(
            f"calibrated on 12 normal images of {normals}, just above the largest"
        )
    thresholds = json.loads((tmp_path / "out" / "settings.json").read_text())
    for name, column in (("threshold", "anomaly_score"), ("pixel_threshold", "map_max")):
        assert 0 < thresholds[name] - max(float(row[column]) for row in table) < 1e-6


def test_with_enough_images_the_rate_decides(normals, flags, tmp_path, capsys):
    given = ["--calibrate", str(normals), "--false_alarm_rate", "0.25"]
    assert test.main(["--image", str(normals), *given, *flags]) == 0
    assert "WARNING" not in capsys.readouterr().err
    table = rows(tmp_path / "out")
    assert sum(row["decision"] == "anomalous" for row in table) == 2  # k = ceil(13 * 0.75) = 10 of 12
    assert sum(row["regions"] != "[]" for row in table) == 2
    assert table[0]["threshold_source"] == (
        f"calibrated on 12 normal images of {normals} for a false alarm rate of 0.25"
    )


@pytest.mark.parametrize("typed, other", [("--threshold", "pixel"), ("--pixel_threshold", "image score")])
def test_a_typed_threshold_wins_for_its_half(normals, flags, capsys, typed, other):
    image = str(normals / "0.png")
    assert test.main(["--image", image, "--calibrate", str(normals), typed, "0.125", *flags]) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("thresholds: "))
    halves = dict(zip(("image score", "pixel"), line.removeprefix("thresholds: ").split(", pixel "), strict=True))
    assert "calibrated on 12" in halves[other]
    assert f"0.125 ({typed}" in line and line.count("calibrated on") == 1


def test_bad_files_are_told_and_left_out(normals, flags, tmp_path, capsys):
    shutil.copytree(normals, tmp_path / "mixed")
    (tmp_path / "mixed" / "cut.png").write_bytes((normals / "0.png").read_bytes()[:70])
    assert test.main(["--image", str(normals / "0.png"), "--calibrate", str(tmp_path / "mixed"), *flags]) == 0
    told = capsys.readouterr().err
    assert told.count("left out of the calibration: ") == told.count("cut.png") == 1 and "calibrated on 12" in told


@pytest.mark.parametrize("content, complaint", [(None, "holds no images"), (b"no image", "none of its images")])
def test_a_folder_without_a_usable_image(normals, flags, tmp_path, content, complaint):
    (tmp_path / "empty").mkdir()
    if content is not None:
        (tmp_path / "empty" / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"--calibrate .*empty.*{complaint}"):
        test.main(["--image", str(normals / "0.png"), "--calibrate", str(tmp_path / "empty"), *flags])
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_dataset_is_tested_with_calibrated_thresholds(normals, flags, tiny_dataset, tmp_path, capsys):
    good = tiny_dataset / "plate" / "test" / "good"
    assert test.main(["--data_path", str(tiny_dataset), "--calibrate", str(good), *flags]) == 0
    assert "needs at least 99 normal images" in (tmp_path / "out" / "log.txt").read_text()
    thresholds = json.loads((tmp_path / "out" / "metrics.json").read_text())["settings"]["thresholds"]
    assert all("calibrated on 3 normal images" in threshold["source"] for threshold in thresholds.values())
    calibrated_on = [row for row in rows(tmp_path / "out") if row["image_path"].startswith("plate/test/good")]
    assert thresholds["image"]["value"] == pytest.approx(
        max(float(row["anomaly_score"]) for row in calibrated_on), abs=1e-5
    )
    assert thresholds["pixel"]["value"] == pytest.approx(max(float(row["map_max"]) for row in calibrated_on), abs=1e-5)
