"""Audit a dataset before time is spent on it: open every file that meta.json lists and say what is wrong.

    python -m generic_dataset_json.check --root /data/mvtec

Exit code 0: clean; 1: there are findings; 2: it could not run.
"""

import argparse
import hashlib
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tabulate import tabulate
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.images import decode_image, decode_mask, read_bytes
from generic_dataset_json.meta_json import DatasetIndex, Entry, read_index
from generic_dataset_json.names import find_dataset
from utils import mask_threshold, positive, run

LARGE_SHARE = 0.9
"""A mask that covers more of its image than this is probably inverted, or no mask."""
_CHUNK = 16  # files to a worker at a time: few enough that the bar moves, enough that passing them is cheap


@dataclass(frozen=True)
class FileFacts:
    """What reading one image and its mask showed."""

    entry: Entry
    size: tuple[int, int] | None
    """Width and height; None where the image cannot be read."""
    content: str
    """A hash of its pixels, so that the same picture in another format is found too."""
    problems: tuple[tuple[str, str], ...]
    """Kind and sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 for a clean dataset and 1 if there are findings.

    Raises:
        InputError: there is no meta.json, or it cannot be used.
    """
    arguments = _parser().parse_args(argv)
    index = read_index(arguments.root)
    facts = read_files(index, arguments.mask_threshold, arguments.workers)
    findings = find_problems(facts)
    header = ("class", "train", "test", "masks", "sizes")
    # disable_numparse: the class "01" must not come out as 1
    print(tabulate(_class_rows(index, facts), headers=header, tablefmt="pipe", disable_numparse=True))
    print(_counts(index, arguments.dataset or index.root.name))
    for kind, sentences in findings.items():
        print(f"\n{kind}: {len(sentences)}")
        for sentence in sentences:
            print(f"  {sentence}")
    total = sum(map(len, findings.values()))
    print(f"\n{f'{total} findings' if total else 'clean: nothing found'} in {len(facts)} images")
    return 1 if findings else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Audit the images and masks that a meta.json lists.")
    parser.add_argument("--root", type=Path, required=True, help="the dataset's folder, or its meta.json")
    parser.add_argument("--dataset", help="the dataset's name, for the paper's counts (default: the folder's name)")
    parser.add_argument("--mask_threshold", type=mask_threshold, default="auto", help="auto (default) or a grey value")
    parser.add_argument("--workers", type=positive, default=available_cores(), help="processes (default: all cores)")
    return parser


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_files(index: DatasetIndex, threshold: Literal["auto"] | int = "auto", workers: int = 1) -> list[FileFacts]:
    """Read and decode every image of both splits, and its mask, each file once, with a progress bar.

    Raises:
        InputError: a worker process was killed.
    """
    entries = list({entry.image_path: entry for split in ("train", "test") for entry in index.split(split)}.values())
    look = partial(look_at, threshold=threshold)
    if workers < 2:
        return list(tqdm(map(look, entries), total=len(entries), unit="image"))
    try:
        with ProcessPoolExecutor(workers) as pool:
            return list(tqdm(pool.map(look, entries, chunksize=_CHUNK), total=len(entries), unit="image"))
    except BrokenProcessPool as error:
        raise InputError("A process of the audit was killed, for lack of memory probably; lower --workers.") from error


def look_at(entry: Entry, threshold: Literal["auto"] | int) -> FileFacts:
    """Read one image and, where it has one, its mask."""
    size, content, problems = None, "", []
    try:
        image = decode_image(read_bytes(entry.image_path), entry.image_path)
        size, content = image.size, hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() + str(image.size)
    except InputError as error:
        problems.append(("files that cannot be read", str(error)))
    if entry.mask_path is not None:
        try:
            mask = decode_mask(read_bytes(entry.mask_path), entry.mask_path, threshold)
        except InputError as error:
            problems.append(("files that cannot be read", str(error)))
        else:
            height, width = mask.shape
            share = float(mask.mean())
            if share == 0:
                problems.append(("empty masks of anomalous images", str(entry.mask_path)))
            if share > LARGE_SHARE:
                problems.append((f"masks over {LARGE_SHARE:.0%} of the image", f"{entry.mask_path}: {share:.1%}"))
            if size and size != (width, height):
                sentence = f"{entry.mask_path} is {width} x {height}, its image {size[0]} x {size[1]}"
                problems.append(("masks of another size than their image", sentence))
    return FileFacts(entry, size, content, tuple(problems))


def find_problems(facts: Sequence[FileFacts]) -> dict[str, list[str]]:
    """All problems by their kind, those between files included; empty for a clean dataset."""
    findings: dict[str, list[str]] = defaultdict(list)
    for one in facts:
        for kind, sentence in one.problems:
            findings[kind].append(sentence)
    for sentence in _contradictions(facts):
        findings["the same picture both normal and anomalous"].append(sentence)
    return dict(findings)


def _contradictions(facts: Sequence[FileFacts]) -> Iterator[str]:
    by_content: dict[str, list[Entry]] = defaultdict(list)
    for one in facts:
        if one.size:
            by_content[one.content].append(one.entry)
    for entries in by_content.values():
        if len({entry.anomaly for entry in entries}) == 2:
            normal, anomalous = ([entry for entry in entries if entry.anomaly == label] for label in (0, 1))
            more = f" and {len(entries) - 2} more of the same" if len(entries) > 2 else ""
            yield f"{normal[0].relative_path} (normal) = {anomalous[0].relative_path} (anomalous){more}"


def _class_rows(index: DatasetIndex, facts: Sequence[FileFacts]) -> list[tuple[str, ...]]:
    sizes: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for one in facts:
        if one.size:
            sizes[one.entry.class_name].add(one.size)
    rows = []
    for name in sorted({*index.train, *index.test}):
        train, test = index.train.get(name, []), index.test.get(name, [])
        masks = sum(entry.mask_path is not None for entry in test)
        rows.append((name, _labels(train), _labels(test), str(masks), _size_range(sizes[name])))
    return rows


def _labels(entries: Sequence[Entry]) -> str:
    anomalous = sum(entry.anomaly for entry in entries)
    return f"{len(entries) - anomalous} normal, {anomalous} anomalous" if entries else "-"


def _size_range(sizes: set[tuple[int, int]]) -> str:
    if not sizes:
        return "-"
    smallest, largest = min(sizes, key=_area), max(sizes, key=_area)
    text = f"{smallest[0]} x {smallest[1]}"
    return text if len(sizes) == 1 else f"{len(sizes)} sizes, {text} to {largest[0]} x {largest[1]}"


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _counts(index: DatasetIndex, label: str) -> str:
    lines = [f"test images: {_labels(index.split('test'))}"]
    for paper in find_dataset(label):
        lines.append(f"the paper, {paper.paper_name}: {paper.normal} normal, {paper.anomalous} anomalous")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(run(main))
