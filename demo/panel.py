"""Draw the sample pictures in docs/images/ and the panel at the top of the README.

    python -m demo.panel

The samples show unseen classes; the panel puts picture, heat map, outline and ground truth side by side.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from AnomalyCLIP_lib.backbone import CHECKPOINTS, DEMO_BACKBONE
from AnomalyCLIP_lib.decisions import decide, map_values
from AnomalyCLIP_lib.files import output_folder
from AnomalyCLIP_lib.loading import load
from demo.drawing.generator import picture_pair
from demo.make_dataset import MINIMUM_DIFFERENCE
from pipeline.reporting.margins import arranged
from pipeline.reporting.pictures import panel, save_picture
from utils import run

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
    """The panels of the samples (see `pictures.panel`) under each other, (height, width, 3) uint8 RGB."""
    model = load(DEMO_BACKBONE)
    thresholds, layers = model.thresholds(), model.layers
    panels = []
    for name, truth in truths.items():
        image = Image.open(folder / f"{name}.png")
        prediction = model.predict(image)
        values = map_values(prediction.anomaly_map[0].numpy(), layers, image.size)
        decision = decide(prediction.anomaly_score.item(), thresholds, values)
        panels.append(panel(image, decision, values, truth))
    return arranged(panels, across=False, gap=MARGIN)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CHECKPOINTS.parent / "docs" / "images", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    folder = output_folder(arguments.out, "--out")
    save_picture(draw_panel(folder, draw_samples(folder)), folder / "demo_panel.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
