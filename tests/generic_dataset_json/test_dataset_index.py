"""Reading meta.json: this repository's, the authors' older ones, and broken ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from trees import mvtec_tree, write_tree

from AnomalyCLIP_lib.errors import InputError
from dataset import read_index
from generic_dataset_json import mvtec


def _entry(image: str, anomaly: int = 0, **others: Any) -> dict[str, Any]:
    return {"img_path": image, "anomaly": anomaly, **others}


def _written(root: Path, data: Any) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "meta.json").write_text(json.dumps(data), encoding="utf-8")
    return root


def test_own_file(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    mvtec.main(["--root", str(root)])
    index = read_index(root)
    assert index == read_index(root / "meta.json")
    assert [len(index.split(name)) for name in ("train", "test")] == [1, 5]
    entry = index.test["bottle"][1]
    assert entry.relative_path == "bottle/test/broken_large/001.png"
    assert entry.image_path == root.resolve() / "bottle/test/broken_large/001.png"
    assert entry.mask_path == root.resolve() / "bottle/ground_truth/broken_large/001_mask.png"
    assert (entry.class_name, entry.specie_name, entry.anomaly) == ("bottle", "broken_large", 1)


def test_only_a_test_part_and_the_least_fields(tmp_path: Path) -> None:
    index = read_index(_written(tmp_path, {"test": {"x": [_entry("a.png"), _entry("b.png", 1)]}}))
    assert index.train == {}
    assert [(entry.class_name, entry.specie_name, entry.mask_path) for entry in index.test["x"]] == [
        ("x", "", None)
    ] * 2


def test_keys_of_dagm(tmp_path: Path) -> None:
    data = {"Train": {"Class1": [_entry("Class1/Train/1.PNG")]}, "Test": {"Class1": [_entry("Class1/Test/1.PNG")]}}
    index = read_index(_written(tmp_path, data))
    assert index.train["Class1"][0].relative_path == "Class1/Train/1.PNG"
    assert index.test["Class1"][0].relative_path == "Class1/Test/1.PNG"


@pytest.mark.parametrize(
    "recorded",
    [
        "a/test/b/1.png",
        "./a/test/../test/b/1.png",
        "a\\test\\b\\1.png",
        "{root}/a/test/b/1.png",
        "/home/somebody/data/set/a/test/b/1.png",
        "D:\\data\\set\\a\\test\\b\\1.png",
    ],
)
def test_recorded_paths_are_found_below_the_root(recorded: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", "a/test/b/1.png \n 1.png \n b/1.png", "a/ground_truth/b/1.png")
    entry = _entry(recorded.format(root=root), 1, mask_path=recorded.format(root=root).replace("test", "ground_truth"))
    index = read_index(_written(root, {"test": {"a": [entry]}}))
    assert index.test["a"][0].relative_path == "a/test/b/1.png"  # the longest part, not the image 1.png at the top
    assert index.test["a"][0].mask_path == root.resolve() / "a/ground_truth/b/1.png"


@pytest.mark.parametrize("recorded", ["../secret.png", "a/../../secret.png", "/nowhere/at/all.png", "..\\secret.png"])
@pytest.mark.parametrize("field", ["img_path", "mask_path"])
def test_paths_that_leave_the_root_are_refused(recorded: str, field: str, tmp_path: Path) -> None:
    write_tree(tmp_path, "secret.png")
    entry = {**_entry("a.png", 1), field: recorded}
    with pytest.raises(InputError, match=r"leaves the dataset's folder|is not inside") as caught:
        read_index(_written(tmp_path / "set", {"test": {"x": [entry]}}))
    assert "test/x[0]" in str(caught.value)


def test_masks_of_normal_images_are_not_read(tmp_path: Path) -> None:
    index = read_index(_written(tmp_path, {"test": {"x": [_entry("a.png", 0, mask_path="/old/place/mask.png")]}}))
    assert index.test["x"][0].mask_path is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", '"train", "test"'),
        ("{}", 'no "test" part'),
        ('{"test": []}', "must map class names"),
        ('{"test": {"x": {}}}', "must map class names"),
        ('{"test": {}}', "lists no test images"),
        ('{"test": {"x": []}, "train": {}}', "lists no test images"),
        ('{"test": {"x": ["a.png"]}}', "x[0] is not an entry"),
        ('{"test": {"x": [{"anomaly": 0}]}}', 'x[0] has no "img_path"'),
        ('{"test": {"x": [{"img_path": "a.png"}]}}', '"anomaly" must be 0 or 1 and is None'),
        ('{"test": {"x": [{"img_path": "a.png", "anomaly": 2}]}}', '"anomaly" must be 0 or 1 and is 2'),
        ('{"test": {"x": [{"img_path": "a.png", "anomaly": 1, "mask_path": 5}]}}', "must be text"),
        ('{"test": {"x": [{"img_path": "a\\u0000.png", "anomaly": 1}]}}', "zero byte"),
        ('{"root": "/no/such/folder", "test": {"x": []}}', "is not a folder"),
        ('{"root": 7, "test": {"x": []}}', "is not a folder"),
    ],
)
def test_broken_files(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_index(tmp_path)
    assert complaint in str(caught.value)
    assert str(tmp_path / "meta.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"meta\.json does not exist; build it"):
        read_index(tmp_path)
    (tmp_path / "meta.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not valid JSON"):
        read_index(tmp_path)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"test": {"x": [_entry("a.png")]}}).encode())
    assert read_index(tmp_path).test["x"][0].relative_path == "a.png"


def test_digest_is_of_the_contents(tmp_path: Path) -> None:
    def digest(name: str, data: Any) -> str:
        return read_index(_written(tmp_path / name, data)).digest()

    one, two = _entry("a.png"), _entry("b.png", 1, mask_path="m.png")
    first = digest("1", {"test": {"x": [one, two]}})
    assert digest("2", {"train": {"x": [one]}, "test": {"x": [two, one]}}) == first
    assert digest("3", {"test": {"y": [one, two]}}) != first
    assert digest("4", {"test": {"x": [one, {**two, "anomaly": 0}]}}) != first
    assert digest("5", {"test": {"x": [one, {**two, "mask_path": ""}]}}) != first
