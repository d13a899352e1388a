"""Anybody's own images: a tree, two folders, a table."""

from pathlib import Path

import pytest
from trees import mask, meta_of, picture, read_meta, write_tree

from AnomalyCLIP_lib.errors import InputError
from dataset import check_images, check_masks, read_index
from generic_dataset_json.custom import main


def _usable(path: Path) -> None:
    """test.py and train.py can take it with no other step."""
    index = read_index(path)
    check_images(index)
    check_masks(index)


def _fails(*arguments: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        main([str(argument) for argument in arguments])
    return str(caught.value)


def test_tree_with_masks_for_some_kinds_of_defect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = """
        gear wheel/train/good/1.png
        gear wheel/test/good/2.png
        gear wheel/test/dent/1.png
        gear wheel/test/rust/1.png
        Zahnräder/test/dent/1.png
        Zahnräder/test/good/1.png
    """
    root = write_tree(tmp_path, files, "gear wheel/ground_truth/dent/1.png")
    assert main(["--root", str(root)]) == 0
    assert read_meta(root) == meta_of("""
        train | gear wheel/train/good/1.png | gear wheel | good | 0
        test | Zahnräder/test/dent/1.png | Zahnräder | dent | 1
        test | Zahnräder/test/good/1.png | Zahnräder | good | 0
        test | gear wheel/test/dent/1.png | gear wheel | dent | 1
            mask | gear wheel/ground_truth/dent/1.png
        test | gear wheel/test/good/2.png | gear wheel | good | 0
        test | gear wheel/test/rust/1.png | gear wheel | rust | 1
    """)
    assert list(read_meta(root)["test"]) == ["Zahnräder", "gear wheel"]
    assert "anomalous test images without a mask: 2" in capsys.readouterr().out
    _usable(root)


def test_tree_with_a_gap_among_masks(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "a/test/dent/1.png \n a/test/dent/2.png", "a/ground_truth/dent/2.png")
    assert "a/test/dent/1.png: anomalous, and no mask" in _fails("--root", root)


def test_tree_of_one_class(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "gears", "test/good/1.png \n test/dent/1.png", "ground_truth/dent/1.png")
    main(["--root", str(root)])
    assert read_meta(root) == meta_of("""
        test | test/dent/1.png | gears | dent | 1
            mask | ground_truth/dent/1.png
        test | test/good/1.png | gears | good | 0
    """)
    main(["--root", str(root), "--name", "cogs"])
    assert list(read_meta(root)["test"]) == ["cogs"]


def test_two_folders(tmp_path: Path) -> None:
    parts = write_tree(tmp_path / "Teile", "fine/b.png \n fine/sub/a.png \n broken/a.png \n broken/sub/a.png")
    main(["--normal", str(parts / "fine"), "--anomalous", str(parts / "broken")])
    assert read_meta(parts) == meta_of("""
        test | broken/a.png | Teile | broken | 1
        test | broken/sub/a.png | Teile | broken | 1
        test | fine/b.png | Teile | - | 0
        test | fine/sub/a.png | Teile | - | 0
    """)
    _usable(parts)


def test_two_folders_with_masks_name_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "data", "x/fine/1.png \n x/broken/a.png \n x/broken/sub/a.png")
    write_tree(root, "", "x/masks/a_mask.png \n x/masks/sub/a_mask.png")
    monkeypatch.chdir(root)
    folders = ["--normal", "x/fine", "--anomalous", "x/broken", "--masks", "x/masks"]
    main([*folders, "--name", "gear", "--out", str(tmp_path / "lists")])
    expected = meta_of("""
        test | broken/a.png | gear | broken | 1
            mask | masks/a_mask.png
        test | broken/sub/a.png | gear | broken | 1
            mask | masks/sub/a_mask.png
        test | fine/1.png | gear | - | 0
    """)
    assert read_meta(tmp_path / "lists") == {"root": str((root / "x").resolve()), **expected}
    _usable(tmp_path / "lists")
    (root / "x/masks/a_mask.png").unlink()
    assert "a.png: anomalous, and no mask" in _fails(*folders)
    main([*folders, "--allow_missing_masks"])
    _usable(root / "x")


def test_masks_inside_the_folder_of_images(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "data", "fine/1.png \n broken/1.png", "broken/masks/1.png")
    folders = ["--normal", root / "fine", "--anomalous", root / "broken", "--masks", root / "broken/masks"]
    main([str(part) for part in folders])
    assert len(read_index(root).split("test")) == 2


def test_two_folders_that_cannot_be(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "all/1.png \n all/bad/2.png")
    (root / "empty").mkdir()
    assert "lies inside" in _fails("--normal", root / "all", "--anomalous", root / "all/bad")
    assert "holds no images" in _fails("--normal", root / "empty", "--anomalous", root / "all/bad")
    assert "a folder of their own" in _fails(
        "--normal", root / "all", "--anomalous", root / "empty", "--masks", root / "all"
    )


def test_table(tmp_path: Path) -> None:
    contents = {
        "list.csv": "Image; Label ;mask;class\nä/1.png;0;;gear\nä/2.png;anomalous;m/2.png;gear\n"
        "ä/3.png;normal;;\nä/4.png;1;m/4.png;\n".encode("utf-8-sig")
    }
    root = write_tree(
        tmp_path / "Tabelle", "ä/1.png \n ä/2.png \n ä/3.png \n ä/4.png", "m/2.png \n m/4.png", contents=contents
    )
    main(["--csv", str(root / "list.csv")])
    assert read_meta(root) == meta_of("""
        test | ä/3.png | Tabelle | - | 0
        test | ä/4.png | Tabelle | - | 1
            mask | m/4.png
        test | ä/1.png | gear | - | 0
        test | ä/2.png | gear | - | 1
            mask | m/2.png
    """)
    _usable(root)


def test_table_with_absolute_paths_elsewhere(tmp_path: Path) -> None:
    images = write_tree(tmp_path / "images", "a/1.png \n b/2.png")
    table = tmp_path / "lists" / "list.csv"
    table.parent.mkdir()
    table.write_text(f"image,label\n{images}/a/1.png,0\n../images/b/2.png,1\n")
    main(["--csv", str(table), "--name", "gear"])
    assert read_meta(images) == meta_of("test | a/1.png | gear | - | 0 \n test | b/2.png | gear | - | 1")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("image,state\n1.png,0\n", "no column label"),
        ("image,label\n", "no rows"),
        ("", "no column image or label"),
        ("image,label\n1.png,perhaps\n", "'perhaps'"),
        ("image,label\n,1\n", "without an image"),
        ("image,label\n1.png,1\n./1.png,0\n", "listed 2 times"),
        ("image,label\n9.png,1\n", "9.png: missing"),
        ("image,label\n0.png,1\n", "0.png: empty"),
        ("image,label,mask\n1.png,1,m.png\n2.png,1,\n", "2.png: anomalous, and no mask"),
    ],
)
def test_table_that_cannot_be(table: str, complaint: str, tmp_path: Path) -> None:
    contents = {"t.csv": table.encode(), "0.png": b"", "1.png": picture("png"), "2.png": picture("png")}
    root = write_tree(tmp_path, "", contents={**contents, "m.png": mask("png")})
    assert complaint in _fails("--csv", root / "t.csv")
    assert not (root / "meta.json").exists()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--normal", "x"],
        ["--anomalous", "x"],
        ["--root", "x", "--csv", "y"],
        ["--root", "x", "--normal", "y", "--anomalous", "z"],
    ],
)
def test_flags_that_do_not_go_together(flags: list[str]) -> None:
    assert "--normal FOLDER with --anomalous FOLDER" in _fails(*flags)
    assert "--masks goes with" in _fails("--root", "x", "--masks", "y")
