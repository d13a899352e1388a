"""Which of the 17 datasets lie under one folder: by the names of its subfolders, then by their layout."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import walk_files
from generic_dataset_json.builder.building import Builder
from generic_dataset_json.names import DATASETS, DatasetFacts, find_dataset


def find_folders(root: Path) -> tuple[list[tuple[DatasetFacts, Path]], list[str]]:
    """Look at each subfolder of `root`.

    Returns:
        The datasets found with their folders, sorted by folder, and a sentence for each folder that was
        passed over because it could be several datasets.

    Raises:
        InputError: `root` does not exist or cannot be read.
    """
    found, passed_over = [], []
    for folder in _subfolders(root):
        named = find_dataset(folder.name)
        if len(named) == 1:
            found.append((named[0], folder))
            continue
        fitting = _fitting(named or DATASETS, folder)
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


def builder_of(facts: DatasetFacts) -> Builder:
    """What a dataset's script declares."""
    return import_module(f"generic_dataset_json.{facts.module}").BUILDER


def nothing_found(root: Path) -> InputError:
    """The error for a folder that holds none of the datasets."""
    return InputError(f"{root} holds no folder with the name of a known dataset ({_names(DATASETS)}); check the path.")


def _names(datasets: Sequence[DatasetFacts]) -> str:
    return ", ".join(facts.name for facts in datasets)


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"The folder {root} cannot be read: {error.strerror}; check the path.") from error


def _fitting(candidates: Sequence[DatasetFacts], folder: Path) -> list[DatasetFacts]:
    files = dict(walk_files(folder))
    return [facts for facts in candidates if any(layout.match(files) for layout in builder_of(facts).layouts)]
