"""Training from cached features: the plain computation, which encodes in every epoch, against ours, which does once.

    python -m benchmarks.training --images 16

One epoch of the plain computation is timed and multiplied; ours is timed in full: reading and encoding the images,
writing the cache, and all epochs.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import train
from AnomalyCLIP_lib.backbone import PAPER_BACKBONE
from AnomalyCLIP_lib.distributed import ALONE
from AnomalyCLIP_lib.model import AnomalyCLIP
from benchmarks import naive
from benchmarks.encoding import random_model
from benchmarks.table import Row, seconds, table
from command_line import positive, run
from dataset import AnomalyDataset, Entry
from training_features import CacheOptions, feature_batches


def cached_training(model: AnomalyCLIP, images: int, batch: int, epochs: int) -> Row:
    """A whole run on pictures of noise, every second one with a mask."""
    assert model.prompts is not None
    with tempfile.TemporaryDirectory() as name:
        dataset = AnomalyDataset(
            _pictures(Path(name), images, model.settings.image_size), model.preprocess, model.settings.image_size
        )
        optimizer = torch.optim.Adam(model.prompts.parameters(), lr=0.0)
        start = time.perf_counter()
        losses = []
        for first in range(0, images, batch):
            items = [dataset[index] for index in range(first, min(first + batch, images))]
            stacked, masks = (torch.stack([item[key] for item in items]) for key in ("image", "mask"))
            labels = torch.tensor([item["label"] for item in items])
            losses.append(float(naive.training_step(model, optimizer, stacked, labels, masks.float())))
        plain = (time.perf_counter() - start) * epochs

        start = time.perf_counter()
        options = CacheOptions(Path(name) / "cache", required=True)
        batches = feature_batches(model, dataset, batch, 111, 0, options, ALONE, print)
        assert batches is not None
        for _ in range(epochs):
            found = [
                sum(train.training_step(model, optimizer, b.image_features, b.patch_features, b.labels, b.masks))
                for b in batches
            ]
        ours = time.perf_counter() - start
    # Batches of another composition: only where one batch holds all images are the losses the same sums.
    difference = f"{abs(losses[0] - found[0]):.1e}" if len(losses) == 1 else ""
    what = f"training, {images} images, {epochs} epochs, batch {batch}"
    return Row(what, seconds(plain), seconds(ours), f"{plain / ours:.1f}x", difference)


def _pictures(folder: Path, count: int, side: int) -> list[Entry]:
    rng = np.random.default_rng(0)
    entries = []
    for index in range(count):
        picture, mask = folder / f"{index}.png", folder / f"{index}_mask.png"
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(picture)
        spot = np.zeros((side, side), np.uint8)
        spot[side // 4 : side // 2, side // 4 : side // 2] = 255
        Image.fromarray(spot).save(mask)
        entries.append(Entry(picture, mask if index % 2 else None, "noise", "", index % 2, picture.name))
    return entries


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default=PAPER_BACKBONE, help="default: %(default)s")
    parser.add_argument("--image_size", type=positive, help="default: the backbone's (518)")
    parser.add_argument("--images", type=positive, default=16, help="default: %(default)s")
    parser.add_argument("--batch", type=positive, default=8, help="default: %(default)s")
    parser.add_argument("--epochs", type=positive, default=15, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    model = random_model(arguments.backbone, arguments.image_size)
    print(table([cached_training(model, arguments.images, arguments.batch, arguments.epochs)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
