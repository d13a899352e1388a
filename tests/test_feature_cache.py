"""Training from features that are computed once: the same prompts, no encoder, and no cache that is not whole."""

import json
import resource
import shutil
from contextlib import contextmanager
from itertools import chain

import numpy as np
import pytest
import torch
from test_commands import train_tiny

from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.visual_encoder import VisualEncoder
from pipeline.training.feature_cache import CacheEntry, CacheUnusable, RowType
from pipeline.training.features import shuffled_batches
from pipeline.training.progress import SHOWN


@contextmanager
def counted_images():
    """Gives a list that receives the size of every batch that the image encoder is asked for."""
    original = VisualEncoder.forward
    asked: list[int] = []

    def forward(self, batch, *arguments, **more):
        asked.append(len(batch))
        return original(self, batch, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VisualEncoder, "forward", forward)
        yield asked


@pytest.fixture
def train(tiny_files, tiny_dataset, tmp_path):
    """Trains into a folder of its own: (name, *flags) -> its log and the images encoded to learn from them."""

    def run(name, *flags, dataset=tiny_dataset):
        with counted_images() as asked:
            assert train_tiny(tiny_files, dataset, tmp_path / "runs" / name, *flags) == 0
        return (tmp_path / "runs" / name / "log.txt").read_text(), sum(asked) - len(SHOWN)  # of maps.png

    return run


def learned(folder, epoch=2):
    return torch.load(folder / f"epoch_{epoch}.pth", weights_only=True)["prompt_learner"]


def entries(folder):
    return sorted(path.name.partition("-")[0] for path in folder.iterdir())


def test_a_sweep_encodes_once(train, tmp_path):
    log, encoded = train("first")
    assert encoded == 12 and "12 images x 2 layers x 640 B, 16.1 kB in all, to be written" in log
    cache = tmp_path / "runs" / "feature_cache"
    assert entries(cache) == ["features", "masks"]
    for number, flags in enumerate([("--seed", "3"), ("--n_ctx", "5", "--t_n_ctx", "1"), ("--depth", "2")]):
        log, encoded = train(f"sweep_{number}", *flags, "--batch_size", "3", "--epoch", "1")
        assert encoded == 0 and f"found in {cache}" in log
    _, encoded = train("threshold", "--mask_threshold", "9", "--epoch", "1")  # only the masks are read again
    assert encoded == 0 and entries(cache) == ["features", "masks", "masks"]
    for flags in (
        ["--features_list", "4"],
        ["--image_size", "28"],
        ["--dpam", "none"],
        ["--feature_cache_dtype", "fp16"],
    ):
        assert train("other", *flags, "--epoch", "1")[1] == 12, flags
    assert entries(cache) == 5 * ["features"] + 3 * ["masks"]


def test_bitwise_the_prompts_of_uncached_training(train, tmp_path):
    flags = ("--batch_size", "4")  # divides 12: every call of the encoder has four images
    assert train("uncached", *flags, "--feature_cache", "off")[1] == 3 * 12  # two epochs, and once for the thresholds
    train("writes", *flags)
    train("reads", *flags)
    expected = (tmp_path / "runs" / "uncached" / "epoch_2.pth").read_bytes()
    for name in ("writes", "reads"):
        assert (tmp_path / "runs" / name / "epoch_2.pth").read_bytes() == expected


@pytest.mark.parametrize("dtype, tolerance", [("fp32", 1e-4), ("fp16", 1e-2)])
def test_close_to_uncached_training_in_uneven_batches(train, tmp_path, dtype, tolerance):
    train("uncached", "--feature_cache", "off")
    train("cached", "--feature_cache_dtype", dtype)
    expected, found = learned(tmp_path / "runs" / "uncached"), learned(tmp_path / "runs" / "cached")
    for name, value in expected.items():
        assert torch.allclose(value.float(), found[name].float(), atol=tolerance), name


def test_the_order_does_not_depend_on_readers():
    epochs = shuffled_batches(7, 3, seed=5)
    first, second = list(epochs), list(epochs)
    assert first != second and sorted(chain(*first)) == list(range(7)) and [len(batch) for batch in first] == [3, 3, 1]
    again = shuffled_batches(7, 3, seed=5)
    assert [list(again), list(again)] == [first, second]


def test_changed_images_are_encoded_again(train, tiny_dataset, tmp_path):
    train("first")
    moved = tmp_path / "moved"
    shutil.copytree(tiny_dataset, moved)
    assert train("moved", dataset=moved)[1] == 0  # the contents count, not the place
    shutil.copy(moved / "plate/test/good/000.png", moved / "plate/test/good/001.png")
    assert train("changed", dataset=moved)[1] == 12


def _shorten(folder):
    with (folder / "image_features").open("r+b") as file:
        file.truncate(100)


def _flip_a_bit(folder):
    data = bytearray((folder / "patch_features_4").read_bytes())
    data[500] ^= 1
    (folder / "patch_features_4").write_bytes(data)


def _set(name, value):
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest[name] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


@pytest.mark.parametrize(
    "harm, complaint",
    [
        (_shorten, "damaged"),
        (_flip_a_bit, "damaged"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "damaged"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "not written by this program"),
        (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "patch_features_2").unlink(), "cannot be read"),
        (_set("format", 99), "format 99 of another version"),
        (_set("key", {"weights": "others"}), "other images or weights"),
    ],
)
def test_an_entry_that_is_not_whole_is_not_used(tmp_path, harm, complaint):
    entry = CacheEntry(
        tmp_path,
        "features",
        {"weights": "these"},
        rows=6,
        arrays={
            "image_features": RowType("float32", (16,)),
            "patch_features_2": RowType("float32", (10, 16)),
            "patch_features_4": RowType("float32", (10, 16)),
        },
    )
    assert not entry.exists()
    values = {name: np.random.default_rng(0).random((6, *row.shape), np.float32) for name, row in entry.arrays.items()}
    with entry.written() as writer:
        writer.append({name: part[:4] for name, part in values.items()})
        writer.append({name: part[4:] for name, part in values.items()})
    assert entry.exists()
    assert (entry.read("patch_features_4", [5, 0, 3]) == values["patch_features_4"][[5, 0, 3]]).all()
    harm(entry.path)
    with pytest.raises(CacheUnusable, match=rf"{complaint}.*--feature_cache"):
        entry.exists()


def test_a_damaged_cache_in_training(train, tmp_path):
    train("first")
    for folder in (tmp_path / "runs" / "feature_cache").glob("features-*"):
        _shorten(folder)
    log, encoded = train("second")
    assert encoded == 3 * 12 and "damaged" in log and "Training goes on without the cache" in log
    with pytest.raises(InputError, match="damaged"):
        train("third", "--feature_cache_required")
    assert not list((tmp_path / "runs" / "third").glob("*.pth"))


def test_a_folder_that_cannot_be_written_to(train, tmp_path):
    (tmp_path / "file").write_text("")
    log, encoded = train("first", "--feature_cache", str(tmp_path / "file" / "below"))
    assert encoded == 3 * 12 and "cannot be written to" in log
    with pytest.raises(InputError, match="cannot be written to"):
        train("second", "--feature_cache", str(tmp_path / "file" / "below"), "--feature_cache_required")
    with pytest.raises(InputError, match="contradicts"):
        train("third", "--feature_cache", "off", "--feature_cache_required")


def test_a_disk_without_room(train, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=17_000))  # the features need 16,128
    log, encoded = train("first")
    assert encoded == 3 * 12 and "needs 16.1 kB and a tenth more" in log and "17.0 kB free" in log
    with pytest.raises(InputError, match="free; name a folder"):
        train("second", "--feature_cache_required")
    assert entries(tmp_path / "runs" / "feature_cache") == ["masks"]


def test_a_disk_that_takes_no_more(tmp_path):
    """As a full disk answers: an error of the write itself."""
    entry = CacheEntry(tmp_path, "features", {}, rows=100, arrays={"a": RowType("float32", (1000,))})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(CacheUnusable, match="cannot be written to"), entry.written():
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_no_cache_and_is_cleared_away(tmp_path):
    entry = CacheEntry(tmp_path, "features", {}, rows=1, arrays={"a": RowType("float32", (4,))})
    remains = tmp_path / f".{entry.path.name}.abc.partial"
    remains.mkdir()
    (remains / "a").write_bytes(bytes(16))
    assert not entry.exists()
    with pytest.raises(KeyboardInterrupt), entry.written() as writer:
        writer.append({"a": np.ones((1, 4), np.float32)})
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with entry.written() as writer, entry.written() as other:  # two runs at once: the first one to end wins
        for each in (writer, other):
            each.append({"a": np.ones((1, 4), np.float32)})
    assert entry.exists() and [path.name for path in tmp_path.iterdir()] == [entry.path.name]
