"""Write meta.json for Br35H (brain tumours; no masks).

Its folders `pred` (no labels) and `Br35H-Mask-RCNN` (the same images again) are left out.

    python generic_dataset_json/br35.py --root /data/br35
"""

import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import TEST_TREE, YES_NO_LAYOUT
from utils import run

BUILDER = Builder(name="br35", layouts=(YES_NO_LAYOUT, TEST_TREE), class_name="brain")
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
