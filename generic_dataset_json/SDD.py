"""Write meta.json for SDD (KolektorSDD, electrical commutators).

    python generic_dataset_json/SDD.py --root /data/SDD
    python generic_dataset_json/SDD.py --root /data/SDD --crops /data/SDD_thirds

The download has no split: all its images, whole, go into the test split. With --crops the images are cut
in thirds by height into a folder of their own, with a seeded split, and meta.json is written there. The
paper's 181 normal and 74 anomalous images are a cut of its authors that neither way gives back.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import decode_mask, read_bytes, walk_files
from generic_dataset_json.builder.building import Builder, build, builder_parser, complain, find_layout, unusable_files
from generic_dataset_json.builder.common_layouts import MVTEC_LAYOUT
from generic_dataset_json.builder.cutting import cut_dataset
from generic_dataset_json.builder.layouts import Layout
from generic_dataset_json.builder.pairing import pair_masks
from utils import run

CLASS_NAME = "electrical commutators"


def _label(root: Path, mask: str | None) -> int | None:
    """1 if anything is drawn in the label image; every image has one."""
    if mask is None:
        return None
    return int(decode_mask(read_bytes(root / mask), root / mask).any())


PUBLIC = Layout(
    name="public download",
    images=(r"{part:kos\d+}/{stem}",),
    masks=(r"{part:kos\d+}/{stem}_label",),
    decide=_label,
)
BUILDER = Builder(
    name="SDD",
    layouts=(PUBLIC, MVTEC_LAYOUT),
    class_name=CLASS_NAME,
    difference="the paper's is a cut of its authors, in which the images and the split are not those of the download",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Raises:
        InputError: see `build` and `cut_dataset`.
    """
    parser = builder_parser(BUILDER)
    parser.add_argument("--crops", type=Path, help="new folder for the images cut in thirds, and their meta.json")
    parser.add_argument("--seed", type=int, default=111, help="of the split of --crops (default 111)")
    arguments = parser.parse_args(argv)
    root = arguments.root
    if arguments.crops:
        if arguments.out:
            raise InputError("--out does not go with --crops: meta.json lies beside the crops; omit it.")
        _cut(root, arguments.crops, arguments.seed)
        root = arguments.crops
    print(build(BUILDER, root, arguments.out, arguments.allow_missing_masks))
    return 0


def _cut(root: Path, folder: Path, seed: int) -> None:
    files = dict(walk_files(root))
    layout, match = find_layout(replace(BUILDER, layouts=(PUBLIC,)), root, files)
    pairs, problems = pair_masks(match.images, match.masks)
    problems += unusable_files({found.path: files[found.path] for found in match.images + match.masks})
    problems += [f"{image.path}: its label is missing" for image in match.images if image.path not in pairs]
    complain(root, f"{BUILDER.name}, {layout.name}", problems)
    cut_dataset(root, match.images, pairs, folder, CLASS_NAME, seed)
    print(f"cut in thirds to {folder}; half of the items drawn for training with seed {seed}")


if __name__ == "__main__":
    raise SystemExit(run(main))
