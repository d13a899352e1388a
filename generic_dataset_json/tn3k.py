"""Write meta.json for TN3K (thyroid nodules; every image is anomalous; masks are JPEG files).

Its `trainval` folders are left out.

    python generic_dataset_json/tn3k.py --root /data/tn3k
"""

import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import TEST_TREE_WITH_MASKS
from generic_dataset_json.builder.layouts import Layout
from utils import run

PUBLIC = Layout(name="public download", images=("test-image/{stem}",), masks=("test-mask/{stem}",), anomaly=1)
BUILDER = Builder(name="tn3k", layouts=(PUBLIC, TEST_TREE_WITH_MASKS), class_name="thyroid")
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
