"""A dataset of drawn pictures with meta.json, of any number of images."""

import contextlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from generic_dataset_json import custom

GRAIN = 8  # pixels from one random value of a picture to the next


def draw_dataset(root: Path, images: int, side: int) -> None:
    """Write pictures (side x side) of one class into `root`; every second one has a spot and the mask of it.

    A single class is the hardest case for memory: what is kept for a class is let go at its end.
    """
    for index in range(images):
        rng = np.random.default_rng(index)
        grains = -(-side // GRAIN)
        noise = Image.fromarray(rng.integers(0, 256, (grains, grains, 3), dtype=np.uint8))
        picture = noise.resize((side, side), Image.Resampling.BICUBIC)
        if index % 2:
            top, left = (int(corner) for corner in rng.integers(0, side // 2, 2))
            box = (left, top, left + side // 4, top + side // 4)
            mask = Image.new("L", (side, side))
            mask.paste(255, box)
            picture.paste((250, 20, 20), box)
            _save(mask, root / "texture/ground_truth/spot" / f"{index:06d}.png")
        _save(picture, root / "texture/test" / ("spot" if index % 2 else "good") / f"{index:06d}.png")
    with contextlib.redirect_stdout(io.StringIO()):
        custom.main(["--root", str(root)])


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
