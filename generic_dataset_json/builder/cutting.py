"""Cutting KolektorSDD's tall images in thirds, with a split that a seed decides."""

import os
import random
import shutil
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import decode_mask, read_bytes, read_image
from generic_dataset_json.builder.layouts import Found

PARTS = 3


def cut_dataset(
    root: Path, images: Sequence[Found], masks: dict[str, str], folder: Path, class_name: str, seed: int
) -> None:
    """Write the thirds of every image to `folder`, laid out like MVTec AD.

    Half of the items (the folders kos01, kos02, ...) are drawn for the training split; it gets their normal
    thirds, and the test split gets all others.

    Args:
        root: The dataset's folder; nothing in it is changed.
        images: The whole images; their `part` is the item's folder.
        masks: Label images by image path; all zero means normal.
        folder: A new folder, outside the root; it appears only when all is done.
        class_name: The folder of the class.
        seed: Of the draw.

    Raises:
        InputError: `folder` is in use, lies inside the root or cannot be written; an image cannot be read.
    """
    if folder.resolve().is_relative_to(root.resolve()):
        raise InputError(f"--crops {folder} lies inside the dataset, which is not changed; choose a folder outside it.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--crops {folder} is in use; choose a new or an empty folder.")
    items = sorted({image.fields["part"] for image in images})
    in_training = set(random.Random(seed).sample(items, len(items) // 2))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise InputError(f"--crops {folder} cannot be written: {error.strerror}; choose another folder.") from error
    try:
        temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
        for image in tqdm(images, desc="cutting", unit="image"):
            _cut(root, image, masks[image.path], temporary / class_name, image.fields["part"] in in_training)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _cut(root: Path, image: Found, mask: str, target: Path, in_training: bool) -> None:
    picture = np.asarray(read_image(root / image.path).convert("L"))
    defect = decode_mask(read_bytes(root / mask), root / mask)
    if defect.shape != picture.shape:
        raise InputError(f"{root / mask} has another size than its image {root / image.path}; unpack both again.")
    edges = [picture.shape[0] * part // PARTS for part in range(PARTS + 1)]
    for part, (top, bottom) in enumerate(pairwise(edges)):
        name = f"{image.fields['part']}_{image.stem}_{part}.png"
        defective = bool(defect[top:bottom].any())
        split = "train" if in_training and not defective else "test"
        _save(picture[top:bottom], target / split / ("defect" if defective else "good") / name)
        if defective:
            _save(defect[top:bottom].astype(np.uint8) * 255, target / "ground_truth" / "defect" / name)


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
