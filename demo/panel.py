"""Draw the sample pictures in assets/ and the panel at the top of the README.

    python -m demo.panel

The samples show unseen classes; the panel puts picture, heat map and ground truth of the demo model side by side.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from AnomalyCLIP_lib.backbone import DEMO_BACKBONE, REPOSITORY
from AnomalyCLIP_lib.files import output_folder
from AnomalyCLIP_lib.findings import values_at
from AnomalyCLIP_lib.loading import load
from command_line import run
from demo.generator import picture_pair
from demo.make_dataset import MINIMUM_DIFFERENCE
from reporting.pictures import overlay, save_picture

SAMPLES = {  # name of the file: category, seed, damaged
    "washer_damaged": ("washer", 8, True),
    "woven_damaged": ("woven", 2, True),
    "marble_damaged": ("marble", 7, True),
    "capsule_intact": ("capsule", 1, False),
}
SAMPLE_SIZE = 256
MARGIN = 8


def draw_samples(folder: Path) -> dict[str, np.ndarray]:
    """Write the samples as PNG; returns their ground truth, (SAMPLE_SIZE, SAMPLE_SIZE) bool, by name."""
    truths = {}
    for name, (category, seed, is_damaged) in SAMPLES.items():
        pair = picture_pair(category, SAMPLE_SIZE, seed, MINIMUM_DIFFERENCE)
        save_picture(pair.damaged if is_damaged else pair.intact, folder / f"{name}.png")
        truths[name] = pair.mask if is_damaged else np.zeros_like(pair.mask)
    return truths


def draw_panel(folder: Path, truths: dict[str, np.ndarray]) -> np.ndarray:
    """The samples beside each other; below each its heat map, its ground truth and the image score."""
    model = load(DEMO_BACKBONE)
    layers = len(model.settings.map_positions())
    columns = []
    for name, truth in truths.items():
        image = Image.open(folder / f"{name}.png")
        prediction = model.predict(image)
        heat_map = overlay(image, values_at(prediction.anomaly_map[0].numpy(), layers, image.size))
        mask = np.repeat(truth.astype(np.uint8)[..., None] * 255, 3, axis=2)
        caption = np.full((28, SAMPLE_SIZE, 3), 255, np.uint8)
        text = f"score {prediction.anomaly_score.item():.2f}"
        cv2.putText(caption, text, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        gap = np.full((MARGIN, SAMPLE_SIZE, 3), 255, np.uint8)
        columns.append(np.concatenate([np.asarray(image), gap, heat_map, gap, mask, caption]))
    gap = np.full((len(columns[0]), MARGIN, 3), 255, np.uint8)
    return np.concatenate([part for column in columns for part in (column, gap)][:-1], axis=1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "assets", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    folder = output_folder(arguments.out, "--out")
    save_picture(draw_panel(folder, draw_samples(folder)), folder / "demo_panel.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
