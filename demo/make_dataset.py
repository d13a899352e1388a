"""Draw the demo dataset: auxiliary classes to learn prompts on, and unseen ones to test, each in MVTec AD's layout.

    python -m demo.make_dataset --out data/demo

writes data/demo/auxiliary and data/demo/unseen, each with its meta.json. The same seed gives the same pictures.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from AnomalyCLIP_lib.files import output_folder
from demo.drawing.categories import AUXILIARY, UNSEEN
from demo.drawing.generator import picture_pair
from generic_dataset_json import custom
from utils import positive, run

PARTS = {"auxiliary": AUXILIARY, "unseen": UNSEEN}
PICTURE_SIZE = 128
MINIMUM_DIFFERENCE = 0.15  # a defect changes its pixels by this share of the grey range, on average
DEFAULT_SEED = 2024  # the pretraining uses another, so that not even a category's pictures are the same


def make_dataset(out: Path, pictures: int, seed: int = DEFAULT_SEED, size: int = PICTURE_SIZE) -> None:
    """Draw both parts below `out`.

    Args:
        out: folder, created where it does not exist; an older dataset in it is replaced.
        pictures: intact pictures per class, and as many damaged ones of other individuals.
        seed: of the pictures.
        size: their side in pixels.
    """
    for part, categories in PARTS.items():
        shutil.rmtree(out / part, ignore_errors=True)  # pictures of another seed or number would stay in meta.json
        for category in tqdm(categories, desc=f"drawing {part}", unit="class", leave=False, disable=None):
            folder = out / part / category
            for number in range(pictures):
                intact = picture_pair(category, size, [seed, 0, number], MINIMUM_DIFFERENCE).intact
                _save(intact, folder / "test" / "good" / f"{number:03d}.png")
                pair = picture_pair(category, size, [seed, 1, number], MINIMUM_DIFFERENCE)
                defect = pair.defect.replace(" ", "_")
                _save(pair.damaged, folder / "test" / defect / f"{number:03d}.png")
                _save(pair.mask.astype(np.uint8) * 255, folder / "ground_truth" / defect / f"{number:03d}_mask.png")
        custom.main(["--root", str(out / part)])


def _save(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/demo"), help="default: %(default)s")
    parser.add_argument("--pictures", type=positive, default=30, help="per class and label (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    make_dataset(output_folder(arguments.out, "--out"), arguments.pictures, arguments.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
