"""Several processes, started by torchrun: the results of one, each file once, and a clean end when one fails."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from runs import TRAINING_FILES, evaluate_tiny, image_flags, train_tiny, training_files

import test
from pipeline.distributed import ALONE, process_group

# 12 images in batches of 5: three batches, which two processes share unevenly, and one of them is smaller
FLAGS = ("--batch_size", "5", "--device", "cpu", "--workers", "0")
CALIBRATED = ("--false_alarm_rate", "0.3", "--calibrate")


def torchrun(processes, *command, given=None):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.run(
        [*launcher, *map(str, command)],
        cwd=REPOSITORY,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=150,
    )


@pytest.fixture(scope="module")
def broken_dataset(tiny_dataset, tmp_path_factory):
    """A dataset with an image that is cut short: the ninth, of the second batch, which process 1 encodes."""
    root = tmp_path_factory.mktemp("broken") / "dataset"
    shutil.copytree(tiny_dataset, root)
    content = (root / "plate/test/good/002.png").read_bytes()
    (root / "plate/test/good/002.png").write_bytes(content[: len(content) // 2])
    return root


@pytest.fixture(scope="module")
def alone(tiny_files, tiny_dataset, tmp_path_factory):
    """The same work in one process."""
    folder = tmp_path_factory.mktemp("alone")
    train_tiny(tiny_files, tiny_dataset, folder / "trained", *FLAGS)
    evaluate_tiny(folder / "trained", tiny_files, tiny_dataset, folder / "tested", "--save_maps", *FLAGS)
    return folder


@pytest.fixture(scope="module")
def several(alone, tiny_files, tiny_dataset, broken_dataset, tmp_path_factory):
    """Everything that several processes do, in one folder per command."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "no_folder").write_text("")
    weights = ["--pretrained", str(tiny_files / "tiny.safetensors")]
    model = [*weights, "--backbone", str(tiny_files / "tiny.json")]
    prompts = [*weights, "--checkpoint_path", str(alone / "trained" / "epoch_2.pth")]

    def train(name, dataset=tiny_dataset, cache=folder / "cache"):
        paths = ["--train_data_path", str(dataset), "--save_path", str(folder / name), "--feature_cache", str(cache)]
        return [*paths, *model, "--dataset", "tiny_training", "--epoch", "2", *FLAGS]

    def test(name, *flags):
        return [*flags, "--save_path", str(folder / name), *prompts, *FLAGS]

    dataset = ("--data_path", str(tiny_dataset), "--dataset", "visa", "--save_maps")
    images = [str(broken_dataset / "plate"), str(tiny_dataset / "plate/test/good")]
    commands = [
        ["cached_2", "train", 2, train("cached_2")],
        ["cached_3", "train", 3, train("cached_3", cache=folder / "cache_3")],
        ["found_3", "train", 3, train("found_3")],
        ["uncached_2", "train", 2, train("uncached_2", cache="off")],
        ["uncached_3", "train", 3, train("uncached_3", cache=folder / "no_folder" / "below")],
        ["broken_3", "train", 3, train("broken_3", broken_dataset, folder / "cache_broken")],
        ["tested_2", "test", 2, test("tested_2", *dataset)],
        ["tested_3", "test", 3, test("tested_3", *dataset)],
        ["images_3", "test", 3, test("images_3", "--image", *images)],
        ["started_2", "test", 2, test("listed_3", "--image", images[1], "--no_recursive")],
        ["listed_3", "test", 3, test("listed_3", "--image", "-", "--continue")],
        ["calibrated_3", "test", 3, test("calibrated_3", *CALIBRATED, images[0], "--image", images[1])],
    ]
    (folder / "commands.json").write_text(json.dumps(commands))
    done = torchrun(3, "tests/several_commands.py", folder / "commands.json", given="\n".join(images) + "\n")
    assert done.returncode == 0, done.stderr
    return folder


def outcome(folder, name):
    """Exit codes and outputs by rank."""
    codes = [int(path.read_text()) for path in sorted(folder.glob(f"{name}.*.code"))]
    return codes, [path.read_text() for path in sorted(folder.glob(f"{name}.*.out"))]


@pytest.mark.parametrize("name", ["cached_2", "cached_3", "found_3", "uncached_2", "uncached_3"])
def test_training_gives_the_prompts_of_one_process(several, alone, name):
    codes, outputs = outcome(several, name)
    assert set(codes) == {0}, outputs
    assert training_files(several / name) == TRAINING_FILES
    expected = torch.load(alone / "trained" / "epoch_2.pth", weights_only=True)["prompt_learner"]
    found = torch.load(several / name / "epoch_2.pth", weights_only=True)["prompt_learner"]
    for key, value in expected.items():
        assert torch.allclose(value.float(), found[key].float(), atol=1e-4), key
    thresholds, expected_thresholds = (
        torch.load(path / "epoch_2.pth", weights_only=True)["settings"]["thresholds"]
        for path in (several / name, alone / "trained")
    )
    for level in ("image", "pixel"):
        assert thresholds[level] == pytest.approx(expected_thresholds[level], abs=1e-4)
    assert "epoch 2/2" in outputs[0] and not any("epoch 2/2: local" in output for output in outputs[1:])
    assert ("Training goes on without the cache" in outputs[0]) == (name == "uncached_3")


def test_the_cache_has_the_features_of_one_process(several, alone):
    for cache in ("cache", "cache_3"):
        [folder] = (several / cache).glob("features-*")
        [expected] = (alone / "feature_cache").glob("features-*")
        assert folder.name == expected.name
        names = [path.name for path in sorted(expected.iterdir())]
        assert [path.name for path in sorted(folder.iterdir())] == names and len(names) == 12
        for name in names:
            with np.load(folder / name) as own, np.load(expected / name) as other:
                assert all(np.allclose(own[array], other[array], atol=1e-5) for array in other.files)
    assert "found in" in outcome(several, "found_3")[1][0]


@pytest.mark.parametrize("name", ["tested_2", "tested_3"])
def test_testing_gives_the_metrics_of_one_process(several, alone, name):
    codes, outputs = outcome(several, name)
    assert set(codes) == {0}, outputs
    expected, found = [
        json.loads((folder / "metrics.json").read_text()) for folder in (alone / "tested", several / name)
    ]
    for part, values in {**expected["classes"], "mean": expected["mean"]}.items():
        assert {**found["classes"], "mean": found["mean"]}[part] == pytest.approx(values, abs=1e-4)
    assert found["counts"] == expected["counts"]
    for metric, ends in expected["intervals"]["mean"].items():
        assert found["intervals"]["mean"][metric] == pytest.approx(ends, abs=1e-3)
    rows, expected_rows = predictions(several / name), predictions(alone / "tested")
    assert [row["image_path"] for row in rows] == [row["image_path"] for row in expected_rows]
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert float(row["anomaly_score"]) == pytest.approx(float(expected_row["anomaly_score"]), abs=1e-5)
    assert files(several / name) == files(alone / "tested")
    assert (several / name / "pictures.csv").read_bytes() == (alone / "tested" / "pictures.csv").read_bytes()
    assert sum("| mean" in output for output in outputs) == 1


def predictions(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_single_images_are_shared(several, alone, tiny_files, tiny_dataset, broken_dataset, tmp_path, capsys):
    codes, outputs = outcome(several, "images_3")
    assert codes == [1, 0, 0], outputs
    given = [str(broken_dataset / "plate"), str(tiny_dataset / "plate/test/good")]
    assert test.main(["--image", *given, *image_flags(alone / "trained", tiny_files, tmp_path)]) == 1
    expected = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    lines = [line.split("\t") for line in outputs[0].splitlines() if line.count("\t") == 1]
    assert [path for path, _ in lines] == [path for path, _ in expected] and len(lines) == 11
    assert [float(score) for _, score in lines] == pytest.approx([float(row[1]) for row in expected], abs=1e-5)
    assert (
        sum("dataset/plate/test/good/002.png is damaged" in output for output in outputs) == 1
        and "1 of 12 images" in outputs[0]
    )
    assert files(several / "images_3") == files(tmp_path)


def test_a_shared_run_goes_on_from_a_list(several):
    assert outcome(several, "started_2")[0] == [0, 0]
    codes, outputs = outcome(several, "listed_3")
    assert codes == [1, 0, 0], outputs
    assert "3 of 12 images were done before" in outputs[0] and "1 of 9 images could not be read" in outputs[0]
    whole = {row["image_path"]: row for row in predictions(several / "images_3")}
    found = {row["image_path"]: row for row in predictions(several / "listed_3")}
    assert set(found) == set(whole) and len(predictions(several / "listed_3")) == 12
    for path, row in found.items():
        assert row["error"] == whole[path]["error"]
        assert float(row["anomaly_score"] or 0) == pytest.approx(float(whole[path]["anomaly_score"] or 0), abs=1e-5)


def test_calibration_is_shared(several, alone, tiny_files, tiny_dataset, broken_dataset, tmp_path):
    codes, outputs = outcome(several, "calibrated_3")
    assert codes == [0, 0, 0], outputs
    assert sum("left out of the calibration" in output for output in outputs) == 1
    flags = image_flags(alone / "trained", tiny_files, tmp_path)
    normal = str(broken_dataset / "plate")
    assert test.main(["--image", str(tiny_dataset / "plate/test/good"), *CALIBRATED, normal, *flags]) == 0
    for row, expected in zip(predictions(several / "calibrated_3"), predictions(tmp_path), strict=True):
        assert row["threshold_source"] == expected["threshold_source"]
        assert float(row["threshold"]) == pytest.approx(float(expected["threshold"]), abs=1e-5)
    assert "calibrated on 8 normal images" in predictions(tmp_path)[0]["threshold_source"]


def test_a_process_that_fails_ends_all_of_them(several):
    codes, outputs = outcome(several, "broken_3")
    assert codes == [2, 2, 2]
    together = "".join(outputs)
    assert together.count("error: ") == 1 and "good/002.png" in together and "Traceback" not in together
    assert not list((several / "broken_3").glob("*.pth"))
    assert all(np.load(path) for path in (several / "cache_broken").rglob("*.*"))  # nothing half-written


def test_torchrun_ends_when_one_process_fails(tiny_files, broken_dataset, tmp_path):
    """The real command line."""
    command = ["--train_data_path", broken_dataset, "--dataset", "tiny", "--save_path", tmp_path / "out"]
    command += ["--feature_cache", "off", *FLAGS]
    model = ["--backbone", tiny_files / "tiny.json", "--pretrained", tiny_files / "tiny.safetensors"]
    done = torchrun(2, "train.py", *command, *model)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and "good/002.png" in told[0], done.stderr
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} <= {"log.txt"}  # the other may not have come so far


def test_one_process_needs_no_torchrun():
    with process_group("cpu") as ranks:
        assert (ranks.rank, ranks.size, ranks.is_main) == (0, 1, True)
    assert ALONE.gather("x") == ["x"] and ALONE.broadcast("x") == "x" and list(ALONE.gather_lazily("x")) == ["x"]
