"""meta.json, the list of a dataset's images: how it is written and how it is read.

    {"train": {class: [entry, ...]}, "test": {class: [entry, ...]}}

with the entries `img_path`, `mask_path` ("" where there is none), `cls_name`, `specie_name` and `anomaly`
(0 or 1). Paths are relative to the folder of meta.json, or to its top-level "root" where it has one.
"""

import hashlib
import json
import posixpath
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write

FILE_NAME = "meta.json"
SPLITS = ("train", "test")
_REBUILD = "build it again with the scripts in generic_dataset_json"


@dataclass(frozen=True)
class Entry:
    """One image of a dataset."""

    image_path: Path
    """Absolute."""
    mask_path: Path | None
    """Absolute; None for a normal image and for an anomalous one that has no mask on record."""
    class_name: str
    specie_name: str
    """The folder of its kind of defect, "good", or "" where the dataset has no such folders."""
    anomaly: int
    """0 normal, 1 anomalous."""
    relative_path: str
    """Of the image, below the dataset's root, with forward slashes."""
    relative_mask_path: str = ""
    """Of the mask, likewise; "" where `mask_path` is None."""


@dataclass(frozen=True)
class DatasetIndex:
    """What a meta.json lists: its two splits, each a dictionary from class names to entries."""

    root: Path
    train: dict[str, list[Entry]]
    test: dict[str, list[Entry]]

    def split(self, name: str) -> list[Entry]:
        """All entries of "train" or "test", class by class."""
        classes = {"train": self.train, "test": self.test}[name]
        return [entry for entries in classes.values() for entry in entries]

    def digest(self) -> str:
        """SHA-256 over the test split: classes, relative paths and labels, whatever their order.

        The same for the same dataset in another folder, on another day.
        """
        lines = sorted(
            json.dumps([entry.class_name, entry.relative_path, entry.relative_mask_path, entry.anomaly])
            for entry in self.split("test")
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_index(index: DatasetIndex, path: Path) -> None:
    """Write a meta.json, sorted, so that the same dataset gives the same bytes.

    A file outside the index's root gets a top-level "root" with the absolute folder.

    Raises:
        InputError: the file cannot be written (the sentence names --out).
    """
    data: dict[str, Any] = {} if path.parent.resolve() == index.root.resolve() else {"root": str(index.root.resolve())}
    for name, classes in (("train", index.train), ("test", index.test)):
        data[name] = {
            class_name: [_record(entry) for entry in sorted(classes[class_name], key=lambda entry: entry.relative_path)]
            for class_name in sorted(classes)
        }
    text = json.dumps(data, indent=4, ensure_ascii=False) + "\n"
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        name = error.object[error.start - 30 : error.end + 30].encode(errors="backslashreplace").decode()
        raise InputError(f"A file name below {index.root} is not valid UTF-8 (near {name!r}); rename it.") from None
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(encoded)
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')} (--out FOLDER writes {FILE_NAME} to another one).") from error


def _record(entry: Entry) -> dict[str, str | int]:
    return {
        "img_path": entry.relative_path,
        "mask_path": entry.relative_mask_path,
        "cls_name": entry.class_name,
        "specie_name": entry.specie_name,
        "anomaly": entry.anomaly,
    }


def read_index(data_path: str | Path) -> DatasetIndex:
    """Read a dataset's meta.json, of this repository or of the authors' tools.

    The authors' files may hold absolute paths of another machine (each is used if it lies inside the root,
    else its longest trailing part that exists below the root), the keys `Train` and `Test`, no "train", and
    entries without mask, class or specie.

    Args:
        data_path: The dataset's folder, or the meta.json itself.

    Raises:
        InputError: no such file, not JSON, another structure, no test images, a path that leaves the root.
    """
    path = Path(data_path)
    if path.is_dir():
        path = path / FILE_NAME
    data = _load(path, data_path)
    root = path.parent.resolve()
    if "root" in data:
        if not isinstance(data["root"], str) or not (path.parent / data["root"]).is_dir():
            raise InputError(
                f'{path} lies apart from its images, and its "root" {data["root"]} is not a folder; {_REBUILD}.'
            )
        root = (path.parent / data["root"]).resolve()
    splits = {key.lower(): value for key, value in data.items() if key.lower() in SPLITS}
    if "test" not in splits:
        raise InputError(f'{path} has no "test" part; {_REBUILD}.')
    read = {name: _read_split(splits.get(name, {}), name, root, path) for name in SPLITS}
    if not any(read["test"].values()):
        raise InputError(f"{path} lists no test images; {_REBUILD}.")
    return DatasetIndex(root=root, train=read["train"], test=read["test"])


def _load(path: Path, data_path: str | Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        if path.name != FILE_NAME or not path.parent.is_dir():
            raise InputError(f"{data_path} does not exist; check the data path.") from None
        raise InputError(f"{path} does not exist; build it with the scripts in generic_dataset_json.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); {_REBUILD}.") from error
    if not isinstance(data, dict):
        raise InputError(
            f'{path} is not a dataset\'s list: its top level must have the keys "train", "test"; {_REBUILD}.'
        )
    return data


def _read_split(classes: Any, split: str, root: Path, path: Path) -> dict[str, list[Entry]]:
    if not isinstance(classes, dict) or not all(isinstance(entries, list) for entries in classes.values()):
        raise InputError(f'{path}: "{split}" must map class names to lists of images; {_REBUILD}.')
    return {
        class_name: [
            _read_entry(record, class_name, root, f"{path}: {split}/{class_name}[{number}]")
            for number, record in enumerate(records)
        ]
        for class_name, records in classes.items()
    }


def _read_entry(record: Any, class_name: str, root: Path, place: str) -> Entry:
    if not isinstance(record, dict):
        raise InputError(f'{place} is not an entry with "img_path" and "anomaly"; {_REBUILD}.')
    image, mask, anomaly = record.get("img_path"), record.get("mask_path") or "", record.get("anomaly")
    specie = record.get("specie_name") or ""
    if not isinstance(image, str) or not image:
        raise InputError(f'{place} has no "img_path"; {_REBUILD}.')
    if anomaly not in (0, 1):  # True and False, 0.0 and 1.0 are equal to these
        raise InputError(f'{place}: "anomaly" must be 0 or 1 and is {anomaly!r}; {_REBUILD}.')
    if not isinstance(mask, str) or not isinstance(specie, str):
        raise InputError(f'{place}: "mask_path" and "specie_name" must be text; {_REBUILD}.')
    relative_image = _below_root(image, root, place)
    # A normal image's mask is all zero by definition, so whatever is recorded for it is not read.
    relative_mask = _below_root(mask, root, place) if mask and anomaly else ""
    return Entry(
        image_path=root / relative_image,
        mask_path=root / relative_mask if relative_mask else None,
        class_name=class_name,
        specie_name=specie,
        anomaly=int(anomaly),
        relative_path=relative_image,
        relative_mask_path=relative_mask,
    )


def _below_root(recorded: str, root: Path, place: str) -> str:
    """A recorded path as one relative to the root, with forward slashes."""
    if "\0" in recorded:
        raise InputError(f"{place}: a path holds a zero byte; {_REBUILD}.")
    if "\\" in recorded and not (root / recorded).exists():  # written on Windows
        recorded = recorded.replace("\\", "/")
    if not recorded.startswith("/") and not PureWindowsPath(recorded).drive:
        relative = posixpath.normpath(recorded)
        if relative == ".." or relative.startswith("../"):
            raise InputError(f"{place}: the path {recorded} leaves the dataset's folder {root}; {_REBUILD}.")
        return relative
    normal = posixpath.normpath(recorded)
    if normal.startswith(f"{root.as_posix()}/"):
        return normal[len(root.as_posix()) + 1 :]
    parts = PurePosixPath(normal).parts[1:]
    for start in range(len(parts)):
        if (root / Path(*parts[start:])).exists():
            return "/".join(parts[start:])
    raise InputError(
        f"{place}: the absolute path {recorded} is not inside {root}, and no trailing part of it exists there; "
        f"{_REBUILD}."
    )
