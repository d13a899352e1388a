"""Write meta.json for DAGM 2007 (textures; weak, elliptical masks).

An image is anomalous if it has a label file or if the list in its Label folder names one.

    python generic_dataset_json/DAGM.py --root /data/DAGM
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json.builder.building import Builder, run_builder
from generic_dataset_json.builder.common_layouts import MVTEC_LAYOUT
from generic_dataset_json.builder.layouts import Layout, Match
from generic_dataset_json.builder.tables import read_text
from utils import run

_LABEL_NAME = re.compile(r"(\S+)_label\.\w+", re.IGNORECASE)


def _take_labels(root: Path, files: Mapping[str, int | None], match: Match) -> Match:
    """Images whose label file Labels.txt names are anomalous, so that a lost label file is noticed."""
    named = set()
    for path in files:
        if path.lower().endswith("/label/labels.txt"):
            folder = path.rsplit("/", 2)[0]
            named.update(f"{folder}/{stem}".lower() for stem in _LABEL_NAME.findall(read_text(root / path)))
    images = [
        replace(image, anomaly=1) if image.path.rpartition(".")[0].lower() in named else image for image in match.images
    ]
    return replace(match, images=images)


PUBLIC = Layout(
    name="public download",
    images=("{cls}/{split:train|test}/{stem}",),
    masks=("{cls}/{split:train|test}/Label/{stem}",),
    refine=_take_labels,
)
BUILDER = Builder(
    name="DAGM",
    layouts=(PUBLIC, MVTEC_LAYOUT),
    classes=tuple(f"Class{number}" for number in range(1, 11)),
)
main = partial(run_builder, BUILDER)


if __name__ == "__main__":
    raise SystemExit(run(main))
