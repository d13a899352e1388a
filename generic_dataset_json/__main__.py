"""Find which of the 17 datasets lie under one folder, by their folders' names, and write meta.json for each.

python -m generic_dataset_json --root /data
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from AnomalyCLIP_lib.errors import InputError
from generic_dataset_json.builder.building import build
from generic_dataset_json.builder.finding import builder_of, find_folders, nothing_found
from utils import run

_HEADER = ("dataset", "layout found", "normal/anomalous in test", "the paper", "notes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 if a dataset was found that could not be written.

    Raises:
        InputError: the folder does not exist, or none of the datasets lies under it.
    """
    parser = argparse.ArgumentParser(description="Write meta.json for every dataset that lies under one folder.")
    parser.add_argument("--root", type=Path, required=True, help="the folder that holds the datasets' folders")
    parser.add_argument("--allow_missing_masks", action="store_true", help="as in the single builders")
    arguments = parser.parse_args(argv)
    found, passed_over = find_folders(arguments.root)
    for line in passed_over:
        print(f"passed over {line}")
    if not found:
        raise nothing_found(arguments.root)
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


if __name__ == "__main__":
    raise SystemExit(run(main))
