"""Each dataset in the form to which the authors' tools bring it."""

from importlib import import_module
from pathlib import Path

import pytest
from trees import meta_of, read_meta, write_tree

INDUSTRIAL = {
    "mvtec": "bottle",
    "visa": "candle",
    "mpdd": "bracket_black",
    "btad": "01",
    "SDD": "electrical commutators",
    "DAGM": "Class1",
    "DTD": "Woven_001",
}
WITHOUT_MASKS = {"head_ct": "brain", "brainmri": "brain", "br35": "brain", "covid": "chest"}
WITH_MASKS = {
    "isbi": "skin",
    "colonDB": "colon",
    "clinicDB": "colon",
    "kvasir": "colon",
    "endoTect": "colon",
    "tn3k": "thyroid",
}


def _build(script: str, root: Path) -> None:
    assert import_module(f"generic_dataset_json.{script}").main(["--root", str(root)]) == 0


@pytest.mark.parametrize(("script", "class_name"), INDUSTRIAL.items())
def test_industrial(script: str, class_name: str, tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        f"""
            {class_name}/train/good/kos01_Part0_0.png
            {class_name}/test/good/kos02_Part0_0.png
            {class_name}/test/defect/kos01_Part5_0.png
            {class_name}/test/defect/kos01_Part5_1.png
        """,
        f"{class_name}/ground_truth/defect/kos01_Part5_0.png \n {class_name}/ground_truth/defect/kos01_Part5_1.png",
    )
    _build(script, root)
    assert read_meta(root) == meta_of(f"""
        train | {class_name}/train/good/kos01_Part0_0.png | {class_name} | good | 0
        test | {class_name}/test/defect/kos01_Part5_0.png | {class_name} | defect | 1
            mask | {class_name}/ground_truth/defect/kos01_Part5_0.png
        test | {class_name}/test/defect/kos01_Part5_1.png | {class_name} | defect | 1
            mask | {class_name}/ground_truth/defect/kos01_Part5_1.png
        test | {class_name}/test/good/kos02_Part0_0.png | {class_name} | good | 0
    """)


def test_sdd_with_an_underscore_in_its_class(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "electrical_commutators/test/good/kos01_Part0_0.png")
    _build("SDD", root)
    expected = "test | electrical_commutators/test/good/kos01_Part0_0.png | electrical_commutators | good | 0"
    assert read_meta(root) == meta_of(expected)


@pytest.mark.parametrize(("script", "class_name"), WITHOUT_MASKS.items())
def test_medical_without_masks(script: str, class_name: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path, f"{class_name}/test/good/1 no.jpeg \n {class_name}/test/hemorrhage/000.png")
    _build(script, root)
    assert read_meta(root) == meta_of(f"""
        test | {class_name}/test/good/1 no.jpeg | {class_name} | good | 0
        test | {class_name}/test/hemorrhage/000.png | {class_name} | hemorrhage | 1
    """)


@pytest.mark.parametrize(("script", "folder"), [("covid", "chest/test/COVID"), ("br35", "brain/test/yes")])
def test_folders_named_as_in_the_download(script: str, folder: str, tmp_path: Path) -> None:
    """The public layout would fit these folders alone and lose the normal images."""
    class_name, _, specie = folder.split("/")
    root = write_tree(tmp_path, f"{folder}/1.png \n {class_name}/test/good/2.png")
    _build(script, root)
    entries = read_meta(root)["test"][class_name]
    assert {entry["specie_name"]: entry["anomaly"] for entry in entries} == {specie: 1, "good": 0}


@pytest.mark.parametrize(("script", "class_name"), WITH_MASKS.items())
@pytest.mark.parametrize("masks", ["ground_truth/polyp", "ground_truth", "masks", "test/masks"])
def test_medical_with_masks(script: str, class_name: str, masks: str, tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        f"{class_name}/test/polyp/1.jpg \n {class_name}/test/polyp/10.jpg",
        f"{class_name}/{masks}/1.jpg \n {class_name}/{masks}/10.jpg",
    )
    _build(script, root)
    assert read_meta(root) == meta_of(f"""
        test | {class_name}/test/polyp/1.jpg | {class_name} | polyp | 1
            mask | {class_name}/{masks}/1.jpg
        test | {class_name}/test/polyp/10.jpg | {class_name} | polyp | 1
            mask | {class_name}/{masks}/10.jpg
    """)


def test_isic_keeps_its_folder_of_masks(tmp_path: Path) -> None:
    mask = "skin/ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png"
    root = write_tree(tmp_path, "skin/test/bad/ISIC_0000003.jpg", mask)
    _build("isbi", root)
    assert read_meta(root) == meta_of(f"""
        test | skin/test/bad/ISIC_0000003.jpg | skin | bad | 1
            mask | {mask}
    """)
