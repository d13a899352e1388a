"""Write meta.json for ISIC: the test images of ISBI 2016, part 1 (skin lesions; every image is anomalous).

python generic_dataset_json/isbi.py --root /data/isbi
"""

import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import ISIC_MASKS, TEST_TREE_WITH_MASKS
from generic_dataset_json.builder.layouts import Layout
from utils import run

PUBLIC = Layout(
    name="public download",
    images=("ISBI2016_ISIC_Part1_Test_Data/{stem}",),
    masks=(f"{ISIC_MASKS}/{{stem}}",),
    anomaly=1,
)
BUILDER = Builder(name="isbi", layouts=(PUBLIC, TEST_TREE_WITH_MASKS), class_name="skin")
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
