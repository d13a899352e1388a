"""train.py, end to end on a tiny CLIP and dataset."""

import json

import pytest
import torch
from runs import (
    TRAINING_FILES,
    train_tiny,
    training_files,
)

import train
from AnomalyCLIP_lib import InputError


def test_training_writes_checkpoints_and_a_log(trained, tiny_dataset):
    assert training_files(trained) == TRAINING_FILES
    log = (trained / "log.txt").read_text()
    assert "epoch 1/2: local loss" in log and "epoch 2/2: local loss" in log
    content = torch.load(trained / "epoch_2.pth", weights_only=True)
    assert content["epoch"] == 2
    settings = content["settings"]
    assert settings["backbone"]["name"] == "tiny" and settings["backbone"]["config"]["embed_dim"] == 16
    assert settings["train_dataset"] == "tiny_training" and settings["seed"] == 111
    assert settings["image_size"] == 42 and settings["features_list"] == [2, 4]
    assert str(tiny_dataset) not in json.dumps(settings)
    assert {"ctx_pos", "ctx_neg", "compound_prompts_text.0", "compound_prompts_text.1"} <= set(
        content["prompt_learner"]
    )


def test_the_same_seed_gives_the_same_bytes(trained, tiny_files, tiny_dataset, tmp_path):
    train_tiny(tiny_files, tiny_dataset, tmp_path / "again")
    train_tiny(tiny_files, tiny_dataset, tmp_path / "other", "--seed", "7")
    first = (trained / "epoch_2.pth").read_bytes()
    assert (tmp_path / "again" / "epoch_2.pth").read_bytes() == first
    assert (tmp_path / "other" / "epoch_2.pth").read_bytes() != first


def test_only_the_prompts_learn_and_the_loss_falls(tiny_files, tiny_dataset, tmp_path):
    train_tiny(tiny_files, tiny_dataset, tmp_path, "--epoch", "8", "--save_freq", "100", "--learning_rate", "0.01")
    assert [path.name for path in tmp_path.glob("*.pth")] == ["epoch_8.pth"]
    lines = [line for line in (tmp_path / "log.txt").read_text().splitlines() if line.startswith("epoch")]
    losses = [float(line.split("local loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0]


def test_a_batch_of_one_trains(tiny_files, tiny_dataset, tmp_path):
    assert train_tiny(tiny_files, tiny_dataset, tmp_path, "--batch_size", "1", "--epoch", "1") == 0


def test_training_starts_from_released_prompts(reference_files, tiny_dataset, tmp_path):
    arguments = [
        *("--train_data_path", str(tiny_dataset), "--save_path", str(tmp_path), "--epoch", "1", "--image_size", "28"),
        *("--backbone", str(reference_files / "config.json"), "--pretrained", str(reference_files / "clip.pt")),
        *("--init_from", str(reference_files / "prompts.pth"), "--device", "cpu", "--workers", "0"),
        *("--learning_rate", "1e-9", "--dataset", "mine"),
    ]
    assert train.main(arguments) == 0
    before = torch.load(reference_files / "prompts.pth", weights_only=True)["prompt_learner"]
    after = torch.load(tmp_path / "epoch_1.pth", weights_only=True)["prompt_learner"]
    assert torch.allclose(before["ctx_pos"], after["ctx_pos"], atol=1e-6)
    assert not any("projections" in key for key in after)


def test_a_diverging_run_says_so(tiny_files, tiny_dataset, tmp_path):
    with pytest.raises(InputError, match="lower --learning_rate"):
        train_tiny(tiny_files, tiny_dataset, tmp_path, "--learning_rate", "1e38", "--epoch", "5")


def test_training_needs_both_labels(tiny_files, tiny_dataset, tmp_path):
    index = json.loads((tiny_dataset / "meta.json").read_text())
    index["test"] = {name: [entry for entry in part if not entry["anomaly"]] for name, part in index["test"].items()}
    index["root"] = str(tiny_dataset)
    (tmp_path / "meta.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="one kind only"):
        train_tiny(tiny_files, tmp_path / "meta.json", tmp_path / "out")
