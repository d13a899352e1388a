"""Training from features that are computed once: the same prompts, no encoder, and no cache that is not whole."""

import hashlib
import resource
import shutil
from contextlib import contextmanager
from itertools import chain

import numpy as np
import pytest
import torch
from conftest import save_picture
from runs import train_tiny

from AnomalyCLIP_lib import InputError
from AnomalyCLIP_lib.visual_encoder import VisualEncoder
from dataset import read_index
from pipeline.training.feature_cache import ArrayCache, ArrayType, CacheUnusable
from pipeline.training.features import TrainingCache, shuffled_batches
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
    assert encoded == 12 and "12 images x 2 layers x 640 B, 16.1 kB in all, 12 to be written" in log
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
        assert train("other", *flags, "--epoch", "1", "--overwrite")[1] == 12, flags
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
    assert train("changed", dataset=moved)[1] == 0  # both contents are known
    save_picture(np.full((40, 52, 3), 9, np.uint8), moved / "plate/test/good/001.png")
    assert train("another", dataset=moved)[1] == 5  # with the others of its batch


def shorten(path):
    with path.open("r+b") as file:
        file.truncate(100)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        shorten,
        flip_a_bit,
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path, a=np.zeros(4, np.float32)),
        lambda path: np.savez(path, a=np.zeros(4, np.float64), b=np.zeros((2, 3), np.uint8)),
        lambda path: np.savez(path, a=np.array([object()]), b=np.zeros((2, 3), np.uint8)),
    ],
)
def test_a_file_that_is_not_whole_is_missing(tmp_path, harm):
    arrays = {"a": ArrayType("float32", (400,)), "b": ArrayType("uint8", (2, 3))}
    cache = ArrayCache(tmp_path, "features", {"weights": "these"}, arrays)
    assert cache.missing(["1", "2", "1"]) == ["1", "2"]
    cache.make_room(2)
    values = {"a": np.random.default_rng(0).random(400, np.float32), "b": np.ones((2, 3), np.uint8)}
    for digest in ("1", "2"):
        cache.write(digest, values)
    assert cache.missing(["1", "2"]) == []
    assert all((cache.read("1")[name] == value).all() for name, value in values.items())
    harm(cache.folder / "2.npz")
    assert cache.missing(["1", "2"]) == ["2"]
    with pytest.raises(InputError, match=r"2\.npz"):
        cache.read("2")


def feature_files(tmp_path):
    return sorted((tmp_path / "runs" / "feature_cache").glob("features-*/*.npz"))


def image_paths(dataset):
    return [entry.image_path for entry in read_index(dataset).split("test")]


def test_what_is_damaged_is_computed_anew(train, tiny_dataset, tmp_path):
    train("first", "--batch_size", "4")
    files = feature_files(tmp_path)
    before = [path.read_bytes() for path in files]
    positions = {hashlib.sha256(path.read_bytes()).hexdigest(): n for n, path in enumerate(image_paths(tiny_dataset))}
    by_position = sorted(files, key=lambda path: positions[path.stem])
    shorten(by_position[1])
    flip_a_bit(by_position[9])
    log, encoded = train("second", "--batch_size", "4")
    assert encoded == 4 + 4 and "2 to be written" in log  # with the images of their batches, for equal bits
    assert [path.read_bytes() for path in feature_files(tmp_path)] == before
    assert train("third", "--batch_size", "4")[1] == 0


def test_a_killed_run_goes_on_where_it_was(train, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    calls = []
    write = TrainingCache.write

    def write_or_die(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        write(*arguments)

    monkeypatch.setattr(TrainingCache, "write", write_or_die)
    with pytest.raises(Killed):
        train("first", "--batch_size", "4")
    monkeypatch.undo()
    assert len(feature_files(tmp_path)) == 4
    assert train("second", "--batch_size", "4")[1] == 8
    train("undisturbed", "--batch_size", "4", "--feature_cache", str(tmp_path / "other"))
    expected = (tmp_path / "runs" / "undisturbed" / "epoch_2.pth").read_bytes()
    assert (tmp_path / "runs" / "second" / "epoch_2.pth").read_bytes() == expected


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
    assert not feature_files(tmp_path)


def test_a_disk_that_takes_no_more(tmp_path):
    """As a full disk answers: an error of the write itself."""
    cache = ArrayCache(tmp_path, "features", {}, {"a": ArrayType("float32", (100_000,))})
    cache.make_room(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(CacheUnusable, match=r"Cannot write .*--feature_cache"):
            cache.write("1", {"a": np.ones(100_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(cache.folder.iterdir())
