"""From a dataset's folder to its meta.json: the steps and the command line that all builders share.

Nothing in the dataset's folder is moved or changed but meta.json, and no image is opened, except where
a layout's labels live in images.
"""

import argparse
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import output_folder
from AnomalyCLIP_lib.images import walk_files
from generic_dataset_json.builder.layouts import Layout, Match
from generic_dataset_json.builder.pairing import pair_masks
from generic_dataset_json.meta_json import FILE_NAME, SPLITS, DatasetIndex, Entry, write_index
from generic_dataset_json.names import DatasetFacts, find_dataset

NO_MASK = "anomalous, and no mask was found for it"
FIELD = re.compile(r"\{(\w+)[^}]*\}")  # of a pattern of paths
LISTED_FILES = 100
"""How many problems of a dataset are printed before they are only counted."""


@dataclass(frozen=True)
class Builder:
    """What a dataset's script declares."""

    name: str
    """As in `names`; any other text where the paper has no such dataset."""
    layouts: tuple[Layout, ...]
    """See `find_layout`."""
    class_name: str = ""
    """The class of images whose path names none."""
    classes: tuple[str, ...] = ()
    """The classes that the dataset is known to have: a missing one is reported, another one is included."""
    difference: str = ""
    """Why the public download has other counts than the paper, in one sentence."""

    @property
    def facts(self) -> DatasetFacts | None:
        found = find_dataset(self.name)
        return found[0] if found else None


@dataclass(frozen=True)
class Report:
    """What was found in a dataset's folder and written."""

    name: str
    layout: str
    meta_path: Path
    normal: int
    """Of the test split, like `anomalous`."""
    anomalous: int
    paper: tuple[int, int] | None
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.normal} normal, {self.anomalous} anomalous test images"
        if self.paper:
            counts += f" (the paper: {self.paper[0]}, {self.paper[1]})"
        lines = [f"{self.name}, layout found: {self.layout}", counts, *self.notes, f"written: {self.meta_path}"]
        return "\n  ".join(lines)


def run_builder(builder: Builder, argv: Sequence[str] | None = None) -> int:
    """The whole of a builder's command line; returns its exit code.

    Raises:
        InputError: the folder has none of the layouts, or files are missing; nothing is written.
    """
    arguments = builder_parser(builder).parse_args(argv)
    print(build(builder, arguments.root, arguments.out, arguments.allow_missing_masks))
    return 0


def builder_parser(builder: Builder) -> argparse.ArgumentParser:
    """The flags of every builder."""
    parser = argparse.ArgumentParser(description=f"Write {FILE_NAME}, the list of images, for {builder.name}.")
    parser.add_argument("--root", type=Path, required=True, help="the dataset's folder, as it was unpacked")
    add_output_flags(parser)
    return parser


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say where meta.json goes and what may be missing in it."""
    parser.add_argument("--out", type=Path, help=f"folder or .json file to write instead of {FILE_NAME} in the root")
    parser.add_argument(
        "--allow_missing_masks",
        action="store_true",
        help="write anomalous images without a mask; they count for image metrics only",
    )


def build(builder: Builder, root: Path, out: Path | None = None, allow_missing_masks: bool = False) -> Report:
    """Find out a dataset's layout and write its meta.json.

    Args:
        builder: What is known of the dataset.
        root: Its folder.
        out: A folder or a .json file to write to; None means meta.json in the root.
        allow_missing_masks: Whether an anomalous image without its mask is written, with mask_path "".

    Raises:
        InputError: the folder has none of the layouts; or masks, images or their partners are missing,
            which it lists; or meta.json cannot be written. Nothing is written then.
    """
    files = dict(walk_files(root))
    layout, match = find_layout(builder, root, files)
    if layout.refine:
        match = layout.refine(root, files, match)
    unusable = {path: files[path] for path in (found.path for found in match.images + match.masks) if not files[path]}
    entries, problems = _entries(builder, layout, match, root, unusable)
    if allow_missing_masks:
        problems = [problem for problem in problems if NO_MASK not in problem]
    complain(root, f"{builder.name}, {layout.name}", match.problems + unusable_files(unusable) + problems, layout.masks)
    notes = _class_notes(builder, entries) + _left_out_note(match.left_out)
    return write_entries(builder, layout.name, entries, root, out, notes)


def find_layout(builder: Builder, root: Path, files: Mapping[str, int | None]) -> tuple[Layout, Match]:
    """The layout of the dataset that the files have; of several, the one that begins highest.

    Raises:
        InputError: they have none, and the sentence says what was looked for; or one in several places.
    """
    fits = [(layout, match) for layout in builder.layouts if (match := layout.match(files))]
    if fits:
        layout, match = min(fits, key=lambda fit: fit[1].folder.count("/"))
        if match.others:
            folders = ", ".join([match.folder, *match.others])
            raise InputError(f"{root} has several folders laid out like {builder.name}, {folders}; give one as --root.")
        return layout, match
    looked_for = "; ".join(
        f"{_readable(pattern)} ({layout.name})" for layout in builder.layouts for pattern in layout.images
    )
    raise InputError(f"{root} does not look like {builder.name}: no images such as {looked_for}; check --root.")


def _readable(pattern: str) -> str:
    """A pattern of paths as messages show it: its fields as <name>."""
    return FIELD.sub(r"<\1>", pattern)


def complain(root: Path, what: str, problems: Sequence[str], mask_patterns: Sequence[str] = ()) -> None:
    """Raise one InputError that lists the problems, if there are any, and says which masks were looked for."""
    if not problems:
        return
    listed = list(problems[:LISTED_FILES])
    if len(problems) > LISTED_FILES:
        listed.append(f"and {len(problems) - LISTED_FILES} more")
    hint = ""
    if any(NO_MASK in problem for problem in problems):
        looked_for = " or ".join(map(_readable, mask_patterns))
        named = f"masks are images named {looked_for}, with or without an ending such as _mask; "
        hint = f" ({named if mask_patterns else ''}--allow_missing_masks goes on without masks)"
    raise InputError(
        f"{root} ({what}) is not complete, so nothing was written; copy or unpack these again{hint}:\n  "
        + "\n  ".join(listed)
    )


def write_entries(
    builder: Builder,
    layout: str,
    entries: Sequence[tuple[str, Entry]],
    root: Path,
    out: Path | None,
    notes: Sequence[str] = (),
) -> Report:
    """Write meta.json for entries with their splits, and say what it holds beside the paper's counts.

    Raises:
        InputError: there are no test images, or the file cannot be written.
    """
    splits: dict[str, dict[str, list[Entry]]] = {name: {} for name in SPLITS}
    for split, entry in entries:
        splits[split].setdefault(entry.class_name, []).append(entry)
    index = DatasetIndex(root=root, **splits)
    counts = Counter(entry.anomaly for entry in index.split("test"))
    if not counts:
        raise InputError(f"{root} ({builder.name}, {layout}) has no test images; unpack it again or check --root.")
    without = sum(entry.anomaly and not entry.relative_mask_path for entry in index.split("test"))
    notes = list(notes)
    if without:
        notes.append(f"anomalous test images without a mask: {without} (they count for image metrics only)")
    paper = (builder.facts.normal, builder.facts.anomalous) if builder.facts else None
    if paper and paper != (counts[0], counts[1]):
        reason = builder.difference or "this copy is not the one that the paper used, or not all of it"
        notes.append(f"not the paper's counts: {reason}")
    meta_path = _meta_path(root, out)
    write_index(index, meta_path)
    return Report(builder.name, layout, meta_path, counts[0], counts[1], paper, notes)


def _meta_path(root: Path, out: Path | None) -> Path:
    if out is None:
        return root / FILE_NAME
    return out if out.suffix.lower() == ".json" else output_folder(out, "--out") / FILE_NAME


def _entries(
    builder: Builder, layout: Layout, match: Match, root: Path, unusable: Container[str]
) -> tuple[list[tuple[str, Entry]], list[str]]:
    """Splits and entries, and the problems found on the way; files known as unusable are not opened for labels."""
    pairs, problems = pair_masks(match.images, match.masks, layout.loose_mask_names)
    # With optional masks, a kind of defect whose folder holds none at all has none; a gap is still a gap.
    folders_with_masks = {_folder(image.path) for image in match.images if image.path in pairs}
    entries = []
    for image in match.images:
        mask = pairs.get(image.path)
        anomaly = image.anomaly
        if anomaly is None and mask and mask in unusable:
            continue
        if anomaly is None:
            anomaly = layout.decide(root, mask) if layout.decide else int(mask is not None)
        if anomaly is None:
            problems.append(f"{image.path}: its label is missing")
            continue
        needed = layout.masks and not (layout.masks_optional and _folder(image.path) not in folders_with_masks)
        if anomaly and not mask and needed:
            problems.append(f"{image.path}: {NO_MASK}")
        specie = image.specie if anomaly or image.specie.lower() == "good" else ""
        class_name = image.fields.get("cls") or builder.class_name or root.resolve().name
        entry = make_entry(root, image.path, mask if anomaly else None, class_name, specie, anomaly)
        entries.append((image.split, entry))
    return entries, problems


def make_entry(root: Path, image: str, mask: str | None, class_name: str, specie: str, anomaly: int) -> Entry:
    """An entry from paths relative to the root."""
    return Entry(
        image_path=root / image,
        mask_path=root / mask if mask else None,
        class_name=class_name,
        specie_name=specie,
        anomaly=anomaly,
        relative_path=image,
        relative_mask_path=mask or "",
    )


def unusable_files(sizes: Mapping[str, int | None]) -> list[str]:
    """One sentence for each file that is empty or, at the end of a link, missing."""
    return [f"{path}: {'empty (0 bytes)' if size == 0 else 'missing'}" for path, size in sizes.items() if not size]


def _class_notes(builder: Builder, entries: Sequence[tuple[str, Entry]]) -> list[str]:
    if not builder.classes:
        return []
    found = {entry.class_name for _, entry in entries}
    known = {name.lower() for name in builder.classes}
    missing = [name for name in builder.classes if name.lower() not in {other.lower() for other in found}]
    unknown = sorted(name for name in found if name.lower() not in known)
    notes = []
    if missing:
        notes.append(f"warning: known classes that are missing: {', '.join(missing)}")
    if unknown:
        notes.append(f"classes that {builder.name} is not known to have, included: {', '.join(unknown)}")
    return notes


def _left_out_note(paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    folders = sorted({_folder(path) or "." for path in paths})
    more = f" and {len(folders) - 5} more folders" if len(folders) > 5 else ""
    images = "1 image" if len(paths) == 1 else f"{len(paths)} images"
    return [f"left out, no part of this layout: {images} in {', '.join(folders[:5])}{more}"]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
