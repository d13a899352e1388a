"""What the commands say of input that does not fit."""

import json
import shutil

import pytest
from runs import (
    evaluate_tiny,
    train_tiny,
)

import test
import train
from AnomalyCLIP_lib import InputError


@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "meta.json"),
        ("{", "meta.json.*JSON"),
        ("[]", "meta.json"),
        ('{"test": {"a": [{"anomaly": 1}]}}', "img_path"),
        ('{"test": {"a": [{"img_path": "../x.png", "anomaly": 0}]}}', r"\.\./x\.png"),
        ('{"test": {}}', "no test images"),
    ],
)
def test_bad_meta_json(tiny_files, tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "meta.json").write_text(content)
    for script, flag in ((test, "--data_path"), (train, "--train_data_path")):
        with pytest.raises(InputError, match=complaint):
            script.main([flag, str(tmp_path), "--save_path", str(tmp_path / "out"), "--device", "cpu"])
    assert not (tmp_path / "out").exists()


def test_a_missing_mask_stops_before_anything_is_written(tiny_files, tiny_dataset, tmp_path):
    index = json.loads((tiny_dataset / "meta.json").read_text())
    index["test"]["plate"][-1]["mask_path"] = "plate/ground_truth/spot/nowhere.png"
    index["root"] = str(tiny_dataset)
    (tmp_path / "meta.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"nowhere\.png"):
        train_tiny(tiny_files, tmp_path / "meta.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["test/spot/001.png", "ground_truth/spot/001_mask.png"])
def test_a_truncated_file_of_a_dataset_is_named(tiny_files, tiny_dataset, trained, tmp_path, file):
    shutil.copytree(tiny_dataset, tmp_path / "data")
    path = tmp_path / "data" / "plate" / file
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(InputError, match=path.name):
        evaluate_tiny(trained, tiny_files, tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_either_a_dataset_or_images(tiny_dataset):
    for flags in ([], ["--data_path", str(tiny_dataset), "--image", "a.png"]):
        with pytest.raises(InputError, match=r"either --data_path .* or --image"):
            test.main(flags)


def test_contradictions_with_a_checkpoint(trained, tiny_files, tiny_dataset, tmp_path, capsys):
    for flag, value in (("--n_ctx", "4"), ("--depth", "2"), ("--t_n_ctx", "1"), ("--backbone", "ViT-B/32")):
        with pytest.raises(InputError, match=f"{flag} {value} contradicts"):
            evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path / "out", flag, value)
    assert evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, "--sigma", "1", "--image_size", "28") == 0
    printed = capsys.readouterr().out
    assert "sigma 1.0 replaces 4.0" in printed and "image_size 28 replaces 42" in printed


def test_other_weights_than_the_checkpoints(trained, tiny_files, tiny_dataset, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(tiny_files / "tiny.safetensors")
    state["visual.proj"] = state["visual.proj"] + 1e-3
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="other weights"):
        evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, "--pretrained", str(tmp_path / "other.safetensors"))


def test_a_save_path_that_cannot_be_written(trained, tiny_files, tiny_dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--save_path .*file"):
        evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path / "file" / "below")


@pytest.mark.parametrize(
    "flags", [["--seed", str(2**64)], ["--seed", "-1"], ["--workers", "-1"], ["--batch_size", "0"]]
)
def test_numbers_out_of_range(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        test.main(["--image", "a.png", *flags])
    assert stopped.value.code == 2 and flags[0] in capsys.readouterr().err
