"""Write meta.json for COVID-19: normal and COVID chest X-rays of the radiography database (no masks).

The masks that its later releases carry are of lungs, not of lesions, and are never used.

    python generic_dataset_json/covid.py --root /data/covid
"""

import sys
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import TEST_TREE
from generic_dataset_json.builder.layouts import Layout
from utils import run

FIRST_RELEASE = Layout(
    name="public download, first release",
    images=("{specie:COVID-19|COVID|NORMAL}/{stem}",),
    normal=frozenset({"normal"}),
)
CURRENT_RELEASE = Layout(
    name="public download, current release",
    images=("{specie:COVID|Normal}/images/{stem}",),
    normal=frozenset({"normal"}),
)
BUILDER = Builder(
    name="covid",
    layouts=(FIRST_RELEASE, CURRENT_RELEASE, TEST_TREE),
    class_name="chest",
    difference="the paper used the first release (1341 normal, 219 COVID); the current one has 10192 and 3616",
)
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
