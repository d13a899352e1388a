"""What a dataset says at its start, what it checks, and the batches that come of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from trees import encoded, mask, mvtec_tree, picture, write_tree

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.preprocessing import Preprocess
from dataset import (
    AnomalyDataset,
    DatasetIndex,
    check_images,
    check_masks,
    read_index,
    read_mask,
    summary,
)
from generic_dataset_json import custom, mvtec
from pipeline.read_ahead import in_order, thread_pool


def _index(root: Path) -> DatasetIndex:
    mvtec.main(["--root", str(root), "--allow_missing_masks"])
    return read_index(root)


def test_summary(tmp_path: Path) -> None:
    text = summary(_index(mvtec_tree(tmp_path)))
    assert "5 test images in 1 class, 1 normal, 4 anomalous, 4 of them with a mask" in text
    assert "metrics: image-level; pixel-level" in text


def test_summary_of_what_is_not_possible(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "a/test/bad/1.png \n b/test/good/1.png \n b/test/bad/1.png", "b/ground_truth/bad/1.png")
    assert (
        "metrics: image-level for 1 of 2 classes (one label only in the others); "
        "pixel-level for 1 of 2 classes (no masks in the others)"
    ) in summary(_index(root))
    assert "no image-level (one label only); no pixel-level (no masks)" in summary(
        _index(write_tree(tmp_path / "other", "a/test/bad/1.png"))
    )


def test_masks_that_are_gone_are_listed(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        "\n".join(f"a/test/bad/{number:02d}.png" for number in range(12)),
        "\n".join(f"a/ground_truth/bad/{number:02d}.png" for number in range(12)),
    )
    index = _index(root)
    for number in range(11):
        (root / f"a/ground_truth/bad/{number:02d}.png").unlink()
    with pytest.raises(InputError) as caught:
        check_masks(index)
    assert "11 masks" in str(caught.value)
    assert "a/ground_truth/bad/09.png and 1 more" in str(caught.value)
    assert "10.png" not in str(caught.value)


def test_images_that_are_gone_are_listed(tmp_path: Path) -> None:
    index = _index(mvtec_tree(tmp_path))
    check_images(index)
    (tmp_path / "bottle/test/good/000.png").unlink()
    with pytest.raises(InputError, match=r"1 image that meta\.json lists is missing: .*bottle/test/good/000\.png"):
        check_images(index)


def test_without_a_mask_on_record(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    (root / "bottle/ground_truth/contamination/000_mask.png").unlink()
    index = _index(root)
    assert check_masks(index) == []
    with pytest.raises(InputError, match=r"Training needs a mask .* 1 has none .*contamination/000\.png"):
        check_masks(index, training=True)
    entries = [entry for entry in index.split("test") if entry.specie_name in ("contamination", "good")]
    batch = next(iter(DataLoader(AnomalyDataset(entries, Preprocess(16)), batch_size=2)))
    assert batch.label.tolist() == [1, 0]
    assert batch.has_mask.tolist() == [False, True]  # never taken for an all-normal mask
    with pytest.raises(ValueError, match="no mask on record"):
        read_mask(entries[0], 16, "auto")


def test_masks_of_another_size_are_reported(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    assert check_masks(_index(root)) == []
    (root / "bottle/ground_truth/broken_large/001_mask.png").write_bytes(mask("png", 255, 20, 10))
    (notice,) = check_masks(_index(root))
    assert "001_mask.png is 10 x 20, its image 6 x 8" in notice
    assert "002_mask.png" not in notice


def test_a_mask_that_is_no_image_is_an_error_at_the_start(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    (root / "bottle/ground_truth/broken_large/001_mask.png").write_text("no image")
    with pytest.raises(InputError, match=r"001_mask\.png is not an image"):
        check_masks(_index(root))


def test_items(tmp_path: Path) -> None:
    index = _index(mvtec_tree(tmp_path))
    dataset = AnomalyDataset(index.split("test"), Preprocess(16))
    item = dataset[0]
    assert item.image.shape == (3, 16, 16) and item.image.dtype == torch.float32
    assert item.resized.shape == (16, 16, 3) and item.resized.dtype == item.mask.dtype == torch.uint8
    assert item.mask.tolist() == np.kron([[1, 0], [0, 0]], np.ones((8, 8), int)).tolist()
    assert (item.label, item.has_mask, item.size.tolist()) == (1, True, [6, 8])
    normal = dataset[len(dataset) - 1]
    assert (normal.label, normal.has_mask, int(normal.mask.sum())) == (0, True, 0)
    without = AnomalyDataset(index.split("test"), Preprocess(16), with_masks=False)[0]
    assert (without.has_mask, int(without.mask.sum())) == (False, 0)


def test_mask_threshold(tmp_path: Path) -> None:
    noisy = np.zeros((8, 8), np.uint8)
    noisy[:4] = 40
    noisy[:2] = 255
    contents = {"bad/1.jpg": picture("jpg", height=8, width=8), "good/1.png": picture("png")}
    root = write_tree(tmp_path / "x", "", contents={**contents, "m/1.png": encoded(Image.fromarray(noisy), "png")})
    folders = ["--normal", root / "good", "--anomalous", root / "bad", "--masks", root / "m"]
    custom.main([str(part) for part in folders])
    entries = [entry for entry in read_index(root).split("test") if entry.anomaly]
    share = {
        threshold: float(AnomalyDataset(entries, Preprocess(8), threshold)[0].mask.float().mean())
        for threshold in ("auto", 0, 127)
    }
    assert share == {"auto": 0.5, 0: 0.5, 127: 0.25}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reading_ahead_keeps_the_order_and_the_error(workers: int, tmp_path: Path) -> None:
    index = _index(mvtec_tree(tmp_path))
    dataset = AnomalyDataset(index.split("test"), Preprocess(16))
    expected = [sample.image for sample in map(dataset.__getitem__, range(5))]
    with thread_pool(workers) as pool:
        images = [sample.image for sample in in_order(pool, dataset.__getitem__, range(5), ahead=2)]
    assert all(torch.equal(*pair) for pair in zip(images, expected, strict=True))
    path = index.split("test")[2].image_path
    path.write_bytes(picture("png", height=64, width=64)[:500])
    read = []
    with thread_pool(workers) as pool, pytest.raises(InputError, match=f"{path} is damaged or cut short"):
        for sample in in_order(pool, dataset.__getitem__, range(5), ahead=2):
            read.append(sample)
    assert len(read) == 2
