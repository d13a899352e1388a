"""Write meta.json for MPDD (metal parts), laid out like MVTec AD.

python generic_dataset_json/mpdd.py --root /data/mpdd
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import MVTEC_LAYOUT
from utils import run

BUILDER = Builder(
    name="mpdd",
    layouts=(replace(MVTEC_LAYOUT, loose_mask_names=True),),
    classes=("bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"),
)
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
