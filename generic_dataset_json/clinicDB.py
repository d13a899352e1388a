"""Write meta.json for CVC-ClinicDB (polyps; every image is anomalous).

python generic_dataset_json/clinicDB.py --root /data/clinicDB
"""

import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import IMAGES_AND_MASKS, TEST_TREE_WITH_MASKS
from generic_dataset_json.builder.layouts import Layout
from utils import run

OFFICIAL = Layout(name="the official archive", images=("Original/{stem}",), masks=("Ground Truth/{stem}",), anomaly=1)
BUILDER = Builder(name="clinicDB", layouts=(OFFICIAL, IMAGES_AND_MASKS, TEST_TREE_WITH_MASKS), class_name="colon")
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
