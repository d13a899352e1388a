"""Write meta.json for Kvasir (polyps; every image is anomalous; masks are JPEG files).

python generic_dataset_json/kvasir.py --root /data/kvasir
"""

import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import IMAGES_AND_MASKS, TEST_TREE_WITH_MASKS
from utils import run

BUILDER = Builder(name="kvasir", layouts=(IMAGES_AND_MASKS, TEST_TREE_WITH_MASKS), class_name="colon")
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
