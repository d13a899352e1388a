"""Layouts that several datasets share."""

from generic_dataset_json.builder.layouts import Layout

NORMAL_FOLDERS = frozenset({"good", "normal", "ok"})
ISIC_MASKS = "ISBI2016_ISIC_Part1_Test_GroundTruth"

MVTEC_LAYOUT = Layout(
    name="as MVTec AD",
    images=("{cls}/{split:train|test}/{specie}/{stem}",),
    masks=("{cls}/ground_truth/{specie}/{stem}",),
    normal=NORMAL_FOLDERS,
)
"""The layout of MVTec AD and of many datasets after it; the authors bring others into this form."""

TEST_TREE = Layout(name="rearranged", images=("{cls}/test/{specie}/{stem}",), normal=NORMAL_FOLDERS)
"""The authors' form of medical datasets without masks."""

TEST_TREE_WITH_MASKS = Layout(
    name="rearranged",
    images=TEST_TREE.images,
    masks=(
        "{cls}/ground_truth/{specie}/{stem}",
        "{cls}/ground_truth/{stem}",
        "{cls}/masks/{stem}",
        "{cls}/test/masks/{stem}",
        f"{{cls}}/{ISIC_MASKS}/{{stem}}",
    ),
    normal=NORMAL_FOLDERS,
)
"""The authors' form of medical datasets with masks."""

YES_NO_LAYOUT = Layout(name="public download", images=("{specie:yes|no}/{stem}",), normal=frozenset({"no"}))

IMAGES_AND_MASKS = Layout(name="public download", images=("images/{stem}",), masks=("masks/{stem}",), anomaly=1)
