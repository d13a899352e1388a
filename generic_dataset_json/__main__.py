"""Find which of the 17 datasets lie under one folder, by their folders' names, and write meta.json for each.

    python -m generic_dataset_json --root /data
    python -m generic_dataset_json --root /data --folders [mvtec visa ...]

The second form is for scripts: standard output has a line "name<TAB>folder" for each dataset, and only what lacks its
meta.json gets one. Without names it takes all that are found and passes over those that cannot be built.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tabulate import tabulate

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import walk_files
from generic_dataset_json.builder.building import Builder, build
from generic_dataset_json.meta_json import FILE_NAME
from generic_dataset_json.names import DATASETS, DatasetFacts, find_dataset
from utils import run

_HEADER = ("dataset", "layout found", "normal/anomalous in test", "the paper", "notes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 if a dataset was found that could not be written.

    Raises:
        InputError: the folder does not exist, a name is not known, its dataset is not there or not complete, or none of
            the datasets lies under the folder.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="datasets, with --folders (default: all that are found)")
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds the datasets' folders")
    parser.add_argument("--allow_missing_masks", action="store_true", help="as in the single builders")
    parser.add_argument("--folders", action="store_true", help="print where the datasets lie, see above")
    arguments = parser.parse_args(argv)
    if arguments.names and not arguments.folders:
        raise InputError("Names of datasets go with --folders; the script of a dataset writes its list alone.")
    if arguments.folders:
        return _print_folders(arguments)
    found, passed_over = _find_folders(arguments.root)
    for line in passed_over:
        print(f"passed over {line}")
    if not found:
        raise _nothing_found(arguments.root)
    rows, failed = [], []
    for facts, folder in found:
        paper = f"{facts.normal}/{facts.anomalous}"
        try:
            report = build(builder_of(facts), folder, allow_missing_masks=arguments.allow_missing_masks)
        except InputError as error:
            failed.append(str(error))
            rows.append((facts.name, "-", "-", paper, "not written, see below"))
        else:
            counts = f"{report.normal}/{report.anomalous}"
            rows.append((facts.name, report.layout, counts, paper, "; ".join(report.notes)))
    print(tabulate(rows, headers=_HEADER, tablefmt="pipe"))
    for line in failed:
        print(f"\nnot written: {line}")
    return 2 if failed else 0


def builder_of(facts: DatasetFacts) -> Builder:
    """What a dataset's script declares."""
    return import_module(f"generic_dataset_json.{facts.module}").BUILDER


def _print_folders(arguments: argparse.Namespace) -> int:
    root, wanted = arguments.root, [_known(name) for name in arguments.names]
    found, passed_over = _find_folders(root)
    folders: dict[DatasetFacts, Path] = {}
    for facts, folder in found:  # of several folders of one dataset, the one with its plain name, else the first
        if facts not in folders or folder.name.lower() == facts.name.lower():
            folders[facts] = folder
    lines = []
    for facts in wanted or folders:
        if facts not in folders:
            raise InputError(
                f"{root} holds no {facts.paper_name}; download it from {facts.source}, unpack it to "
                f"{root / facts.name}, or let DATA_ROOT name the folder that holds it."
            )
        try:
            if not (folders[facts] / FILE_NAME).is_file():
                print(
                    build(builder_of(facts), folders[facts], allow_missing_masks=arguments.allow_missing_masks),
                    file=sys.stderr,
                )
        except InputError as error:
            if wanted:
                raise
            passed_over.append(str(error))
        else:
            lines.append(f"{facts.name}\t{folders[facts]}")
    for line in [] if wanted else passed_over:
        print(f"passed over {line}", file=sys.stderr)
    if not lines:
        raise _nothing_found(root)
    print("\n".join(lines))
    return 0


def _find_folders(root: Path) -> tuple[list[tuple[DatasetFacts, Path]], list[str]]:
    """The datasets below `root` with their folders, and a sentence for each folder that may be several or is none."""
    try:
        subfolders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"The folder {root} cannot be read: {error.strerror}; check the path.") from error
    found, passed_over = [], []
    for folder in subfolders:
        named = find_dataset(folder.name)
        if len(named) == 1:
            found.append((named[0], folder))
            continue
        files = dict(walk_files(folder))
        fitting = [
            facts for facts in named or DATASETS if any(layout.match(files) for layout in builder_of(facts).layouts)
        ]
        if named and len(fitting) == 1:
            found.append((fitting[0], folder))
        elif fitting:
            passed_over.append(
                f"{folder}: laid out like {_names(fitting)}; run the script of the one that it is, or custom.py for "
                "data of your own"
            )
        elif named:
            passed_over.append(f"{folder}: named like {_names(named)}, laid out like none of them")
    return found, passed_over


def _known(name: str) -> DatasetFacts:
    datasets = find_dataset(name)
    if len(datasets) != 1:
        wrong = "may be several datasets" if datasets else "is no known dataset"
        raise InputError(f"{name} {wrong}; name one of {_names(datasets or DATASETS)}.")
    return datasets[0]


def _names(datasets: Sequence[DatasetFacts]) -> str:
    return ", ".join(facts.name for facts in datasets)


def _nothing_found(root: Path) -> InputError:
    return InputError(f"{root} holds no folder with the name of a known dataset ({_names(DATASETS)}); check the path.")


if __name__ == "__main__":
    raise SystemExit(run(main))
