"""Write meta.json for BTAD, laid out like MVTec AD but with `ok` and `ko` folders.

Images are .bmp in two of its classes and .png in the third, and so are masks, not always alike.

    python generic_dataset_json/btad.py --root /data/btad
"""

import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import MVTEC_LAYOUT
from utils import run

BUILDER = Builder(name="btad", layouts=(MVTEC_LAYOUT,), classes=("01", "02", "03"))
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
