"""The thresholds that training stores are those with the largest F1 on the images it learned from."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import save_picture
from runs import evaluate_tiny, small_mask, train_tiny

import metrics
from generic_dataset_json import custom


@pytest.fixture(scope="module")
def trained(tiny_files, tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert train_tiny(tiny_files, tiny_dataset, folder / "run") == 0
    return folder / "run"


def settings(path):
    return torch.load(path, weights_only=True)["settings"]


def test_they_give_the_largest_f1_on_the_training_images(trained, tiny_files, tiny_dataset, tmp_path):
    stored = settings(trained / "epoch_2.pth")["thresholds"]
    assert stored["source"] == "best F1 on the training set tiny_training"
    assert evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, "--save_maps") == 0
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in rows])
    scores = np.array([float(row["anomaly_score"]) for row in rows])
    best = metrics.f1_max(labels, scores)
    assert stored["image"] == pytest.approx(best.threshold, abs=1e-5)
    assert metrics.decision_metrics(labels, scores, stored["image"]).f1 == pytest.approx(best.value)
    used = json.loads((tmp_path / "metrics.json").read_text())["settings"]["thresholds"]
    assert used["pixel"]["value"] == stored["pixel"] and stored["source"] in used["pixel"]["source"]
    maps = np.stack([np.load((tmp_path / row["image_path"]).with_suffix(".npy")) for row in rows]) / np.float32(2)
    masks = np.stack([small_mask(tiny_dataset, row["image_path"]) for row in rows])
    best = metrics.f1_max(masks, maps)
    assert metrics.decision_metrics(masks, maps, stored["pixel"]).f1 == pytest.approx(best.value, abs=1e-3)


def test_only_the_last_checkpoint_has_them_and_the_prompts_do_not_change(trained, tiny_files, tiny_dataset, tmp_path):
    assert "thresholds" not in settings(trained / "epoch_1.pth")
    train_tiny(tiny_files, tiny_dataset, tmp_path / "short", "--epoch", "1")
    ended, going_on = (
        torch.load(folder / "epoch_1.pth", weights_only=True) for folder in (tmp_path / "short", trained)
    )
    assert "thresholds" in ended["settings"]
    for name, tensor in going_on["prompt_learner"].items():
        assert torch.equal(tensor, ended["prompt_learner"][name]), name
    [line] = [line for line in (tmp_path / "short" / "log.txt").read_text().splitlines() if "thresholds: image" in line]
    assert f"{ended['settings']['thresholds']['pixel']:.4g}" in line


def test_the_cache_does_not_matter(trained, tiny_files, tiny_dataset, tmp_path):
    train_tiny(tiny_files, tiny_dataset, tmp_path / "uncached", "--feature_cache", "off")
    with_cache, without = (
        settings(folder / "epoch_2.pth")["thresholds"] for folder in (trained, tmp_path / "uncached")
    )
    assert without == {**with_cache, **{name: pytest.approx(with_cache[name], abs=1e-5) for name in ("image", "pixel")}}


def test_masks_that_vanish_at_the_models_size(tiny_files, tiny_dataset, tmp_path):
    root = tmp_path / "dataset"
    shutil.copytree(tiny_dataset, root)
    mask = np.zeros((400, 520), np.uint8)
    mask[100, 100] = 255
    for path in root.glob("*/ground_truth/*/*.png"):
        save_picture(mask, path)
    assert custom.main(["--root", str(root)]) == 0
    assert train_tiny(tiny_files, root, tmp_path / "out") == 0
    stored = settings(tmp_path / "out" / "epoch_2.pth")["thresholds"]
    assert stored["pixel"] == 0.5 and "pixel 0.5, since no mask has an anomalous pixel" in stored["source"]
    assert "no mask has an anomalous pixel" in (tmp_path / "out" / "log.txt").read_text()
