"""Finding the datasets that lie under one folder, and the names that they go by."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from trees import mvtec_tree, write_tree

from AnomalyCLIP_lib.errors import InputError
from generic_dataset_json.__main__ import builder_of, main
from generic_dataset_json.names import DATASETS, find_dataset


def test_all_under_one_folder_with_a_table_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mvtec_tree(tmp_path / "MVTec")
    write_tree(tmp_path / "BTech_Dataset_transformed", "01/test/ko/0.bmp", "01/ground_truth/ko/0.png")
    write_tree(tmp_path / "Kvasir-SEG", "images/1.jpg", "masks/1.jpg")
    assert main(["--root", str(tmp_path)]) == 0
    for folder in ("MVTec", "BTech_Dataset_transformed", "Kvasir-SEG"):
        assert (tmp_path / folder / "meta.json").is_file()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    rows = {row[0]: row[1:4] for row in cells if row}
    assert rows["mvtec"] == ["as MVTec AD", "1/4", "467/1258"]
    assert rows["btad"] == ["as MVTec AD", "0/1", "451/290"]
    assert rows["kvasir"] == ["public download", "0/1", "0/1000"]


def test_what_fits_several_is_listed_and_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mvtec_tree(tmp_path / "mvtec")
    write_tree(tmp_path / "colon", "images/1.png", "masks/1.png")
    write_tree(tmp_path / "polyps", "images/1.png", "masks/1.png")
    write_tree(tmp_path / "brain", "yes/1.png \n no/1.png")
    write_tree(tmp_path / "holidays", "beach.jpg")
    assert main(["--root", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"passed over {tmp_path / 'colon'}: laid out like colonDB, clinicDB, kvasir, endo" in printed
    assert f"passed over {tmp_path / 'polyps'}: laid out like colonDB, clinicDB, kvasir, endo" in printed
    assert f"passed over {tmp_path / 'brain'}: laid out like brainmri, br35" in printed
    assert "holidays" not in printed
    assert [path.parent.name for path in tmp_path.glob("*/meta.json")] == ["mvtec"]


def test_an_ambiguous_name_with_the_layout_of_one(tmp_path: Path) -> None:
    write_tree(tmp_path / "brain", "head_ct/000.png", contents={"labels.csv": b"id,hemorrhage\n0,1\n"})
    assert main(["--root", str(tmp_path)]) == 0
    assert (tmp_path / "brain" / "meta.json").is_file()


def test_one_broken_dataset_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mvtec_tree(tmp_path / "mvtec")
    (root / "bottle/ground_truth/broken_large/001_mask.png").unlink()
    write_tree(tmp_path / "tn3k", "test-image/0.jpg", "test-mask/0.jpg")
    write_tree(tmp_path / "visa", "notes.txt")
    assert main(["--root", str(tmp_path)]) == 2
    printed = capsys.readouterr().out
    assert "bottle/test/broken_large/001.png" in printed
    assert "does not look like visa" in printed
    assert [path.parent.name for path in tmp_path.glob("*/meta.json")] == ["tn3k"]
    assert main(["--root", str(tmp_path), "--allow_missing_masks"]) == 2
    assert (root / "meta.json").is_file()


def test_nothing_found_is_one_sentence_on_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "generic_dataset_json", "--root", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    with pytest.raises(InputError, match="cannot be read"):
        main(["--root", str(tmp_path / "nothing")])


def test_locate_builds_what_lacks_its_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mvtec_tree(tmp_path / "MVTec AD")
    mvtec_tree(tmp_path / "mvtec")
    write_tree(tmp_path / "tn3k", "test-image/0.jpg", "test-mask/0.jpg", contents={"meta.json": b"as it is"})
    write_tree(tmp_path / "kvasir", "images/0.jpg")
    assert main(["--folders", "--root", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [f"mvtec\t{tmp_path / 'mvtec'}", f"tn3k\t{tmp_path / 'tn3k'}"]
    assert "images/0.jpg: anomalous, and no mask" in printed.err
    assert (tmp_path / "mvtec" / "meta.json").is_file()
    assert (tmp_path / "tn3k" / "meta.json").read_bytes() == b"as it is"
    assert main(["--folders", "--root", str(tmp_path), "TN3K", "MVTec AD"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == ["tn3k", "mvtec"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("visa", "holds no VisA; download it from https://github.com/amazon-science/spot-diff"),
        ("kvasir", "no mask"),
        ("brain", "may be several datasets; name one of head_ct, brainmri, br35"),
        ("cifar", "is no known dataset; name one of mvtec, visa"),
    ],
)
def test_locate_what_is_not_there(name: str, complaint: str, tmp_path: Path) -> None:
    write_tree(tmp_path / "kvasir", "images/0.jpg")
    with pytest.raises(InputError, match=complaint):
        main(["--folders", "--root", str(tmp_path), name])


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("mvtec", ["mvtec"]),
        ("MVTec AD", ["mvtec"]),
        ("VISA", ["visa"]),
        ("sdd", ["SDD"]),
        ("DAGM_KaggleUpload", ["DAGM"]),
        ("DTD-Synthetic", ["DTD"]),
        ("Chest", ["covid"]),
        ("ISBI", ["isbi"]),
        ("thyroid", ["tn3k"]),
        ("brain", ["head_ct", "brainmri", "br35"]),
        ("colon", ["colonDB", "clinicDB", "kvasir", "endo"]),
        ("my parts", []),
    ],
)
def test_names(label: str, names: list[str]) -> None:
    assert [facts.name for facts in find_dataset(label)] == names


def test_every_dataset_has_a_builder_of_its_name() -> None:
    assert len(DATASETS) == 17
    for facts in DATASETS:
        builder = builder_of(facts)
        assert builder.facts is facts
        assert not builder.classes or len(builder.classes) == facts.classes
