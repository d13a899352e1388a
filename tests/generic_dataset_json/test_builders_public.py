"""Each dataset as its public download unpacks, and the meta.json that must come of it."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest
from trees import MVTEC_FILES, MVTEC_MASKS, mask, meta_of, read_meta, snapshot, write_tree


@dataclass(frozen=True)
class Case:
    script: str
    files: str
    expected: str
    """As `meta_of` takes it."""
    masks: str = ""
    contents: dict[str, bytes] = field(default_factory=dict)
    says: tuple[str, ...] = ("public download",)
    """What the printed report contains."""


CASES = {
    "mvtec": Case(
        script="mvtec",
        files=MVTEC_FILES + "bottle/Thumbs.db \n bottle/test/good/.hidden.png \n readme.txt",
        masks=MVTEC_MASKS,
        expected="""
            train | bottle/train/good/000.png | bottle | good | 0
            test | bottle/test/broken_large/000.png | bottle | broken_large | 1
                mask | bottle/ground_truth/broken_large/000_mask.png
            test | bottle/test/broken_large/001.png | bottle | broken_large | 1
                mask | bottle/ground_truth/broken_large/001_mask.png
            test | bottle/test/broken_large/002.png | bottle | broken_large | 1
                mask | bottle/ground_truth/broken_large/002_mask.png
            test | bottle/test/contamination/000.png | bottle | contamination | 1
                mask | bottle/ground_truth/contamination/000_mask.png
            test | bottle/test/good/000.png | bottle | good | 0
        """,
        says=("as MVTec AD", "1 normal, 4 anomalous", "the paper: 467, 1258", "missing: cable, capsule"),
    ),
    "mvtec without train, in a folder of its own": Case(
        script="mvtec",
        files="mvtec_anomaly_detection/wood/test/good/000.png \n mvtec_anomaly_detection/wood/test/hole/000.png",
        masks="mvtec_anomaly_detection/wood/ground_truth/hole/000_mask.png",
        expected="""
            test | mvtec_anomaly_detection/wood/test/good/000.png | wood | good | 0
            test | mvtec_anomaly_detection/wood/test/hole/000.png | wood | hole | 1
                mask | mvtec_anomaly_detection/wood/ground_truth/hole/000_mask.png
        """,
        says=("as MVTec AD",),
    ),
    "visa": Case(
        script="visa",
        files="""
            candle/Data/Images/Normal/0000.JPG
            candle/Data/Images/Normal/0001.JPG
            candle/Data/Images/Normal/0009.JPG
            candle/Data/Images/Anomaly/000.JPG
            candle/image_anno.csv
            split_csv/2cls_fewshot.csv
        """,
        contents={
            "candle/Data/Masks/Anomaly/000.png": mask("png", 1),
            "split_csv/1cls.csv": (
                b"object,split,label,image,mask\r\n"
                b"candle,train,normal,candle/Data/Images/Normal/0000.JPG,\r\n"
                b"candle,test,normal,candle/Data/Images/Normal/0001.JPG,\r\n"
                b"candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\r\n"
                b"pcb1,test,normal,pcb1/Data/Images/Normal/0000.JPG,\r\n"
            ),
        },
        expected="""
            train | candle/Data/Images/Normal/0000.JPG | candle | - | 0
            test | candle/Data/Images/Anomaly/000.JPG | candle | Anomaly | 1
                mask | candle/Data/Masks/Anomaly/000.png
            test | candle/Data/Images/Normal/0001.JPG | candle | - | 0
        """,
        says=("public download", "1 image in candle/Data/Images/Normal", "the paper: 962, 1200"),
    ),
    "mpdd": Case(
        script="mpdd",
        files="""
            tubes/train/good/000.png
            tubes/test/good/001.png
            tubes/test/anomalous/000.png
            tubes/test/anomalous/010.png
        """,
        masks="tubes/ground_truth/anomalous/000_mask.png \n tubes/ground_truth/anomalous/defect_010_v2.png",
        expected="""
            train | tubes/train/good/000.png | tubes | good | 0
            test | tubes/test/anomalous/000.png | tubes | anomalous | 1
                mask | tubes/ground_truth/anomalous/000_mask.png
            test | tubes/test/anomalous/010.png | tubes | anomalous | 1
                mask | tubes/ground_truth/anomalous/defect_010_v2.png
            test | tubes/test/good/001.png | tubes | good | 0
        """,
        says=("as MVTec AD", "missing: bracket_black"),
    ),
    "btad": Case(
        script="btad",
        files="""
            BTech_Dataset_transformed/01/train/ok/0000.bmp
            BTech_Dataset_transformed/01/test/ok/0001.bmp
            BTech_Dataset_transformed/01/test/ko/0000.bmp
            BTech_Dataset_transformed/02/test/ko/0005.png
        """,
        masks="""
            BTech_Dataset_transformed/01/ground_truth/ko/0000.png
            BTech_Dataset_transformed/02/ground_truth/ko/0005.BMP
        """,
        expected="""
            train | BTech_Dataset_transformed/01/train/ok/0000.bmp | 01 | - | 0
            test | BTech_Dataset_transformed/01/test/ko/0000.bmp | 01 | ko | 1
                mask | BTech_Dataset_transformed/01/ground_truth/ko/0000.png
            test | BTech_Dataset_transformed/01/test/ok/0001.bmp | 01 | - | 0
            test | BTech_Dataset_transformed/02/test/ko/0005.png | 02 | ko | 1
                mask | BTech_Dataset_transformed/02/ground_truth/ko/0005.BMP
        """,
        says=("missing: 03",),
    ),
    "SDD": Case(
        script="SDD",
        files="kos01/Part0.jpg \n kos01/Part5.jpg \n kos02/Part0.jpg",
        masks="kos01/Part5_label.bmp",
        contents={"kos01/Part0_label.bmp": mask("bmp", 0), "kos02/Part0_label.bmp": mask("bmp", 0)},
        expected="""
            test | kos01/Part0.jpg | electrical commutators | - | 0
            test | kos01/Part5.jpg | electrical commutators | - | 1
                mask | kos01/Part5_label.bmp
            test | kos02/Part0.jpg | electrical commutators | - | 0
        """,
        says=("public download", "the paper: 181, 74", "a cut of its authors"),
    ),
    "DAGM": Case(
        script="DAGM",
        files="""
            DAGM_KaggleUpload/Class1/Train/0576.PNG
            DAGM_KaggleUpload/Class1/Train/0595.PNG
            DAGM_KaggleUpload/Class1/Test/0001.PNG
            DAGM_KaggleUpload/Class1/Test/0002.PNG
            DAGM_KaggleUpload/Class10/Test/0001.PNG
        """,
        masks="""
            DAGM_KaggleUpload/Class1/Train/Label/0595_label.PNG
            DAGM_KaggleUpload/Class1/Test/Label/0002_label.PNG
        """,
        contents={"DAGM_KaggleUpload/Class1/Test/Label/Labels.txt": b"1\n0002 1 0002.PNG 1 0002_label.PNG\n"},
        expected="""
            train | DAGM_KaggleUpload/Class1/Train/0576.PNG | Class1 | - | 0
            train | DAGM_KaggleUpload/Class1/Train/0595.PNG | Class1 | - | 1
                mask | DAGM_KaggleUpload/Class1/Train/Label/0595_label.PNG
            test | DAGM_KaggleUpload/Class1/Test/0001.PNG | Class1 | - | 0
            test | DAGM_KaggleUpload/Class1/Test/0002.PNG | Class1 | - | 1
                mask | DAGM_KaggleUpload/Class1/Test/Label/0002_label.PNG
            test | DAGM_KaggleUpload/Class10/Test/0001.PNG | Class10 | - | 0
        """,
    ),
    "DTD": Case(
        script="DTD",
        files="""
            Woven_001/train/good/000.png
            Woven_001/test/good/001.png
            Woven_001/test/bad/000.png
            Woven_001/test/bad/001.png
        """,
        masks="Woven_001/ground_truth/bad/000_mask.png \n Woven_001/ground_truth/bad/001.png",
        expected="""
            train | Woven_001/train/good/000.png | Woven_001 | good | 0
            test | Woven_001/test/bad/000.png | Woven_001 | bad | 1
                mask | Woven_001/ground_truth/bad/000_mask.png
            test | Woven_001/test/bad/001.png | Woven_001 | bad | 1
                mask | Woven_001/ground_truth/bad/001.png
            test | Woven_001/test/good/001.png | Woven_001 | good | 0
        """,
        says=("missing: Woven_127",),
    ),
    "head_ct": Case(
        script="head_ct",
        files="head_ct/head_ct/000.png \n head_ct/head_ct/010.png \n head_ct/head_ct/100.png",
        contents={"labels.csv": b"id, hemorrhage\n0,1\n10,1\n100,0\n"},
        expected="""
            test | head_ct/head_ct/000.png | brain | - | 1
            test | head_ct/head_ct/010.png | brain | - | 1
            test | head_ct/head_ct/100.png | brain | - | 0
        """,
    ),
    "brainmri": Case(
        script="brainmri",
        files="""
            no/1 no.jpeg
            no/N2.JPG
            yes/Y1.jpg
            brain_tumor_dataset/no/1 no.jpeg
            brain_tumor_dataset/no/N2.JPG
            brain_tumor_dataset/yes/Y1.jpg
        """,
        expected="""
            test | no/1 no.jpeg | brain | - | 0
            test | no/N2.JPG | brain | - | 0
            test | yes/Y1.jpg | brain | yes | 1
        """,
        says=("left out", "3 images in brain_tumor_dataset/no, brain_tumor_dataset/yes", "the paper: 98, 155"),
    ),
    "br35": Case(
        script="br35",
        files="""
            yes/y0.jpg
            no/no0.jpg
            pred/pred0.jpg
            Br35H-Mask-RCNN/TRAIN/y5.jpg
            Br35H-Mask-RCNN/TEST/y6.jpg
        """,
        expected="""
            test | no/no0.jpg | brain | - | 0
            test | yes/y0.jpg | brain | yes | 1
        """,
    ),
    "covid, first release": Case(
        script="covid",
        files="""
            COVID-19 Radiography Database/COVID-19/COVID-19 (1).png
            COVID-19 Radiography Database/NORMAL/NORMAL (1).png
            COVID-19 Radiography Database/Viral Pneumonia/Viral Pneumonia (1).png
            COVID-19 Radiography Database/NORMAL.metadata.xlsx
        """,
        expected="""
            test | COVID-19 Radiography Database/COVID-19/COVID-19 (1).png | chest | COVID-19 | 1
            test | COVID-19 Radiography Database/NORMAL/NORMAL (1).png | chest | - | 0
        """,
        says=("public download, first release", "1 image in COVID-19 Radiography Database/Viral Pneumonia"),
    ),
    "covid, current release": Case(
        script="covid",
        files="""
            COVID-19_Radiography_Dataset/COVID/images/COVID-1.png
            COVID-19_Radiography_Dataset/Lung_Opacity/images/Lung_Opacity-1.png
            COVID-19_Radiography_Dataset/Normal/images/Normal-1.png
            COVID-19_Radiography_Dataset/Viral Pneumonia/images/Viral Pneumonia-1.png
        """,
        masks="""
            COVID-19_Radiography_Dataset/COVID/masks/COVID-1.png
            COVID-19_Radiography_Dataset/Normal/masks/Normal-1.png
        """,
        expected="""
            test | COVID-19_Radiography_Dataset/COVID/images/COVID-1.png | chest | COVID | 1
            test | COVID-19_Radiography_Dataset/Normal/images/Normal-1.png | chest | - | 0
        """,
        says=("public download, current release", "the paper used the first release"),
    ),
    "isbi": Case(
        script="isbi",
        files="ISBI2016_ISIC_Part1_Test_Data/ISIC_0000003.jpg",
        masks="ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png",
        expected="""
            test | ISBI2016_ISIC_Part1_Test_Data/ISIC_0000003.jpg | skin | - | 1
                mask | ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png
        """,
    ),
    "colonDB": Case(
        script="colonDB",
        files="images/1.png \n images/10.png",
        masks="masks/1.png \n masks/10.png",
        expected="""
            test | images/1.png | colon | - | 1
                mask | masks/1.png
            test | images/10.png | colon | - | 1
                mask | masks/10.png
        """,
        says=("0 normal, 2 anomalous", "the paper: 0, 380"),
    ),
    "clinicDB": Case(
        script="clinicDB",
        files="images/1.png",
        masks="masks/1.png",
        expected="""
            test | images/1.png | colon | - | 1
                mask | masks/1.png
        """,
    ),
    "clinicDB, official": Case(
        script="clinicDB",
        files="CVC-ClinicDB/Original/1.tif",
        masks="CVC-ClinicDB/Ground Truth/1.tif",
        expected="""
            test | CVC-ClinicDB/Original/1.tif | colon | - | 1
                mask | CVC-ClinicDB/Ground Truth/1.tif
        """,
        says=("official archive",),
    ),
    "kvasir": Case(
        script="kvasir",
        files="Kvasir-SEG/images/cju0.jpg \n Kvasir-SEG/kavsir_bboxes.json",
        masks="Kvasir-SEG/masks/cju0.jpg",
        expected="""
            test | Kvasir-SEG/images/cju0.jpg | colon | - | 1
                mask | Kvasir-SEG/masks/cju0.jpg
        """,
    ),
    "endo": Case(
        script="endoTect",
        files="EndoTect_2020_Segmentation_Test_Dataset/images/a.jpg",
        masks="EndoTect_2020_Segmentation_Test_Dataset/masks/a.jpg",
        expected="""
            test | EndoTect_2020_Segmentation_Test_Dataset/images/a.jpg | colon | - | 1
                mask | EndoTect_2020_Segmentation_Test_Dataset/masks/a.jpg
        """,
    ),
    "tn3k": Case(
        script="tn3k",
        files="tn3k/test-image/0000.jpg \n tn3k/trainval-image/0000.jpg \n tn3k/tn3k-trainval-fold0.json",
        masks="tn3k/test-mask/0000.jpg \n tn3k/trainval-mask/0000.jpg",
        expected="""
            test | tn3k/test-image/0000.jpg | thyroid | - | 1
                mask | tn3k/test-mask/0000.jpg
        """,
        says=("2 images in tn3k/trainval-image, tn3k/trainval-mask",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_public_download(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    root = write_tree(tmp_path / "data", case.files + "\nThumbs.db\n.DS_Store", case.masks, case.contents)
    before = snapshot(root)
    assert import_module(f"generic_dataset_json.{case.script}").main(["--root", str(root)]) == 0
    assert read_meta(root) == meta_of(case.expected)
    printed = capsys.readouterr().out
    for text in case.says:
        assert text in printed
    after = snapshot(root)
    del after["meta.json"]
    assert after == before
