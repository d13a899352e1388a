"""Print where datasets lie, a line "name<TAB>folder" for each; what lacks its meta.json gets it first.

    python -m generic_dataset_json.locate --root /data [mvtec visa ...]

Without names: all that are found, those that cannot be built passed over. All else is printed to
standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from AnomalyCLIP_lib.errors import InputError
from generic_dataset_json.builder.building import build
from generic_dataset_json.builder.finding import builder_of, find_folders, nothing_found
from generic_dataset_json.meta_json import FILE_NAME
from generic_dataset_json.names import DATASETS, DatasetFacts, find_dataset
from utils import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Raises:
        InputError: a name is not known, its dataset is not there or not complete, or none is found.
    """
    parser = argparse.ArgumentParser(description="Print the folders of datasets, their meta.json built if need be.")
    parser.add_argument("names", nargs="*", help="datasets (default: all that are found)")
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds the datasets' folders")
    arguments = parser.parse_args(argv)
    wanted = [_known(name) for name in arguments.names]
    found, passed_over = find_folders(arguments.root)
    folders = _one_folder_each(found)
    lines = []
    for facts in wanted or folders:
        if facts not in folders:
            raise InputError(
                f"{arguments.root} holds no {facts.paper_name}; download it from {facts.source}, unpack it to "
                f"{arguments.root / facts.name}, or let DATA_ROOT name the folder that holds it."
            )
        try:
            _build_if_need_be(facts, folders[facts])
        except InputError as error:
            if wanted:
                raise
            passed_over.append(str(error))
        else:
            lines.append(f"{facts.name}\t{folders[facts]}")
    for line in [] if wanted else passed_over:
        print(f"passed over {line}", file=sys.stderr)
    if not lines:
        raise nothing_found(arguments.root)
    print("\n".join(lines))
    return 0


def _known(name: str) -> DatasetFacts:
    datasets = find_dataset(name)
    if len(datasets) != 1:
        known = ", ".join(facts.name for facts in datasets or DATASETS)
        wrong = "may be several datasets" if datasets else "is no known dataset"
        raise InputError(f"{name} {wrong}; name one of {known}.")
    return datasets[0]


def _one_folder_each(found: Sequence[tuple[DatasetFacts, Path]]) -> dict[DatasetFacts, Path]:
    """Of several folders of one dataset, the one with its plain name, else the first."""
    folders: dict[DatasetFacts, Path] = {}
    for facts, folder in found:
        if facts not in folders or folder.name.lower() == facts.name.lower():
            folders[facts] = folder
    return folders


def _build_if_need_be(facts: DatasetFacts, folder: Path) -> None:
    if not (folder / FILE_NAME).is_file():
        print(build(builder_of(facts), folder), file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(run(main))
