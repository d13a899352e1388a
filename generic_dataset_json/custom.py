"""Write meta.json for your own images: a tree, two folders, or a table. Any class names will do.

    python generic_dataset_json/custom.py --root FOLDER
        FOLDER holds <class>/test/good, <class>/test/<defect> and, where there are masks,
        <class>/ground_truth/<defect>; with a single class, test/good, test/<defect>, ground_truth/<defect>.
        Folders named ok or normal count as good.
    python generic_dataset_json/custom.py --normal FOLDER --anomalous FOLDER [--masks FOLDER]
    python generic_dataset_json/custom.py --csv FILE
        Columns image and label (0 or normal, 1 or anomalous), optionally mask and class.

meta.json is written to the folder that holds all the images, or to --out; test.py and train.py take
that folder, or the file, as their data path.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import is_image_name, walk_files
from generic_dataset_json.builder.building import (
    NO_MASK,
    Builder,
    Report,
    add_output_flags,
    build,
    complain,
    make_entry,
    unusable_files,
    write_entries,
)
from generic_dataset_json.builder.common_layouts import MVTEC_LAYOUT
from generic_dataset_json.builder.layouts import Found
from generic_dataset_json.builder.pairing import pair_masks
from generic_dataset_json.builder.tables import read_label, read_table
from utils import run

TREE = replace(MVTEC_LAYOUT, name="a tree of classes", masks_optional=True)
SINGLE_CLASS_TREE = replace(
    TREE,
    name="a tree of one class",
    images=("{split:train|test}/{specie}/{stem}",),
    masks=("ground_truth/{specie}/{stem}",),
)


@dataclass(frozen=True)
class _Row:
    image: Path
    """Absolute, like `mask`."""
    label: int
    mask: Path | None
    class_name: str
    specie_name: str = ""

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.image, self.mask) if path]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Raises:
        InputError: the flags don't go together, or images, masks or labels are missing; nothing is written.
    """
    arguments = _parser().parse_args(argv)
    forms = [bool(arguments.root), bool(arguments.normal or arguments.anomalous), bool(arguments.csv)]
    if sum(forms) != 1 or bool(arguments.normal) != bool(arguments.anomalous):
        raise InputError("Give one of --root FOLDER, --normal FOLDER with --anomalous FOLDER, or --csv FILE.")
    if arguments.masks and not arguments.normal:
        raise InputError("--masks goes with --normal and --anomalous only; leave it out.")
    if arguments.root:
        builder = Builder("custom", (TREE, SINGLE_CLASS_TREE), class_name=arguments.name or "")
        report = build(builder, arguments.root, arguments.out, arguments.allow_missing_masks)
    else:
        report = _from_table(arguments) if arguments.csv else _from_folders(arguments)
    print(report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write meta.json for your own images.")
    parser.add_argument("--root", type=Path, help="a tree <class>/test/good, <class>/test/<defect>, ...")
    parser.add_argument("--normal", type=Path, help="a folder of normal images")
    parser.add_argument("--anomalous", type=Path, help="a folder of anomalous images")
    parser.add_argument("--masks", type=Path, help="a folder of masks, named like the anomalous images")
    parser.add_argument("--csv", type=Path, help="a table with the columns image, label and optionally mask, class")
    parser.add_argument("--name", help="the class's name where there is none (default: that of the images' folder)")
    add_output_flags(parser)
    return parser


def _from_folders(arguments: argparse.Namespace) -> Report:
    normal, anomalous = _absolute(arguments.normal), _absolute(arguments.anomalous)
    masks = _absolute(arguments.masks) if arguments.masks else None
    for inner, outer in ((normal, anomalous), (anomalous, normal)):
        if inner.is_relative_to(outer):
            raise InputError(f"{inner} lies inside {outer}, so its images would count twice; choose separate folders.")
    if masks in (normal, anomalous):
        raise InputError(f"--masks {masks} is a folder of images; the masks need a folder of their own.")
    defects = _images(anomalous, masks)
    pairs, problems = {}, []
    if masks:
        images = [_found(path, anomalous) for path in defects]
        pairs, problems = pair_masks(images, [_found(path, masks) for path in _images(masks, None)])
    name = arguments.name or _common_folder([normal, anomalous]).name
    normal_specie = "good" if normal.name.lower() == "good" else ""
    rows = [_Row(path, 0, None, name, normal_specie) for path in _images(normal, masks)]
    for path in defects:
        mask = pairs.get(str(path))
        rows.append(_Row(path, 1, Path(mask) if mask else None, name, anomalous.name))
    root = _common_folder([normal, anomalous, *([masks] if masks else [])])
    return _write(rows, root, "two folders", problems, arguments)


def _from_table(arguments: argparse.Namespace) -> Report:
    table = _absolute(arguments.csv)
    rows = []
    for row in read_table(table, ("image", "label")):
        if not row["image"]:
            raise InputError(f"{table} has a row without an image; fill in its path or remove the row.")
        label = read_label(row["label"], table)
        mask = _absolute(table.parent / row["mask"]) if label and row.get("mask") else None
        rows.append(_Row(_absolute(table.parent / row["image"]), label, mask, row.get("class", "")))
    folders = [path.parent for row in rows for path in row.paths]
    # Beside the table, where one looks for it, if all images lie there too.
    root = table.parent if all(path.is_relative_to(table.parent) for path in folders) else _common_folder(folders)
    name = arguments.name or root.name
    rows = [replace(row, class_name=row.class_name or name) for row in rows]
    counts = Counter(row.image for row in rows)
    problems = [f"{path}: listed {count} times" for path, count in counts.items() if count > 1]
    return _write(rows, root, "a table", problems, arguments)


def _write(rows: Sequence[_Row], root: Path, layout: str, problems: list[str], arguments: argparse.Namespace) -> Report:
    paths = sorted({path for row in rows for path in row.paths})
    problems = problems + unusable_files({str(path): _size(path) for path in paths})
    if any(row.mask for row in rows) and not arguments.allow_missing_masks:
        problems += [f"{row.image}: {NO_MASK}" for row in rows if row.label and not row.mask]
    complain(root, layout, problems)
    entries = []
    for row in rows:
        image = row.image.relative_to(root).as_posix()
        mask = row.mask.relative_to(root).as_posix() if row.mask else None
        entries.append(("test", make_entry(root, image, mask, row.class_name, row.specie_name, row.label)))
    return write_entries(Builder("custom", ()), layout, entries, root, arguments.out)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _images(folder: Path, but: Path | None) -> list[Path]:
    paths = [folder / name for name in sorted(dict(walk_files(folder))) if is_image_name(name)]
    paths = [path for path in paths if but is None or not path.is_relative_to(but)]
    if not paths:
        raise InputError(f"{folder} holds no images; check the path.")
    return paths


def _found(path: Path, folder: Path) -> Found:
    """What pairing needs: masks lie in subfolders as their images do."""
    return Found(str(path), {"folder": path.parent.relative_to(folder).as_posix(), "stem": path.stem})


def _common_folder(folders: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        raise InputError("The images lie on several drives; bring them under one folder.") from None


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None


if __name__ == "__main__":
    raise SystemExit(run(main))
