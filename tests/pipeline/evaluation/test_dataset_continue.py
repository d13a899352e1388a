"""Runs on datasets that are stopped or meet bad images: what was done is kept, and the same command goes on."""

import json
import re
import shutil

import pytest
from runs import evaluate_tiny

from AnomalyCLIP_lib import InputError
from pipeline import run_record
from pipeline.reporting.report.gallery import Gallery


@pytest.fixture
def run(trained, tiny_files, tiny_dataset, tmp_path):
    """Runs test.py on a copy of the dataset into a folder of this name; its exit code."""
    shutil.copytree(tiny_dataset, tmp_path / "data")

    def evaluate(name, *flags):
        return evaluate_tiny(trained, tiny_files, tmp_path / "data", tmp_path / name, "--batch_size", "2", *flags)

    return evaluate


def results(folder):
    """All that a run leaves, but for its command in the report."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("[!.]*.*")}
    for name in ("report.html", "log.txt"):
        text = files[name].decode().replace(str(folder), "FOLDER")
        files[name] = re.sub(r" --(continue|workers \d)", "", text).encode()
    return files


@pytest.mark.parametrize("stopped_at", [2, 5, 8, 11])
@pytest.mark.parametrize("flags", [[], ["--visualize_all", "--save_maps"], ["--workers", "3"]], ids=len)
def test_a_stopped_run_goes_on_and_ends_as_if_undisturbed(run, tmp_path, monkeypatch, stopped_at, flags):
    assert run("whole", *flags) == 0
    seen = []
    observe = Gallery.observe

    def observe_or_stop(self, scored):
        seen.append(scored.position)
        if len(seen) == stopped_at:
            raise KeyboardInterrupt
        observe(self, scored)

    with monkeypatch.context() as patch:
        patch.setattr(Gallery, "observe", observe_or_stop)
        patch.setattr(run_record, "SECONDS_BETWEEN_SAVES", -1)
        with pytest.raises(KeyboardInterrupt):
            run("stopped", *flags)
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    seen.clear()
    monkeypatch.setattr(Gallery, "observe", observe_or_stop)
    stopped_at = 100
    assert run("stopped", *flags, "--continue") == 0
    assert len(seen) <= 12
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_any_number_of_workers_gives_the_same_files(run, tmp_path):
    flags = ["--save_maps", "--visualize", "overlay"]
    for number in ("0", "1", "4"):
        assert run(number, *flags, "--workers", number) == 0
    assert results(tmp_path / "0") == results(tmp_path / "1") == results(tmp_path / "4")


def test_a_finished_run_is_not_scored_again(run, tmp_path, monkeypatch):
    assert run("out") == 0
    before = results(tmp_path / "out")
    monkeypatch.setattr("pipeline.scoring.score_batch", None)
    assert run("out", "--continue") == 0
    assert results(tmp_path / "out") == before
    with pytest.raises(InputError, match=r"--continue is impossible.*thresholds"):
        run("out", "--continue", "--threshold", "0.123")
    assert results(tmp_path / "out") == before


def test_an_image_that_cannot_be_read_becomes_a_row(run, tmp_path, capsys):
    assert run("whole") == 0
    bad = tmp_path / "data" / "plate/test/good/001.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:-200])
    assert run("out") == 1
    assert "good/001.png" in capsys.readouterr().err
    counts = json.loads((tmp_path / "out" / "metrics.json").read_text())["counts"]["classes"]["plate"]
    assert (counts["normal"], counts["anomalous"]) == (2, 3)
    assert "WARNING: 1 image could not be scored" in (tmp_path / "out" / "log.txt").read_text()
    with pytest.raises(InputError, match=r"good/001\.png"):
        run("strict", "--strict")
    bad.write_bytes(good)
    assert run("out", "--continue") == 0
    assert results(tmp_path / "out")["metrics.json"] == results(tmp_path / "whole")["metrics.json"]


def test_no_image_can_be_read(run, tmp_path):
    for path in (tmp_path / "data").rglob("test/*/*.png"):
        path.write_bytes(path.read_bytes()[:60])  # its header says what it would be
    with pytest.raises(InputError, match=r"000\.png"):
        run("out")
