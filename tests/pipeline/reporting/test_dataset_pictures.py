"""Which images of a dataset are drawn, by one process or by several, and that pictures of one run lie in the folder."""

import csv
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import save_picture
from PIL import Image

from AnomalyCLIP_lib.decisions import Threshold, Thresholds, decide
from AnomalyCLIP_lib.detector import Prediction
from AnomalyCLIP_lib.errors import InputError
from generic_dataset_json.meta_json import Entry
from pipeline.distributed import ALONE
from pipeline.output_folder import OutputFolder
from pipeline.reporting import dataset_pictures
from pipeline.reporting.dataset_pictures import DatasetPictures
from pipeline.reporting.observing import ScoredImage
from pipeline.reporting.pictures import PictureOptions

NO_IMAGE = Image.new("RGB", (1, 1))  # no picture is drawn from it
THRESHOLDS = Thresholds(Threshold(0.5, "test"), Threshold(0.5, "test"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images and masks of 6 x 4 pixels."""
    root = tmp_path_factory.mktemp("images")
    for number in range(40):
        save_picture(np.full((4, 6, 3), number, np.uint8), root / f"{number:02d}.png")
    save_picture(np.array([[0, 255, 0], [0, 0, 0]], np.uint8), root / "mask.png")
    return root


def entries_of(images, labels, class_name="part"):
    return [
        Entry(
            images / f"{number:02d}.png", images / "mask.png" if label else None, class_name, "", label, f"{number}.png"
        )
        for number, label in enumerate(labels)
    ]


def scored(entry, position, score):
    prediction = Prediction(torch.tensor(score), torch.full((5, 5), score), 1)
    values = prediction.values((6, 4))
    decision = decide(score, THRESHOLDS, values)
    name, label = entry.relative_path, entry.anomaly
    return ScoredImage(position, name, entry.class_name, label, decision, (6, 4), NO_IMAGE, prediction, values)


def pictures_of(folder, entries, visualize="overlay", draw_all=False, save_maps=False):
    return DatasetPictures(OutputFolder(folder), entries, PictureOptions(visualize, draw_all, save_maps))


def run(folder, entries, scores, ranks=ALONE, **flags):
    pictures = pictures_of(folder, entries, **flags)
    if ranks.is_main:
        pictures.folder.begin(pictures.inputs)
    ranks.broadcast(None)  # as `RunRecord.begin`: nobody writes before all have looked
    for position, (entry, score) in enumerate(zip(entries, scores, strict=True)):
        if position % ranks.size == ranks.rank:
            pictures.observe(scored(entry, position, score))
    pictures.end_class("part", ranks)
    if ranks.is_main:
        pictures.write_index()


def drawn(folder):
    return {path.name for path in folder.rglob("*.png")}


def listed(folder):
    with (folder / "pictures.csv").open(newline="") as file:
        return {row["image_path"]: row for row in csv.DictReader(file)}


def test_the_most_telling_images_are_drawn(images, tmp_path):
    rng = random.Random(0)
    labels = [rng.randrange(2) for _ in range(40)]
    scores = [rng.random() for _ in labels]
    run(tmp_path, entries_of(images, labels), scores)
    normal = sorted((score, f"{number}.png") for number, score in enumerate(scores) if not labels[number])
    anomalous = sorted((score, f"{number}.png") for number, score in enumerate(scores) if labels[number])
    expected = {
        "highest scores of normal images": normal[-3:],
        "lowest scores of anomalous images": anomalous[:3],
        "highest scores of anomalous images": anomalous[-3:],
    }
    assert drawn(tmp_path) == {name for part in expected.values() for _, name in part}
    rows = listed(tmp_path)
    for chosen_as, part in expected.items():
        assert {row["image_path"] for row in rows.values() if row["chosen_as"] == chosen_as} == {n for _, n in part}


def test_outcomes_are_told_as_they_are(images, tmp_path):
    scores, labels = [0.9, 0.2, 0.1, 0.7, 0.3, 0.8, 0.4], [0, 0, 0, 1, 1, 1, 1]
    run(tmp_path, entries_of(images, labels), scores)
    assert {name: (row["outcome"], row["chosen_as"].split()[0]) for name, row in listed(tmp_path).items()} == {
        "0.png": ("false alarm", "highest"),
        "1.png": ("rightly normal", "highest"),  # what comes nearest to a false alarm
        "2.png": ("rightly normal", "highest"),
        "3.png": ("hit", "highest"),  # among the three lowest too, but no miss
        "4.png": ("miss", "lowest"),
        "5.png": ("hit", "highest"),
        "6.png": ("miss", "lowest"),
    }


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1], [1], [0], []])
def test_classes_of_one_kind_and_small_ones(images, tmp_path, labels):
    run(tmp_path, entries_of(images, labels), [0.1 * number for number in range(len(labels))])
    assert len(drawn(tmp_path)) == min(len(labels), 6 if any(labels) else 3)


def test_equal_scores_are_chosen_by_their_order(images, tmp_path):
    run(tmp_path, entries_of(images, [0] * 20), [0.5] * 20)
    assert drawn(tmp_path) == {"0.png", "1.png", "2.png"}


def test_no_more_maps_are_kept_than_may_be_drawn(images, tmp_path):
    entries = entries_of(images, [number % 2 for number in range(40)])
    pictures = pictures_of(tmp_path, entries)
    for position, entry in enumerate(entries):
        pictures.observe(scored(entry, position, (position * 7 % 40) / 40))
        assert len(pictures._kept) <= 9


class ThreadRanks:
    """Processes of a run, played by threads."""

    def __init__(self, rank, barrier, values):
        self.rank, self.size, self.is_main = rank, len(values), rank == 0
        self.barrier, self.values = barrier, values

    def gather(self, value):
        self.values[self.rank] = value
        self.barrier.wait(120)
        values = list(self.values) if self.is_main else []
        self.barrier.wait(120)
        return values

    def broadcast(self, value):
        self.values[self.rank] = value
        self.barrier.wait(120)
        result = self.values[0]
        self.barrier.wait(120)
        return result


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("draw_all", [False, True])
def test_several_processes_draw_the_pictures_of_one(images, tmp_path, size, draw_all):
    rng = random.Random(1)
    entries = entries_of(images, [rng.randrange(2) for _ in range(20)])
    scores = [rng.randrange(8) / 8 for _ in entries]  # with equal ones
    run(tmp_path / "one", entries, scores, draw_all=draw_all)
    barrier, values = threading.Barrier(size), [None] * size
    (tmp_path / "several").mkdir()
    threads = [
        threading.Thread(
            target=run,
            args=(tmp_path / "several", entries, scores, ThreadRanks(rank, barrier, values)),
            kwargs={"draw_all": draw_all},
        )
        for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert {path.name: path.read_bytes() for path in (tmp_path / "several").glob("[!.]*.*")} == {
        path.name: path.read_bytes() for path in (tmp_path / "one").glob("[!.]*.*")
    }
    assert len(drawn(tmp_path / "one")) == (20 if draw_all else 9)


def test_panels_get_the_stored_mask_at_the_images_size(images, tmp_path, monkeypatch):
    seen = {}

    def draw(image, decision, values, truth, note):
        seen[image.getpixel((0, 0))[0]] = truth, note
        return np.asarray(image)

    monkeypatch.setitem(dataset_pictures.KINDS, "panel", draw)
    run(tmp_path, entries_of(images, [0, 1]), [0.9, 0.2], visualize="panel")
    truth, note = seen[1]
    assert np.array_equal(truth, np.kron([[0, 1, 0], [0, 0, 0]], np.ones((2, 2))))
    assert note == "miss: labelled anomalous; lowest scores of anomalous images of part: number 1 of 1"
    truth, note = seen[0]
    assert truth is None and note.startswith("false alarm: labelled normal; highest scores of normal images of part")


def test_a_mask_that_cannot_be_read_ends_no_run_that_needs_none(images, tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no image")
    [entry] = entries_of(images, [1])
    run(tmp_path / "out", [replace(entry, mask_path=tmp_path / "mask.png")], [0.9], visualize="panel")
    assert drawn(tmp_path / "out") == {"0.png"}


def test_an_image_that_went_away_while_running_is_named(images, tmp_path):
    [entry] = entries_of(images, [0])
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        run(tmp_path / "out", [replace(entry, image_path=tmp_path / "gone.png")], [0.9])


def test_maps_without_pictures(images, tmp_path):
    run(tmp_path, entries_of(images, [0, 1]), [0.1, 0.9], visualize="none", save_maps=True)
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"0.npy", "1.npy"}
    assert not pictures_of(tmp_path, [], visualize="none").needs_maps


# --- pictures of an earlier run ----------------------------------------------------------------------------------


def test_pictures_of_an_earlier_run_go(images, tmp_path):
    entries = entries_of(images, [0] * 8)
    run(tmp_path, entries, [0.1 * number for number in range(8)])
    assert drawn(tmp_path) == {"7.png", "6.png", "5.png"}
    (tmp_path / "own.png").write_bytes(b"of the user")
    run(tmp_path, entries, [-0.1 * number for number in range(8)])
    assert drawn(tmp_path) == {"0.png", "1.png", "2.png", "own.png"} and set(listed(tmp_path)) == {
        "0.png",
        "1.png",
        "2.png",
    }
    run(tmp_path, entries, [0.1] * 8, visualize="none")
    assert drawn(tmp_path) == {"own.png"} and not (tmp_path / "pictures.csv").exists()


def test_images_of_the_dataset_are_never_touched(images, tmp_path):
    entries = [replace(entry, relative_path=entry.image_path.name) for entry in entries_of(images, [0, 1])]
    before = {path: path.read_bytes() for path in images.iterdir()}
    with pytest.raises(InputError, match="would overwrite the image"):
        pictures_of(images, entries)
    with pytest.raises(InputError, match="among the images in"):  # where the dataset's builder would find them
        pictures_of(images, [replace(entry, relative_path=f"new_{entry.image_path.name}") for entry in entries])
    assert {path: path.read_bytes() for path in images.iterdir()} == before
    assert Image.open(images / "00.png").size == (6, 4)
