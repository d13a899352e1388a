"""Write meta.json for VisA, from its own tree and split_csv/1cls.csv, or rearranged like MVTec AD.

python generic_dataset_json/visa.py --root /data/visa
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import MVTEC_LAYOUT
from generic_dataset_json.builder.layouts import Layout, Match, take_from_table
from generic_dataset_json.builder.tables import read_label, read_split, read_table
from utils import run

SPLIT_TABLE = "split_csv/1cls.csv"


def _take_split(root: Path, files: Mapping[str, int | None], match: Match) -> Match:
    """Splits and labels as the table has them; rows of classes that are not there are no matter."""
    table = root / match.folder / SPLIT_TABLE
    here = {image.fields["cls"] for image in match.images}
    rows = {
        match.folder + row["image"]: (read_label(row["label"], table), read_split(row["split"], table))
        for row in read_table(table, ("object", "split", "label", "image"))
        if row["object"] in here
    }
    return take_from_table(match, rows, table, key=lambda image: image.path)


PUBLIC = Layout(
    name="public download",
    images=("{cls}/Data/Images/{specie:Normal|Anomaly}/{stem}",),
    masks=("{cls}/Data/Masks/{specie:Anomaly}/{stem}",),
    normal=frozenset({"normal"}),
    refine=_take_split,
)
BUILDER = Builder(
    name="visa",
    layouts=(PUBLIC, MVTEC_LAYOUT),
    classes=(
        *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
        *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
    ),
)
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
