"""The embedded demo: its committed weights really find defects on classes that they have never seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import AnomalyCLIP_lib
import test
import train
from AnomalyCLIP_lib.backbone import DEMO_FOLDER
from dataset import read_index
from demo import make_dataset
from demo.drawing.categories import AUXILIARY, PRETRAINING, UNSEEN
from demo.pretrain import STAGES, Recipe, pretrain
from demo.report import measure, measure_untrained, untrained_weights

IMAGE_AUROC_FLOOR, PIXEL_AUROC_FLOOR = 78.0, 85.0
CHANCE = 50.0


@pytest.fixture(scope="module")
def demo_dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    make_dataset.make_dataset(folder, pictures=10)
    return folder


@pytest.fixture(scope="module")
def unseen(demo_dataset):
    return read_index(demo_dataset / "unseen")


@pytest.fixture(scope="module")
def committed(unseen):
    """What the committed prompts reach."""
    return measure(unseen)


def test_the_test_classes_are_unseen(demo_dataset, unseen):
    assert set(unseen.test) == set(UNSEEN)
    assert not set(UNSEEN) & set(PRETRAINING)
    assert set(AUXILIARY) <= set(PRETRAINING)
    trained_on = read_index(demo_dataset / "auxiliary")
    assert set(trained_on.test) == set(AUXILIARY)


def test_defects_are_large_enough(unseen):
    """Every mask covers at least 0.5 % of its picture; how much its pixels differ is tested with the generator."""
    anomalous = [entry for entry in unseen.split("test") if entry.anomaly]
    assert len(anomalous) == 10 * len(UNSEEN)
    for entry in anomalous:
        assert (np.asarray(Image.open(entry.mask_path)) > 0).mean() >= 0.005


def test_committed_files_are_small():
    size = sum(path.stat().st_size for path in DEMO_FOLDER.iterdir())
    assert size <= 15e6


def test_committed_prompts_reach_the_floors(committed):
    mean = committed.mean
    assert mean["image_auroc"] >= IMAGE_AUROC_FLOOR and mean["pixel_auroc"] >= PIXEL_AUROC_FLOOR, mean
    # decided at the stored thresholds; calling every image anomalous would give an image F1 of 66.7
    assert mean["image_f1"] >= 70 and mean["pixel_f1"] >= 45, mean


def test_dpam_is_what_localises(committed, unseen):
    with_dpam, without = committed.mean, measure(unseen, dpam="none").mean
    assert with_dpam["pixel_auroc"] > without["pixel_auroc"] + 1, (with_dpam, without)
    assert with_dpam["image_auroc"] == pytest.approx(without["image_auroc"])


def test_bf16_stays_near_fp32(committed, unseen):
    exact, rough = committed, measure(unseen, precision="bf16")
    differences = [
        abs(a.decision.anomaly_score - b.decision.anomaly_score)
        for a, b in zip(exact.predictions, rough.predictions, strict=True)
    ]
    assert max(differences) <= 0.03 and np.mean(differences) <= 0.002
    assert rough.mean["pixel_auroc"] == pytest.approx(exact.mean["pixel_auroc"], abs=0.2)


def test_untrained_weights_stay_at_chance(unseen):
    mean = measure_untrained(unseen, draws=3)
    assert abs(mean["image_auroc"] - CHANCE) < 8 and abs(mean["pixel_auroc"] - CHANCE) < 8, mean


def learn(dataset, folder, *more):
    arguments = [
        *("--backbone", "demo", "--train_data_path", str(dataset / "auxiliary"), "--dataset", "demo_auxiliary"),
        *(
            "--save_path",
            str(folder),
            "--epoch",
            "3",
            "--save_freq",
            "3",
            "--learning_rate",
            "0.0005",
            "--workers",
            "0",
            "--device",
            "cpu",
            *more,
        ),
    ]
    assert train.main(arguments) == 0
    return folder / "epoch_3.pth"


def test_prompts_learned_from_random_ones_reach_the_floors(demo_dataset, unseen, tmp_path):
    mean = measure(unseen, checkpoint=learn(demo_dataset, tmp_path)).mean
    assert mean["image_auroc"] >= IMAGE_AUROC_FLOOR and mean["pixel_auroc"] >= PIXEL_AUROC_FLOOR, mean


def test_prompts_learned_on_untrained_weights_stay_at_chance(demo_dataset, unseen, tmp_path):
    weights = str(untrained_weights(tmp_path / "untrained.safetensors"))
    prompts = learn(demo_dataset, tmp_path, "--pretrained", weights)
    mean = measure(unseen, checkpoint=prompts, pretrained=weights).mean
    assert abs(mean["image_auroc"] - CHANCE) < 10, mean


def test_three_lines_from_import_to_score(unseen):
    model = AnomalyCLIP_lib.load("demo")
    entries = unseen.test["washer"]
    prediction = model.predict([entry.image_path for entry in entries])
    scores, labels = prediction.anomaly_score, torch.tensor([entry.anomaly for entry in entries])
    assert scores[labels == 1].mean() > scores[labels == 0].mean()


def test_an_image_with_nothing_else_takes_the_demo(tmp_path, unseen, capsys, monkeypatch):
    monkeypatch.setattr("AnomalyCLIP_lib.loading.weights_at_hand", lambda *_, **__: False)
    image = unseen.test["nut"][0].image_path
    assert test.main(["--image", str(image), "--save_path", str(tmp_path), "--device", "cpu"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert "not the paper's model" in first and "weights" in first and "not on this machine" in first


def test_the_demo_dataset_is_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        make_dataset.make_dataset(tmp_path / name, pictures=1, size=64)
    first = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    second = {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}
    assert first == second and len(first) > 3 * (len(AUXILIARY) + len(UNSEEN))


def test_pretraining_gives_the_same_weights_twice():
    stages = tuple(replace(stage, steps=5) for stage in STAGES)
    recipe = Recipe(stages=stages, pairs_per_step=2)
    first, second = (pretrain(recipe, workers=0).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
