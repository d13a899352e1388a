"""A dataset as training and testing see it: what its meta.json lists, checked, and read image by image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import decode_mask, image_size, mask_threshold_for, read_bytes, read_image, resize_mask
from AnomalyCLIP_lib.preprocessing import Preprocess
from generic_dataset_json.meta_json import DatasetIndex, Entry, read_index
from utils import counted, named

__all__ = [
    "AnomalyDataset",
    "DatasetIndex",
    "Entry",
    "Sample",
    "check_images",
    "check_masks",
    "mask_threshold_for",
    "mask_thresholds",
    "read_index",
    "read_mask",
    "summary",
    "thresholds_text",
]


class Sample(NamedTuple):
    """An image with its label and mask; torch's default collate makes batches of it, with B in front.

    Attributes:
        image: float32 (3, S, S), as the model reads it.
        mask: uint8 (S, S) of 0 and 1; all 0 for a normal image and where `has_mask` is False.
        has_mask: True for a normal image, whose mask is all 0. Pixel metrics leave the others out.
        label: 0 normal, 1 anomalous.
        size: int64 (2,), width and height of the image in its file, upright.
        resized: uint8 (S, S, 3), RGB, what `image` was made of.
    """

    image: Tensor
    mask: Tensor
    has_mask: bool
    label: int
    size: Tensor
    resized: Tensor

    def picture(self) -> Image.Image:
        """What the model sees, S x S, RGB."""
        return Image.fromarray(self.resized.numpy())


class AnomalyDataset(Dataset[Sample]):
    """Images with their labels and masks, ready for the model. A file that cannot be read raises InputError.

    Args:
        entries: What to read, in this order.
        preprocess: Of the model; its image size is the masks', S.
        mask_threshold: "auto" or the grey value above which a mask is anomalous.
        with_masks: False leaves masks unread; then `has_mask` is False for every anomalous image.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        preprocess: Preprocess,
        mask_threshold: Literal["auto"] | int = "auto",
        with_masks: bool = True,
    ) -> None:
        self.entries = entries
        self.preprocess = preprocess
        self.mask_threshold: Literal["auto"] | int = mask_threshold
        self.with_masks = with_masks

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        entry, size = self.entries[index], self.preprocess.image_size
        has_mask = entry.anomaly == 0 or (self.with_masks and entry.mask_path is not None)
        mask = read_mask(entry, size, self.mask_threshold) if has_mask else np.zeros((size, size), np.uint8)
        image = read_image(entry.image_path)
        resized = self.preprocess.resize(image)
        return Sample(
            self.preprocess.to_tensor(resized),
            torch.from_numpy(mask),
            has_mask,
            entry.anomaly,
            torch.tensor(image.size),
            torch.from_numpy(np.array(resized)),
        )


def read_mask(source: Entry | str | Path, size: int, threshold: Literal["auto"] | int) -> np.ndarray:
    """The ground truth at the model's size, as training and metrics use it.

    Cut at the threshold first, then resized (bilinear) and cut at one half.

    Args:
        source: An entry or a mask's path. A normal entry's mask is all zero.
        size: Side of the result.
        threshold: The grey value above which a pixel is anomalous, or "auto".

    Returns:
        uint8 (size, size) of 0 and 1.

    Raises:
        InputError: the mask is missing or not an image.
        ValueError: an anomalous entry without a mask: nobody knows what its mask is.
    """
    if isinstance(source, Entry):
        if not source.anomaly:
            return np.zeros((size, size), np.uint8)
        if source.mask_path is None:
            raise ValueError(f"{source.relative_path} is anomalous and has no mask on record")
        source = source.mask_path
    path = Path(source)
    return resize_mask(decode_mask(read_bytes(path), path, threshold), size)


def mask_thresholds(entries: Sequence[Entry], setting: Literal["auto"] | int) -> dict[int, int]:
    """The grey values above which masks are anomalous, each with the number of masks that it is used for."""
    masks = [entry.mask_path for entry in entries if entry.anomaly and entry.mask_path is not None]
    return dict(sorted(Counter(mask_threshold_for(mask, setting) for mask in masks).items()))


def thresholds_text(thresholds: Mapping[int, int]) -> str:
    """`mask_thresholds` for the log."""
    parts = [f"{value} for {counted(number, 'mask')}" for value, number in thresholds.items()]
    return ", ".join(parts) or "no masks"


def summary(index: DatasetIndex) -> str:
    """What the test split holds and which metrics it allows, in two lines."""
    entries = index.split("test")
    anomalous = [entry for entry in entries if entry.anomaly]
    with_mask = sum(entry.mask_path is not None for entry in anomalous)
    classes = {name: part for name, part in index.test.items() if part}
    # AUROC and AP need both labels; pixel metrics only need a mask, whose outside is normal.
    image_classes = sum(len({entry.anomaly for entry in part}) == 2 for part in classes.values())
    pixel_classes = sum(any(entry.mask_path for entry in part) for part in classes.values())
    return (
        f"{index.root}: {len(entries)} test images in {counted(len(classes), 'class', 'classes')}, "
        f"{len(entries) - len(anomalous)} normal, {len(anomalous)} anomalous, {with_mask} of them with a mask\n"
        f"metrics: {_possible('image', image_classes, len(classes), 'one label only')}; "
        f"{_possible('pixel', pixel_classes, len(classes), 'no masks')}"
    )


def _possible(level: str, possible: int, classes: int, reason: str) -> str:
    if possible == classes:
        return f"{level}-level"
    if not possible:
        return f"no {level}-level ({reason})"
    return f"{level}-level for {possible} of {classes} classes ({reason} in the others)"


def check_images(index: DatasetIndex, split: str = "test") -> None:
    """Check that every image of the split exists, before hours are spent on it.

    Raises:
        InputError: some are missing; it names the first ten and counts them.
    """
    missing = [entry.image_path for entry in index.split(split) if not entry.image_path.is_file()]
    if missing:
        raise InputError(_missing("image", missing))


def check_masks(index: DatasetIndex, split: str = "test", training: bool = False) -> list[str]:
    """Check the masks of the split's anomalous images; only their headers are read.

    Args:
        index: The dataset.
        split: "train" or "test".
        training: Whether every anomalous image needs a mask. In testing, one without a mask on record
            counts for the image metrics only.

    Returns:
        Sentences that the user should see, of masks whose size is not that of their image.

    Raises:
        InputError: a mask on record is missing or not an image; in training, one is not on record.
    """
    anomalous = [entry for entry in index.split(split) if entry.anomaly]
    with_mask = [(entry, entry.mask_path) for entry in anomalous if entry.mask_path is not None]
    missing = [mask for _, mask in with_mask if not mask.is_file()]
    if missing:
        raise InputError(_missing("mask", missing))
    without = [entry.image_path for entry in anomalous if entry.mask_path is None]
    if training and without:
        raise InputError(
            f"Training needs a mask for every anomalous image, and {counted(len(without), 'has', 'have')} none "
            f"on record: {named(without)}; add the masks and build meta.json again, or leave these images out."
        )
    return _size_notices(with_mask)


def _size_notices(pairs: Sequence[tuple[Entry, Path]]) -> list[str]:
    sizes = [(mask, image_size(mask), image_size(entry.image_path)) for entry, mask in pairs]
    other = [(mask, mask_size, size) for mask, mask_size, size in sizes if mask_size != size]
    if not other:
        return []
    mask, mask_size, size = other[0]
    return [
        f"{counted(len(other), 'mask has', 'masks have')} another size than the image and will be stretched over it "
        f"({mask} is {mask_size[0]} x {mask_size[1]}, its image {size[0]} x {size[1]}): "
        f"{named([mask for mask, _, _ in other])}"
    ]


def _missing(kind: str, paths: Sequence[Path]) -> str:
    are = "is" if len(paths) == 1 else "are"
    return (
        f"{counted(len(paths), kind)} that meta.json lists {are} missing: {named(paths)}; "
        "copy them back, or build meta.json again with the scripts in generic_dataset_json."
    )
