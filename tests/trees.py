"""Small dataset folders on disk for the tests of builders, audit and custom data."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@cache
def picture(extension: str, seed: int = 0, height: int = 8, width: int = 6) -> bytes:
    """An encoded noise image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), extension)


@cache
def mask(extension: str, value: int = 255, height: int = 8, width: int = 6) -> bytes:
    """An encoded mask whose upper left quarter has the value."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[: height // 2, : width // 2] = value
    return encoded(Image.fromarray(pixels), extension)


def encoded(image: Image.Image, extension: str) -> bytes:
    """An image's bytes in the format of the extension."""
    buffer = io.BytesIO()
    image.save(buffer, format={"jpg": "jpeg", "tif": "tiff"}.get(extension.lower(), extension.lower()))
    return buffer.getvalue()


def write_tree(root: Path, files: str, masks: str = "", contents: dict[str, bytes] | None = None) -> Path:
    """Write a folder: images and masks at the paths in two texts, one path a line, and other files.

    Every image has other pixels. A name in the texts that is no image gets a few bytes.
    """
    everything = dict(contents or {})
    for number, line in enumerate(lines(files)):
        everything[line] = _content(line, number)
    for line in lines(masks):
        everything[line] = mask(line.rpartition(".")[2])
    for path, data in everything.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return root


def lines(text: str) -> list[str]:
    """The lines of an indented text, without the empty ones."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _content(path: str, seed: int) -> bytes:
    extension = path.rpartition(".")[2]
    known = extension.lower() in ("png", "jpg", "jpeg", "bmp", "tif")
    return picture(extension, seed) if known else b"not an image"


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file below a folder with its contents."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read_meta(path: Path) -> dict[str, Any]:
    """A meta.json; `path` is the file or its folder."""
    return json.loads((path / "meta.json" if path.is_dir() else path).read_text(encoding="utf-8"))


def meta_of(text: str) -> dict[str, Any]:
    """The meta.json, as a dictionary, that holds these entries in this order.

    One entry a line, "split | image | class | specie | anomaly" with "-" for "", and its mask, if it has one,
    in a line "mask | path" below it.
    """
    meta: dict[str, Any] = {"train": {}, "test": {}}
    entry: dict[str, Any] = {}
    for line in lines(text):
        kind, path, *rest = ("" if part == "-" else part for part in line.split(" | "))
        if kind == "mask":
            entry["mask_path"] = path
            continue
        class_name, specie, anomaly = rest
        entry = {"img_path": path, "mask_path": "", "cls_name": class_name, "specie_name": specie}
        entry["anomaly"] = int(anomaly)
        meta[kind].setdefault(class_name, []).append(entry)
    return meta


MVTEC_FILES = """
    bottle/train/good/000.png
    bottle/test/good/000.png
    bottle/test/broken_large/000.png
    bottle/test/broken_large/001.png
    bottle/test/broken_large/002.png
    bottle/test/contamination/000.png
"""
MVTEC_MASKS = """
    bottle/ground_truth/broken_large/000_mask.png
    bottle/ground_truth/broken_large/001_mask.png
    bottle/ground_truth/broken_large/002_mask.png
    bottle/ground_truth/contamination/000_mask.png
"""


def mvtec_tree(root: Path) -> Path:
    """A folder laid out like MVTec AD, with one class."""
    return write_tree(root, MVTEC_FILES, MVTEC_MASKS)
