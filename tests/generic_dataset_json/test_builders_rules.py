"""What all builders do: pairing by name, complete or nothing, the same bytes, any root."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from trees import mask, mvtec_tree, picture, read_meta, snapshot, write_tree

from AnomalyCLIP_lib.errors import InputError
from dataset import check_masks, read_index
from generic_dataset_json import DAGM, SDD, btad, head_ct, kvasir, mvtec, visa

EXPECTED_BYTES = """{
    "train": {},
    "test": {
        "Übung": [
            {
                "img_path": "Übung/test/good/a b.png",
                "mask_path": "",
                "cls_name": "Übung",
                "specie_name": "good",
                "anomaly": 0
            },
            {
                "img_path": "Übung/test/loch/é.png",
                "mask_path": "Übung/ground_truth/loch/é_mask.png",
                "cls_name": "Übung",
                "specie_name": "loch",
                "anomaly": 1
            }
        ]
    }
}
"""


def _non_ascii_tree(root: Path) -> Path:
    return write_tree(root, "Übung/test/good/a b.png \n Übung/test/loch/é.png", "Übung/ground_truth/loch/é_mask.png")


def _fails(arguments: list[str], script=mvtec) -> str:
    with pytest.raises(InputError) as caught:
        script.main(arguments)
    return str(caught.value)


def test_bytes_with_spaces_and_non_ascii_letters(tmp_path: Path) -> None:
    root = _non_ascii_tree(tmp_path / "Ein Ordner é")
    mvtec.main(["--root", str(root)])
    assert (root / "meta.json").read_bytes() == EXPECTED_BYTES.encode()


def test_running_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    mvtec.main(["--root", str(root)])
    first = snapshot(root)
    mvtec.main(["--root", str(root)])
    assert snapshot(root) == first


def test_a_moved_root_gives_the_same_index(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "here")
    mvtec.main(["--root", str(root)])
    digest = read_index(root).digest()
    root.rename(tmp_path / "there")
    index = read_index(tmp_path / "there")
    check_masks(index)
    assert index.digest() == digest
    assert all(entry.image_path.is_file() for entry in index.split("test"))


def test_a_missing_mask_in_the_middle_shifts_no_other(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    (root / "bottle/ground_truth/broken_large/001_mask.png").unlink()
    message = _fails(["--root", str(root)])
    assert "bottle/test/broken_large/001.png" in message
    assert "named <cls>/ground_truth/<specie>/<stem>, with or without an ending" in message
    assert "002" not in message
    assert not (root / "meta.json").exists()

    mvtec.main(["--root", str(root), "--allow_missing_masks"])
    entries = {entry["img_path"]: entry["mask_path"] for entry in read_meta(root)["test"]["bottle"]}
    assert entries["bottle/test/broken_large/001.png"] == ""
    assert entries["bottle/test/broken_large/002.png"] == "bottle/ground_truth/broken_large/002_mask.png"


def test_all_that_is_missing_is_listed_at_once_and_the_old_file_stays(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    (root / "meta.json").write_text("old")
    (root / "bottle/ground_truth/contamination/000_mask.png").unlink()
    (root / "bottle/test/good/000.png").write_bytes(b"")
    (root / "bottle/test/good/001.png").symlink_to("nowhere.png")
    (root / "bottle/ground_truth/broken_large/077_mask.png").write_bytes(mask("png"))
    message = _fails(["--root", str(root)])
    for text in (
        "bottle/test/contamination/000.png: anomalous, and no mask",
        "bottle/test/good/000.png: empty",
        "bottle/test/good/001.png: missing",
        "bottle/ground_truth/broken_large/077_mask.png: a mask without its image",
    ):
        assert text in message
    assert (root / "meta.json").read_text() == "old"
    message = _fails(["--root", str(root), "--allow_missing_masks"])
    assert "contamination" not in message
    assert "077_mask.png" in message


def test_two_masks_of_one_image_are_refused(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path, "a/test/hole/000.png", "a/ground_truth/hole/000.png \n a/ground_truth/hole/000_mask.png"
    )
    assert "a second mask of a/test/hole/000.png" in _fails(["--root", str(root)])


def test_a_name_that_only_contains_the_images_is_no_partner(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "a/test/hole/2.png", "a/ground_truth/hole/1_2.png")
    message = _fails(["--root", str(root)])
    assert "a/test/hole/2.png: anomalous, and no mask" in message
    assert "a/ground_truth/hole/1_2.png: a mask without its image" in message


def test_masks_of_normal_images_are_passed_over(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path, "a/train/good/0.png \n a/test/good/0.png \n a/test/hole/0.png", "a/ground_truth/hole/0_mask.png"
    )
    write_tree(root, "", contents={"a/ground_truth/good/0_mask.png": mask("png", 0)})
    mvtec.main(["--root", str(root)])
    assert [entry["mask_path"] for entry in read_meta(root)["test"]["a"]] == ["", "a/ground_truth/hole/0_mask.png"]


def test_a_read_only_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = mvtec_tree(tmp_path / "data")
    out = tmp_path / "elsewhere"

    def refuse(dir: Path, **others: Any) -> tuple[int, str]:  # root may write to read-only folders
        if Path(dir) == root:
            raise PermissionError(13, "Permission denied")
        return make_file(dir=dir, **others)

    make_file = tempfile.mkstemp
    monkeypatch.setattr("AnomalyCLIP_lib.files.tempfile.mkstemp", refuse)
    message = _fails(["--root", str(root)])
    assert str(root / "meta.json") in message
    assert "--out" in message

    mvtec.main(["--root", str(root), "--out", str(out)])
    assert json.loads((out / "meta.json").read_text())["root"] == str(root.resolve())
    index = read_index(out)
    assert index == read_index(out / "meta.json")
    assert index.root == root.resolve()
    check_masks(index)
    assert not (root / "meta.json").exists()


def test_out_may_name_the_file(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "data")
    mvtec.main(["--root", str(root), "--out", str(root / "other.json")])
    assert "root" not in read_meta(root / "other.json")
    assert len(read_index(root / "other.json").split("test")) == 5


def test_unknown_classes_are_included_and_missing_ones_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(mvtec_tree(tmp_path), "widget/test/good/000.png")
    mvtec.main(["--root", str(root)])
    assert list(read_meta(root)["test"]) == ["bottle", "widget"]
    printed = capsys.readouterr().out
    assert "included: widget" in printed
    assert "warning: known classes that are missing: cable" in printed


def test_another_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    write_tree(tmp_path, "somewhere/a.png")
    assert "<cls>/<split>/<specie>/<stem>" in _fails(["--root", str(tmp_path)])
    assert "images/<stem>" in _fails(["--root", str(tmp_path)], kvasir)


def test_several_copies_side_by_side_are_not_guessed(tmp_path: Path) -> None:
    write_tree(tmp_path, "Kvasir/images/1.png \n CVC/images/1.png", "Kvasir/masks/1.png \n CVC/masks/1.png")
    assert "CVC/, Kvasir/" in _fails(["--root", str(tmp_path)], kvasir)


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    with open(os.fsencode(root / "bottle/test/good") + b"/\xff.png", "wb") as file:
        file.write(picture("png"))
    assert "not valid UTF-8" in _fails(["--root", str(root)])


def test_no_such_folder(tmp_path: Path) -> None:
    assert "cannot be read" in _fails(["--root", str(tmp_path / "nothing")])


def test_masks_may_differ_in_extension_and_case(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "01/test/ko/A1.bmp \n 01/test/ko/a2.BMP", "01/ground_truth/ko/a1.PNG")
    write_tree(root, "", "01/ground_truth/ko/A2_Mask.png")
    btad.main(["--root", str(root)])
    assert [entry["mask_path"] for entry in read_meta(root)["test"]["01"]] == [
        "01/ground_truth/ko/a1.PNG",
        "01/ground_truth/ko/A2_Mask.png",
    ]


def test_visa_without_its_table_or_with_images_missing(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "candle/Data/Images/Normal/0000.JPG")
    assert "split_csv/1cls.csv cannot be read" in _fails(["--root", str(root)], visa)
    table = "object,split,label,image,mask\ncandle,test,normal,candle/Data/Images/Normal/0001.JPG,\n"
    write_tree(root, "", contents={"split_csv/1cls.csv": table.encode()})
    assert "candle/Data/Images/Normal/0001.JPG: missing" in _fails(["--root", str(root)], visa)


def test_head_ct_without_its_table_or_with_a_label_that_is_none(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "head_ct/000.png")
    assert "labels.csv cannot be read" in _fails(["--root", str(root)], head_ct)
    write_tree(root, "", contents={"labels.csv": b"id,hemorrhage\n0,maybe\n"})
    assert "'maybe'" in _fails(["--root", str(root)], head_ct)


def test_dagm_notices_a_lost_label_file(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "Class1/Test/0001.PNG \n Class1/Test/0002.PNG")
    write_tree(root, "", contents={"Class1/Test/Label/Labels.txt": b"1\n0002 1 0002.PNG 1 0002_label.PNG\n"})
    assert "Class1/Test/0002.PNG: anomalous, and no mask" in _fails(["--root", str(root)], DAGM)


def test_sdd_needs_a_usable_label_for_every_image(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "kos01/Part0.jpg \n kos01/Part1.jpg", contents={"kos01/Part1_label.bmp": b""})
    message = _fails(["--root", str(root)], SDD)
    assert "kos01/Part0.jpg: its label is missing" in message
    assert "kos01/Part1_label.bmp: empty" in message


def test_sdd_cut_in_thirds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    defect = mask("bmp", 255, height=12)  # in the upper half: the first two thirds of four rows each
    contents = {"kos01/Part5.jpg": picture("jpg", height=12), "kos01/Part5_label.bmp": defect}
    for item in ("kos02", "kos03"):
        contents |= {f"{item}/Part0.jpg": picture("jpg", height=12), f"{item}/Part0_label.bmp": mask("bmp", 0, 12)}
    root = write_tree(tmp_path / "KolektorSDD", "", contents=contents)
    before = snapshot(root)
    for name in ("one", "two"):
        SDD.main(["--root", str(root), "--crops", str(tmp_path / name), "--seed", "3"])
    assert snapshot(root) == before
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert "seed 3" in capsys.readouterr().out
    index = read_index(tmp_path / "one")
    assert check_masks(index) == []
    anomalous = [entry for entry in index.split("test") if entry.anomaly]
    assert [entry.relative_path for entry in anomalous] == [
        "electrical commutators/test/defect/kos01_Part5_0.png",
        "electrical commutators/test/defect/kos01_Part5_1.png",
    ]
    assert len(index.split("train")) + len(index.split("test")) == 9
    assert len(index.split("train")) in (1, 3)  # one item of three, with its normal thirds
    assert "in use" in _fails(["--root", str(root), "--crops", str(tmp_path / "one")], SDD)
    assert "inside the dataset" in _fails(["--root", str(root), "--crops", str(root / "crops")], SDD)


@pytest.mark.parametrize("from_inside", [False, True])
def test_as_a_script(from_inside: bool, tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path / "data")
    folder = REPOSITORY / "generic_dataset_json" if from_inside else REPOSITORY
    script = "mvtec.py" if from_inside else "generic_dataset_json/mvtec.py"
    if from_inside:
        (root / "bottle/ground_truth/broken_large/001_mask.png").unlink()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script, "--root", str(root)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == (2 if from_inside else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert (root / "meta.json").exists() != from_inside
    if from_inside:
        assert done.stderr.startswith("error: ")


def test_no_builder_waits_for_torch() -> None:
    code = "import sys, generic_dataset_json.mvtec, generic_dataset_json.check; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
