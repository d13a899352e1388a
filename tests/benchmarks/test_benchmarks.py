"""Every part of `python -m benchmarks` at tiny size; the figures are not looked at, but what they are compared with."""

import json
import re

import pytest
from conftest import TINY_CONFIG

import benchmarks.scaling
from AnomalyCLIP_lib import InputError
from benchmarks.__main__ import main
from benchmarks.drawn_dataset import draw_dataset
from benchmarks.scaling import run_command
from dataset import read_index, read_mask
from generic_dataset_json import check

SMALL = [
    *("--threads", "1", "--repetitions", "1", "--batch", "2", "--image_size", "42"),
    *("--trained", "5", "--trained_batch", "2", "--epochs", "3", "--naive_epochs", "3"),
    *("--images", "3", "--maps", "1", "--side", "64"),
    *("--pictures", "4", "--multiples", "1", "--commands", "testing"),
]


@pytest.fixture
def rows(tiny_files, capsys):
    """What a part prints: its rows as lists of cells."""

    def of(part, *more):
        backbone = ["--backbone", str(tiny_files / "tiny.json")]
        assert main(["--only", part, *backbone, *SMALL, *more]) == 0
        lines = capsys.readouterr().out.rstrip().splitlines()
        assert lines[-1].startswith("|")
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]

    return of


def difference(row):
    return float(re.match(r"[\d.e+-]+", row[4])[0])


@pytest.mark.parametrize("part", ["encoder", "training", "gaussian", "aupro", "accuracy"])
def test_ours_agrees_with_the_plain_computation(rows, part):
    compared = [row for row in rows(part) if row[4] and "bf16" not in row[0]]
    assert compared
    for row in compared:
        assert difference(row) < 1e-4, row


def test_windows_in_one_batch_are_those_of_a_forward_pass_each(rows, tmp_path):
    square = TINY_CONFIG | {"vision_cfg": TINY_CONFIG["vision_cfg"] | {"image_size": 56}}
    (tmp_path / "square.json").write_text(json.dumps(square))
    (row,) = rows("windows", "--backbone", str(tmp_path / "square.json"))
    assert "13 an image" in row[0] and difference(row) < 1e-5


def test_training_from_cached_features_learns_the_same_prompts(rows):
    """All epochs on both sides: the prompts themselves; fewer on the plain one: the losses of its steps."""
    ((_, naive, *_, found),) = rows("cached_training")
    assert "from" not in naive and found.endswith("(learned prompts)") and float(found.split()[0]) < 1e-4
    ((_, naive, *_, found),) = rows("cached_training", "--naive_epochs", "2")
    assert "from 2 of 3 epochs" in naive and found.endswith("(losses of 6 steps)") and float(found.split()[0]) < 1e-4


def test_counting_runs_in_a_process_of_its_own(rows):
    ((what, *_, bounds),) = rows("memory")
    assert what == "streaming metrics, 1 maps of 64 x 64"
    names = ("pixel_auroc", "pixel_aupro", "pixel_ap", "pixel_f1_max")
    found = dict(bound.split() for bound in bounds.removeprefix("bounds: ").split(", "))
    assert tuple(found) == names and float(found["pixel_auroc"]) < 1e-5


def test_whole_runs_of_growing_size(rows, monkeypatch):
    """From the second size on, what a further image takes is reported."""
    monkeypatch.setattr(benchmarks.scaling, "in_a_process", lambda function, *arguments: function(*arguments))
    smaller, larger = rows("scaling", "--multiples", "1", "2")
    assert smaller[0] == "testing, tiny at 42, 4 images" and larger[0] == "testing, tiny at 42, 8 images"
    assert "a further image" in larger[2] and "a further image" not in smaller[2]
    assert re.search(r"peak \d+ MB", smaller[2])


@pytest.mark.parametrize("command", ["training", "testing"])
def test_whole_runs_are_the_commands_themselves(tiny_flags, tmp_path, command):
    draw_dataset(tmp_path / "dataset", 4, 42)
    flags = {
        "training": [
            *("--train_data_path", str(tmp_path / "dataset"), "--dataset", "drawn"),
            *("--save_path", str(tmp_path / "prompts")),
        ],
        "testing": ["--data_path", str(tmp_path / "dataset"), "--save_path", str(tmp_path / "results")],
    }[command]
    more = ["--epoch", "2"] if command == "training" else ["--checkpoint_path", "handwritten"]
    run = run_command(command, [*tiny_flags, *flags, *more], threads=1)
    assert run.spent.wall > 0 and run.spent.cpu > 0 and run.peak > 0
    made = "prompts/epoch_2.pth" if command == "training" else "results/predictions.csv"
    assert (tmp_path / made).is_file()


def test_a_drawn_dataset_passes_the_audit(tmp_path):
    draw_dataset(tmp_path, 5, 40)
    assert check.main(["--root", str(tmp_path), "--workers", "1"]) == 0
    entries = read_index(tmp_path).split("test")
    assert [entry.anomaly for entry in entries].count(1) == 2
    assert all(read_mask(entry, 40, "auto").sum() == 100 for entry in entries if entry.anomaly)


def test_an_unknown_part_or_backbone_is_refused(tiny_files):
    with pytest.raises(SystemExit):
        main(["--only", "speed"])
    with pytest.raises(InputError, match="ViT-Q/14"):
        main(["--only", "scaling", "--backbone", "ViT-Q/14", "--threads", "1"])
