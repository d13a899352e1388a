"""Write meta.json for DTD-Synthetic (textures with pasted defects), laid out like MVTec AD.

python generic_dataset_json/DTD.py --root /data/DTD
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
    name="DTD",
    layouts=(replace(MVTEC_LAYOUT, loose_mask_names=True),),
    classes=(
        *("Woven_001", "Woven_127", "Woven_104", "Stratified_154", "Blotchy_099", "Woven_068", "Woven_125"),
        *("Marbled_078", "Perforated_037", "Mesh_114", "Fibrous_183", "Matted_069"),
    ),
)
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
