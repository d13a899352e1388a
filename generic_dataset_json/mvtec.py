"""Write meta.json for MVTec AD, or for any dataset that is laid out like it.

python generic_dataset_json/mvtec.py --root /data/mvtec
"""

import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import MVTEC_LAYOUT
from utils import run

BUILDER = Builder(
    name="mvtec",
    layouts=(MVTEC_LAYOUT,),
    classes=(
        *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw"),
        *("tile", "toothbrush", "transistor", "wood", "zipper"),
    ),
)
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
