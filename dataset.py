"""A dataset as training and testing see it: what its meta.json lists, checked, and read image by image."""

import os
import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import (
    decode_mask,
    image_size,
    mask_threshold_for,
    read_bytes,
    read_image,
    resize_mask,
)
from generic_dataset_json.meta_json import DatasetIndex, Entry, read_index

__all__ = [
    "AnomalyDataset",
    "DatasetIndex",
    "Entry",
    "check_images",
    "check_masks",
    "mask_threshold_for",
    "mask_thresholds",
    "read_batches",
    "read_index",
    "read_mask",
    "summary",
    "thresholds_text",
    "unwrap_worker_error",
]

NAMED_FILES = 10
"""How many files an error names before it only counts."""

MOST_WORKERS = 256
"""Of more worker processes than that, the file that one died on may go unnamed."""


class AnomalyDataset(Dataset[dict[str, Any]]):
    """Images with their labels and masks, ready for the model.

    Args:
        entries: What to read, in this order.
        transform: From the RGB image to a float32 tensor (3, S, S), S = `image_size`.
        image_size: Side of the masks, S.
        mask_threshold: "auto" or the grey value above which a mask is anomalous.
        with_masks: False leaves masks unread; "mask" is zero and "has_mask" False for every anomalous image.

    An item is a dictionary (torch's default collate makes batches of it):
        "image": float32 (3, S, S).
        "mask": uint8 (S, S) of 0 and 1; all 0 for a normal image and where "has_mask" is False.
        "has_mask": bool; True for a normal image, whose mask is all 0. Pixel metrics leave the others out.
        "label": 0 normal, 1 anomalous.
        "size": int64 (2,), width and height of the picture in its file, upright.
        "index": position in `entries`.

    A file that cannot be read raises InputError. Iterate over a DataLoader with `read_batches`, which
    keeps that sentence as it is when the file was read in a worker process.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        transform: Callable[[Image.Image], torch.Tensor],
        image_size: int,
        mask_threshold: Literal["auto"] | int = "auto",
        with_masks: bool = True,
    ) -> None:
        self.entries = entries
        self.transform = transform
        self.image_size = image_size
        self.mask_threshold: Literal["auto"] | int = mask_threshold
        self.with_masks = with_masks
        # Per worker its process number and what it is reading, or -1: in shared memory, to be seen after its death.
        self._in_hand = torch.full((MOST_WORKERS, 2), -1).share_memory_()

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        worker = get_worker_info()
        if worker is None:
            return self._read(index)
        place = worker.id % MOST_WORKERS
        self._in_hand[place] = torch.tensor([os.getpid(), index])
        item = self._read(index)
        self._in_hand[place, 1] = -1
        return item

    def in_hand(self, processes: Container[int]) -> list[Path]:
        """The images that these worker processes are reading, or were reading when they died."""
        return [
            self.entries[index].image_path
            for process, index in self._in_hand.tolist()
            if process in processes and index >= 0
        ]

    def _read(self, index: int) -> dict[str, Any]:
        entry = self.entries[index]
        has_mask = entry.anomaly == 0 or (self.with_masks and entry.mask_path is not None)
        mask = np.zeros((self.image_size, self.image_size), np.uint8)
        if entry.anomaly and has_mask:
            mask = read_mask(entry, self.image_size, self.mask_threshold)
        picture = read_image(entry.image_path)
        return {
            "image": self.transform(picture),
            "mask": torch.from_numpy(mask),
            "has_mask": has_mask,
            "label": entry.anomaly,
            "size": torch.tensor(picture.size),
            "index": index,
        }


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
    parts = [f"{value} for {_count(number, 'mask', 'masks')}" for value, number in thresholds.items()]
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
        f"{index.root}: {len(entries)} test images in {_count(len(classes), 'class', 'classes')}, "
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
            f"Training needs a mask for every anomalous image, and {_count(len(without), 'has', 'have')} none "
            f"on record: {_names(without)}; add the masks and build meta.json again, or leave these images out."
        )
    return _size_notices(with_mask)


def _size_notices(pairs: Sequence[tuple[Entry, Path]]) -> list[str]:
    sizes = [(mask, image_size(mask), image_size(entry.image_path)) for entry, mask in pairs]
    other = [(mask, mask_size, size) for mask, mask_size, size in sizes if mask_size != size]
    if not other:
        return []
    mask, mask_size, size = other[0]
    return [
        f"{_count(len(other), 'mask has', 'masks have')} another size than the image and will be stretched over it "
        f"({mask} is {mask_size[0]} x {mask_size[1]}, its image {size[0]} x {size[1]}): "
        f"{_names([mask for mask, _, _ in other])}"
    ]


def _missing(kind: str, paths: Sequence[Path]) -> str:
    are = "is" if len(paths) == 1 else "are"
    return (
        f"{_count(len(paths), kind, kind + 's')} that meta.json lists {are} missing: {_names(paths)}; "
        "copy them back, or build meta.json again with the scripts in generic_dataset_json."
    )


def _names(paths: Sequence[Path]) -> str:
    more = len(paths) - NAMED_FILES
    return ", ".join(map(str, paths[:NAMED_FILES])) + (f" and {more} more" if more > 0 else "")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def read_batches(loader: DataLoader[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Iterate over a loader; an image that cannot be read ends it with the plain InputError sentence.

    torch raises a worker's exception again with a page of traceback as its message, and says of a worker that the
    system killed nothing but its number.

    Raises:
        InputError: an image cannot be read, or a worker died; the sentence names the file.
    """
    try:
        yield from loader
    except InputError as error:
        raise unwrap_worker_error(error) from None
    except RuntimeError as error:
        message = str(error).splitlines()[0] if str(error) else ""
        if "DataLoader worker" not in message:
            raise
        raise InputError(_worker_death(message, loader.dataset)) from error


def _worker_death(message: str, dataset: Any) -> str:
    dead = {int(number) for number in re.findall(r"\d+", message)}
    files = dataset.in_hand(dead) if isinstance(dataset, AnomalyDataset) else []
    reading = f" while it read {_names(files)}" if files else ""
    return (
        f"A process that reads images died{reading} ({message.strip()}); look at that file, or lower --workers if the "
        "machine is short of memory."
    )


def unwrap_worker_error(error: InputError) -> InputError:
    """The error as it was raised in a DataLoader's worker process, without torch's traceback text."""
    marker = f"{InputError.__module__}.{InputError.__qualname__}: "  # opens the traceback's last line
    return InputError(str(error).rpartition(marker)[2].strip())
