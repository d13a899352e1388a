"""The 17 datasets by name: what they are called here and elsewhere, their builder and the paper's figures.

The figures are those of the paper's tables: prompts trained on MVTec AD, for MVTec AD itself on VisA.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetFacts:
    """One dataset. Results are percentages; None where the paper has no such figure."""

    name: str
    """The value of --dataset and the folder's name under DATA_ROOT."""
    paper_name: str
    module: str
    """Its builder in this package."""
    other_names: tuple[str, ...]
    """Further names of its folder, and the authors' value of --dataset; one may stand for several datasets."""
    classes: int
    normal: int
    anomalous: int
    image_auroc: float | None
    image_ap: float | None
    pixel_auroc: float | None
    pixel_aupro: float | None
    source: str
    """Where it can be downloaded."""

    def accepted_names(self) -> set[str]:
        """All names that mean this dataset, as `simple_name` writes them."""
        return {simple_name(name) for name in (self.name, self.paper_name, *self.other_names)}


def simple_name(name: str) -> str:
    """A name without case, spaces, hyphens and underscores, for comparison."""
    return "".join(letter for letter in name.casefold() if letter not in " -_")


def find_dataset(label: str) -> list[DatasetFacts]:
    """The datasets that a label or folder name can mean: one, none, or several for "brain" and "colon"."""
    return [facts for facts in DATASETS if simple_name(label) in facts.accepted_names()]


def canonical_name(label: str | None) -> str | None:
    """The `--dataset` name of a label that may be the paper's or the authors' name for it, in any spelling."""
    datasets = find_dataset(label) if label else []
    return datasets[0].name if len(datasets) == 1 else label


_POLYP_SOURCE = "https://figshare.com/articles/figure/Polyp_DataSet_zip/21221579"

# fmt: off
DATASETS = (
    DatasetFacts("mvtec", "MVTec AD", "mvtec", ("mvtec_anomaly_detection",),
                 15, 467, 1258, 91.5, 96.2, 91.1, 81.4,
                 "https://www.mvtec.com/company/research/datasets/mvtec-ad"),
    DatasetFacts("visa", "VisA", "visa", ("VisA_20220922", "VisA_pytorch"),
                 12, 962, 1200, 82.1, 85.4, 95.5, 87.0,
                 "https://github.com/amazon-science/spot-diff"),
    DatasetFacts("mpdd", "MPDD", "mpdd", (),
                 6, 176, 282, 77.0, 82.0, 96.5, 88.7,
                 "https://github.com/stepanje/MPDD"),
    DatasetFacts("btad", "BTAD", "btad", ("BTech_Dataset_transformed",),
                 3, 451, 290, 88.3, 87.3, 94.2, 74.8,
                 "http://avires.dimi.uniud.it/papers/btad/btad.zip"),
    DatasetFacts("SDD", "SDD", "SDD", ("KolektorSDD",),
                 1, 181, 74, 84.7, 80.0, 90.6, 67.8,
                 "https://www.vicos.si/resources/kolektorsdd/"),
    DatasetFacts("DAGM", "DAGM", "DAGM", ("DAGM_KaggleUpload", "DAGM2007"),
                 10, 6996, 1054, 97.5, 92.3, 95.6, 91.0,
                 "https://www.kaggle.com/datasets/mhskjelvareid/dagm-2007-competition-dataset-optical-inspection"),
    DatasetFacts("DTD", "DTD-Synthetic", "DTD", (),
                 12, 357, 947, 93.5, 97.0, 97.9, 92.3,
                 "https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1"),
    DatasetFacts("head_ct", "HeadCT", "head_ct", ("brain", "head_ct_hemorrhage"),
                 1, 100, 100, 93.4, 91.6, None, None,
                 "https://www.kaggle.com/datasets/felipekitamura/head-ct-hemorrhage"),
    DatasetFacts("brainmri", "BrainMRI", "brainmri", ("brain", "brain_tumor_dataset"),
                 1, 98, 155, 90.3, 92.2, None, None,
                 "https://www.kaggle.com/datasets/navoneel/brain-mri-images-for-brain-tumor-detection"),
    DatasetFacts("br35", "Br35H", "br35", ("brain",),
                 1, 1500, 1500, 94.6, 94.7, None, None,
                 "https://www.kaggle.com/datasets/ahmedhamada0/brain-tumor-detection"),
    DatasetFacts("covid", "COVID-19", "covid",
                 ("chest", "COVID-19 Radiography Database", "COVID-19_Radiography_Dataset"),
                 1, 1341, 219, 80.1, 58.7, None, None,
                 "https://www.kaggle.com/datasets/tawsifurrahman/covid19-radiography-database"),
    DatasetFacts("isbi", "ISIC", "isbi", ("skin", "ISBI2016", "ISIC2016"),
                 1, 0, 379, None, None, 89.7, 78.4,
                 "https://drive.google.com/file/d/1UeuKgF1QYfT1jTlYHjxKB3tRjrFHfFDR/view"),
    DatasetFacts("colonDB", "CVC-ColonDB", "colonDB", ("colon",),
                 1, 0, 380, None, None, 81.9, 71.3,
                 _POLYP_SOURCE),
    DatasetFacts("clinicDB", "CVC-ClinicDB", "clinicDB", ("colon",),
                 1, 0, 612, None, None, 82.9, 67.8,
                 _POLYP_SOURCE),
    DatasetFacts("kvasir", "Kvasir", "kvasir", ("colon", "Kvasir-SEG"),
                 1, 0, 1000, None, None, 78.9, 45.6,
                 _POLYP_SOURCE),
    DatasetFacts("endo", "Endo", "endoTect", ("colon", "EndoTect", "EndoTect_2020_Segmentation_Test_Dataset"),
                 1, 0, 200, None, None, 84.1, 63.6,
                 "https://drive.google.com/file/d/1LNpLkv5ZlEUzr_RPN5rdOHaqk0SkZa3m/view"),
    DatasetFacts("tn3k", "TN3K", "tn3k", ("thyroid", "Thyroid Dataset"),
                 1, 0, 614, None, None, 81.5, 50.4,
                 "https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation"),
)
# fmt: on
