"""How a dataset's folder is laid out, declared as path patterns, and what a folder holds by such a layout.

A pattern is a path below the dataset's folder: "{cls}/test/{specie}/{stem}". Each name in braces stands for
one folder or, as `stem`, for a file's name without its extension, which may be that of any image format.
"{specie:yes|no}" allows these names only. Letters match in any case. The dataset may lie in folders of
its own below the given one, as archives unpack.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from AnomalyCLIP_lib.images import IMAGE_EXTENSIONS, is_image_name

MAX_WRAPPING_FOLDERS = 3


@dataclass(frozen=True)
class Found:
    """A file that matches a layout's pattern."""

    path: str
    """Relative to the dataset's folder, with forward slashes."""
    fields: Mapping[str, str]
    """What the pattern's names stand for."""
    anomaly: int | None = None
    """0, 1, or None where the path doesn't tell; masks have None."""
    split: str = "test"

    @property
    def stem(self) -> str:
        return self.fields["stem"]

    @property
    def specie(self) -> str:
        return self.fields.get("specie", "")


@dataclass(frozen=True)
class Match:
    """What a folder holds by a layout."""

    folder: str
    """Where the layout begins below the dataset's folder: "" or a path that ends with a slash."""
    images: list[Found]
    masks: list[Found]
    left_out: list[str]
    """Image files that the layout has no use for."""
    others: list[str]
    """Folders beside `folder` that have the layout too."""
    problems: list[str] = field(default_factory=list)
    """Files that are missing, one sentence each; nothing is written while there are any."""


@dataclass(frozen=True)
class Layout:
    """One way in which a dataset is found on disk.

    The label of an image comes from `anomaly` if given, else from its `specie` folder, else from `decide`.
    """

    name: str
    """What is printed when it is found: "public download"."""
    images: tuple[str, ...]
    """Patterns. A `split` in them is "train" or "test"; images of patterns without one are test images."""
    masks: tuple[str, ...] = ()
    """Patterns. A mask belongs to the image whose names in braces, as far as the mask's have them, are
    the same; its stem may have an ending such as "_mask"."""
    normal: frozenset[str] = frozenset({"good"})
    """The `specie` folders with normal images, in small letters."""
    anomaly: int | None = None
    refine: Callable[[Path, Mapping[str, int | None], Match], Match] | None = None
    """Called with the dataset's folder, its files and the match, before masks are paired: for tables."""
    decide: Callable[[Path, str | None], int | None] | None = None
    """Called with the dataset's folder and the mask's path, where the image's path leaves the label open;
    None means that the label is missing. By default an image with a mask is anomalous."""
    loose_mask_names: bool = False
    """Whether a mask's stem may contain the image's anywhere as a whole word; for names that are not known."""
    masks_optional: bool = False
    """Whether a kind of defect may have no folder of masks."""

    def match(self, files: Mapping[str, int | None]) -> Match | None:
        """Sort a folder's files by this layout; None if no image fits it.

        Args:
            files: Sizes by path, as from `walk_files`.
        """
        images: dict[str, list[Found]] = {}
        masks: dict[str, list[Found]] = {}
        for path in sorted(files):
            if not is_image_name(path):
                continue
            if found := _fit(self.masks, path):
                masks.setdefault(found[0], []).append(Found(path, found[1]))
            elif found := _fit(self.images, path):
                images.setdefault(found[0], []).append(self._image(path, found[1]))
        if not images:
            return None
        depth = min(folder.count("/") for folder in images)
        folder, *others = [folder for folder in images if folder.count("/") == depth]
        used = {found.path for found in images[folder] + masks.get(folder, [])}
        left_out = [path for path in sorted(files) if is_image_name(path) and path not in used]
        return Match(folder, images[folder], masks.get(folder, []), left_out, others)

    def _image(self, path: str, fields: Mapping[str, str]) -> Found:
        anomaly = self.anomaly
        if anomaly is None and "specie" in fields:
            anomaly = int(fields["specie"].lower() not in self.normal)
        return Found(path, fields, anomaly, fields.get("split", "test").lower())


def take_from_table(
    match: Match, rows: Mapping[str, tuple[int, str]], table: Path, key: Callable[[Found], str]
) -> Match:
    """The match with labels and splits from a table.

    Images that it does not list are left out; those that it lists and that are not there are problems.

    Args:
        match: What was found.
        rows: Label and split by key.
        table: The file, for the messages.
        key: An image's key.
    """
    keys = {key(image) for image in match.images}
    images = [
        replace(image, anomaly=rows[key(image)][0], split=rows[key(image)][1])
        for image in match.images
        if key(image) in rows
    ]
    left_out = [image.path for image in match.images if key(image) not in rows]
    problems = [f"{name}: missing, and {table} lists it" for name in rows if name not in keys]
    return replace(match, images=images, left_out=match.left_out + left_out, problems=match.problems + problems)


def _fit(patterns: tuple[str, ...], path: str) -> tuple[str, dict[str, str]] | None:
    """The folder before the pattern and the pattern's names, by the pattern that begins highest."""
    best: tuple[str, dict[str, str]] | None = None
    for pattern in patterns:
        if fit := _compiled(pattern).fullmatch(path):
            fields = fit.groupdict()
            folder = fields.pop("_folder")
            if best is None or len(folder) < len(best[0]):
                best = folder, fields
    return best


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    expression = rf"(?P<_folder>(?:[^/]+/){{0,{MAX_WRAPPING_FOLDERS}}}?)"
    for part in re.split(r"(\{[^}]+\})", pattern):
        if part.startswith("{"):
            name, _, allowed = part[1:-1].partition(":")
            expression += f"(?P<{name}>{allowed or '[^/]+'})"
        else:
            expression += re.escape(part)
    extensions = "|".join(re.escape(extension[1:]) for extension in sorted(IMAGE_EXTENSIONS))
    return re.compile(rf"{expression}\.(?:{extensions})", re.IGNORECASE)
