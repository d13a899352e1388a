"""Write meta.json for HeadCT (haemorrhage; no masks).

python generic_dataset_json/head_ct.py --root /data/head_ct
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import TEST_TREE
from generic_dataset_json.builder.layouts import Layout, Match, take_from_table
from generic_dataset_json.builder.tables import read_label, read_table
from utils import run

LABEL_TABLE = "labels.csv"


def _take_labels(root: Path, files: Mapping[str, int | None], match: Match) -> Match:
    """Labels by the number that is the image's name; the table lies beside the images or above them."""
    tables = [path for path in files if path.lower().rpartition("/")[2] == LABEL_TABLE]
    table = root / min(tables, key=lambda path: (path.count("/"), path), default=LABEL_TABLE)
    rows = {
        row["id"].zfill(3): (read_label(row["hemorrhage"], table), "test")
        for row in read_table(table, ("id", "hemorrhage"))
    }
    return take_from_table(match, rows, table, key=lambda image: image.stem.zfill(3))


PUBLIC = Layout(name="public download", images=(r"head_ct/{stem:\d+}",), refine=_take_labels)
BUILDER = Builder(name="head_ct", layouts=(PUBLIC, TEST_TREE), class_name="brain")
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
