"""The pictures of a training: what they show, and that they change nothing about what is learned."""

import csv
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from runs import train_tiny

from AnomalyCLIP_lib.loading import load
from dataset import read_index
from generic_dataset_json.meta_json import Entry
from pipeline.output_folder import OutputFolder
from pipeline.training import progress as training_progress
from pipeline.training.progress import MOST_COLUMNS, TrainingProgress, chosen_images, loss_curves


@pytest.fixture(scope="module")
def model(tiny_files):
    return load(
        str(tiny_files / "tiny.json"), str(tiny_files / "tiny.safetensors"), checkpoint="handwritten", device="cpu"
    )


@pytest.fixture
def progress(model, tiny_dataset, tmp_path):
    return TrainingProgress(model, read_index(tiny_dataset).split("test"), "auto", OutputFolder(tmp_path), told.append)


told: list[str] = []


@pytest.fixture(autouse=True)
def nothing_told():
    told.clear()


def width_of(path):
    return Image.open(path).width


def test_what_is_learned_stays_the_same_to_the_bit(tiny_files, tiny_dataset, tmp_path, monkeypatch):
    train_tiny(tiny_files, tiny_dataset, tmp_path / "seen", "--feature_cache", "off")

    class Unseen:
        def __init__(self, *_):
            pass

        def epoch_done(self, *_):
            pass

        def state(self):
            return {}

    monkeypatch.setattr("pipeline.training.train_run.TrainingProgress", Unseen)
    train_tiny(tiny_files, tiny_dataset, tmp_path / "unseen", "--feature_cache", "off")
    assert (tmp_path / "seen" / "epoch_2.pth").read_bytes() == (tmp_path / "unseen" / "epoch_2.pth").read_bytes()
    assert not (tmp_path / "unseen" / "losses.csv").exists()
    # The losses are those of the log, in full
    with (tmp_path / "seen" / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    log = (tmp_path / "seen" / "log.txt").read_text()
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        local, image = float(row["local_loss"]), float(row["image_loss"])
        assert f"epoch {row['epoch']}/2: local loss {local:.4f}, image loss {image:.4f}" in log


def test_a_column_for_every_epoch(progress, tmp_path):
    assert not list(tmp_path.iterdir())  # a training that fails in its first epoch leaves nothing
    widths = []
    for epoch in range(1, 4):
        progress.epoch_done(epoch, 1 / epoch, 2 / epoch)
        widths.append(width_of(tmp_path / "maps.png"))
    assert widths[2] - widths[1] == widths[1] - widths[0] > 100
    assert (tmp_path / "losses.csv").read_text().splitlines()[0] == "epoch,local_loss,image_loss"
    assert Image.open(tmp_path / "losses.png").mode == "RGB"


def test_many_epochs_stay_readable(progress, monkeypatch):
    monkeypatch.setattr(progress, "_draw_maps", lambda: progress.maps[0])
    monkeypatch.setattr(progress.tensorboard, "works", False)
    monkeypatch.setattr(training_progress, "loss_curves", lambda losses: None)
    monkeypatch.setattr(training_progress, "save_picture", lambda *_: None)
    monkeypatch.setattr(progress, "_table", lambda *_: None)
    for number in range(1, 70):
        progress.epoch_done(number, 1.0, 1.0)
        epochs = list(progress.maps)
        assert len(epochs) <= MOST_COLUMNS + 1 and epochs[0] == 0 and epochs[-1] == number
        if number < MOST_COLUMNS:
            assert epochs == list(range(number + 1))
    assert len(set(np.diff(epochs[:-1]))) == 1


def test_the_maps_are_those_of_testing(progress, model, tiny_dataset):
    """The same values as `model.predict` gives, drawn by the same function."""
    from AnomalyCLIP_lib.decisions import map_values
    from pipeline.reporting.pictures import overlay

    shown = chosen_images(read_index(tiny_dataset).split("test"))
    maps = model.predict([entry.image_path for entry in shown]).anomaly_map.numpy()
    for tile, anomaly_map, drawn in zip(progress.tiles, maps, progress.maps[0], strict=True):
        expected = overlay(tile, map_values(anomaly_map, 2, tile.size))
        assert np.abs(expected.astype(int) - drawn).max() <= 1


def entry(class_name, anomaly, number):
    return Entry(number, None, class_name, "", anomaly, f"{class_name}/{anomaly}/{number}")


@pytest.mark.parametrize(
    "classes, expected",
    [
        ("abcde", ["a0", "b1", "c0", "d1"]),
        ("ab", ["a0", "b1", "b0", "a1"]),
        ("a", ["a0", "a1", "a0", "a1"]),
    ],
)
def test_four_images_of_different_classes(classes, expected):
    entries = [entry(name, anomaly, number) for name in classes for anomaly in (0, 1) for number in range(2)]
    chosen = chosen_images(entries)
    assert [f"{image.class_name}{image.anomaly}" for image in chosen] == expected
    assert len({image.relative_path for image in chosen}) == 4 and chosen_images(entries) == chosen


def test_fewer_images_than_four():
    assert [image.anomaly for image in chosen_images([entry("a", 0, 1), entry("a", 1, 2)])] == [0, 1]


def test_a_loss_that_falls_falls_in_the_picture():
    falling = loss_curves([(1, 3.0, 0.5), (2, 2.0, 0.5), (3, 1.0, 0.5)])
    blue = (falling[..., 2] > 150) & (falling[..., 0] < 60) & (falling[..., 1] < 140)
    rows, columns = np.nonzero(blue)
    assert np.corrcoef(rows, columns)[0, 1] > 0.9  # rows count downwards
    assert loss_curves([(1, 0.0, 0.0)]).shape == falling.shape


# --- TensorBoard -------------------------------------------------------------------------------------------------


def test_event_files_hold_the_losses_and_the_maps(progress, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for epoch in (1, 2):
        progress.epoch_done(epoch, 0.5 * epoch, 0.25)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/local")] == [(1, 0.5), (2, 1.0)]
    assert [event.value for event in events.Scalars("loss/image")] == [0.25, 0.25]
    assert [event.step for event in events.Images("maps")] == [1, 2]


def test_without_tensorboard_nothing_is_said(progress, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    progress.epoch_done(1, 0.5, 0.5)
    assert not (tmp_path / "tensorboard").exists() and not told and (tmp_path / "maps.png").exists()


def test_a_broken_tensorboard_ends_no_training(progress, tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where a folder has to be")
    for epoch in (1, 2):
        progress.epoch_done(epoch, 0.5, 0.5)
    assert len(told) == 1 and "TensorBoard" in told[0]
    assert len((tmp_path / "losses.csv").read_text().splitlines()) == 3


def test_no_random_number_is_used_up(model, tiny_dataset, tmp_path):
    state = torch.get_rng_state()
    progress = TrainingProgress(
        model, read_index(tiny_dataset).split("test"), "auto", OutputFolder(tmp_path), told.append
    )
    progress.epoch_done(1, 0.5, 0.5)
    assert torch.equal(torch.get_rng_state(), state)
