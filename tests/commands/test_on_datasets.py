"""test.py on datasets, end to end on a tiny CLIP."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from runs import (
    contents,
    evaluate_tiny,
    image_flags,
    run_script,
    small_mask,
)

import metrics
import test
from AnomalyCLIP_lib import InputError
from generic_dataset_json import mvtec
from metrics import ALL_METRICS


def test_results_are_consistent(tested, tiny_dataset):
    content = json.loads((tested / "metrics.json").read_text())
    assert set(content) == {"settings", "classes", "mean", "intervals", "counts"}
    assert list(content["classes"]) == ["cloth", "plate"]
    with (tested / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["image_path", "cls_name", "label", "anomaly_score"] and len(rows) == 12
    for name, values in content["classes"].items():
        assert tuple(values) == ALL_METRICS
        part = [row for row in rows if row["cls_name"] == name]
        labels, scores = [int(row["label"]) for row in part], [float(row["anomaly_score"]) for row in part]
        assert values["image_auroc"] == pytest.approx(100 * metrics.image_auroc(labels, scores))
        assert values["image_ap"] == pytest.approx(100 * metrics.image_ap(labels, scores))
        maps = np.stack([np.load((tested / row["image_path"]).with_suffix(".npy")) for row in part])
        masks = np.stack([small_mask(tiny_dataset, row["image_path"]) for row in part])
        assert values["pixel_auroc"] == pytest.approx(100 * metrics.pixel_auroc(masks, maps))
        assert values["pixel_aupro"] == pytest.approx(100 * metrics.pixel_aupro(masks, maps))
    for name, value in content["mean"].items():
        assert value == pytest.approx(np.mean([values[name] for values in content["classes"].values()]))
    settings = content["settings"]
    assert settings["mask_threshold"] == "auto" and settings["mask_thresholds_used"] == [0]
    assert settings["trained_on"] == "tiny_training"
    assert all((tiny_dataset / row["image_path"]).is_file() for row in rows)


def test_the_table_and_the_papers_row(tested):
    log = (tested / "log.txt").read_text()
    assert "| objects" in log and "| cloth" in log and "| mean" in log
    assert "pixel_auroc 95.5" in log and "the paper on VisA" in log
    content = json.loads((tested / "metrics.json").read_text())
    assert f"{content['mean']['pixel_aupro']:.1f}" in log


def test_the_pictures_of_a_dataset_are_listed(tested):
    with (tested / "pictures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # Six images a class: three normal ones, and three anomalous ones, which are both the lowest and the highest
    assert sorted(row["picture"] for row in rows) == sorted(
        str(path.relative_to(tested)) for path in tested.rglob("*.png")
    )
    assert sorted(row["image_path"] for row in rows) == sorted(
        f"{name}/test/{kind}/{number:03d}.png"
        for name in ("cloth", "plate")
        for kind in ("good", "spot")
        for number in range(3)
    )


@pytest.mark.parametrize("flags, drawn", [(["--visualize", "none"], 0), (["--visualize_all"], 12)])
def test_which_pictures_are_drawn(trained, tiny_files, tiny_dataset, tmp_path, flags, drawn):
    assert evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, *flags) == 0
    assert len(list(tmp_path.rglob("*.png"))) == drawn
    assert (tmp_path / "pictures.csv").exists() == bool(drawn)


def test_an_overlay_shows_every_pixel_of_the_image(trained, tiny_files, tiny_dataset, tmp_path):
    assert evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, "--visualize", "overlay") == 0
    picture = Image.open(tmp_path / "cloth" / "test" / "spot" / "000.png")
    assert picture.mode == "RGB" and picture.width >= 52 and picture.height > 40


def test_all_pictures_and_none_contradict_each_other(tiny_dataset):
    with pytest.raises(InputError, match="--visualize_all contradicts --visualize none"):
        test.main(["--data_path", str(tiny_dataset), "--visualize", "none", "--visualize_all"])


def test_prompts_trained_on_the_tested_dataset_are_told(tested):
    assert "not a zero-shot result" in (tested / "log.txt").read_text()  # told by the hash of the dataset


def test_image_level_only(trained, tiny_files, tiny_dataset, tested, tmp_path):
    assert evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, "--metrics", "image-level") == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    full = json.loads((tested / "metrics.json").read_text())
    assert content["mean"]["pixel_auroc"] is None and content["mean"]["pixel_aupro"] is None
    assert content["mean"]["image_auroc"] == pytest.approx(full["mean"]["image_auroc"])


def test_pixel_level_only(trained, tiny_files, tiny_dataset, tested, tmp_path):
    assert evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, "--metrics", "pixel-level") == 0
    content = json.loads((tmp_path / "metrics.json").read_text())
    full = json.loads((tested / "metrics.json").read_text())
    assert content["mean"]["image_auroc"] is None
    assert content["mean"]["pixel_aupro"] == pytest.approx(full["mean"]["pixel_aupro"])
    row = next(line for line in (tmp_path / "log.txt").read_text().splitlines() if line.startswith("| plate"))
    assert [cell.strip() for cell in row.split("|")][4:6] == ["-", "-"]


def test_classes_without_masks_or_with_one_label(trained, tiny_files, tiny_dataset, tmp_path):
    index = json.loads((tiny_dataset / "meta.json").read_text())
    for entry in index["test"]["plate"]:
        entry["mask_path"] = ""
    index["test"]["cloth"] = [entry for entry in index["test"]["cloth"] if entry["anomaly"]]
    index["root"] = str(tiny_dataset)
    (tmp_path / "meta.json").write_text(json.dumps(index))
    assert evaluate_tiny(trained, tiny_files, tmp_path / "meta.json", tmp_path / "out") == 0
    classes = json.loads((tmp_path / "out" / "metrics.json").read_text())["classes"]
    assert classes["plate"]["pixel_auroc"] is None and classes["plate"]["image_auroc"] is not None
    assert classes["cloth"]["image_auroc"] is None and classes["cloth"]["pixel_auroc"] is not None


def test_the_scripts_themselves(trained, tiny_files, tiny_dataset, tmp_path):
    """The real command lines: exit codes, one sentence, no traceback."""
    good = run_script(
        "test.py", "--image", tiny_dataset / "plate/test/good/000.png", *image_flags(trained, tiny_files, tmp_path)
    )
    assert good.returncode == 0 and good.stdout.count("\t") == 1, good.stderr
    bad = run_script("test.py", "--image", tmp_path / "nowhere.png", *image_flags(trained, tiny_files, tmp_path))
    assert bad.returncode == 2 and "Traceback" not in bad.stderr and bad.stdout == ""
    assert bad.stderr.splitlines()[-1].startswith("error: ") and "nowhere.png" in bad.stderr
    wrong_flag = run_script("train.py", "--train_data_path", tmp_path, "--epoch", "0")
    assert wrong_flag.returncode == 2 and "at least 1" in wrong_flag.stderr


def test_mvtec_to_single_image_in_a_moved_folder(tiny_files, tiny_dataset, trained, tmp_path):
    """meta.json holds no absolute path: the dataset can move."""
    moved = tmp_path / "moved here ä"
    shutil.copytree(tiny_dataset, moved)
    assert mvtec.main(["--root", str(moved)]) == 0
    assert evaluate_tiny(trained, tiny_files, moved, tmp_path / "out") == 0


def test_a_dataset_is_not_overwritten_by_its_heat_maps(trained, tiny_files, tiny_dataset, tmp_path):
    shutil.copytree(tiny_dataset, tmp_path / "data")
    before = contents(tmp_path / "data")
    with pytest.raises(InputError, match="would overwrite the image"):
        evaluate_tiny(trained, tiny_files, tmp_path / "data", tmp_path / "data")
    assert contents(tmp_path / "data") == before


def test_results_of_an_earlier_run_do_not_outlive_the_start_of_the_next(trained, tiny_files, tiny_dataset, tmp_path):
    dataset, out = tmp_path / "dataset", tmp_path / "out"
    shutil.copytree(tiny_dataset, dataset)
    assert evaluate_tiny(trained, tiny_files, dataset, out) == 0
    assert (out / "report.html").is_file()
    image = dataset / "plate/test/good/001.png"
    image.write_bytes(image.read_bytes()[:-200])  # found out only when its turn comes
    with pytest.raises(InputError, match=r"001\.png is damaged"):
        evaluate_tiny(trained, tiny_files, dataset, out, "--threshold", "0.9", "--strict")
    left = {path.name for path in out.iterdir() if path.is_file()}
    assert not left & {"report.html", "metrics.json", "metrics.csv"}


def test_a_folder_holds_the_results_of_one_run(trained, tiny_files, tiny_dataset, tmp_path):
    image = ["--image", str(tiny_dataset / "plate/test/spot/001.png"), *image_flags(trained, tiny_files, tmp_path)]
    of_datasets = {"metrics.json", "metrics.csv", "report.html", "log.txt", "plate", "cloth"}
    for _ in range(2):
        assert evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path) == 0
        assert of_datasets <= (names := {path.name for path in tmp_path.iterdir()}) and "001.png" not in names
        assert test.main(image) == 0
        assert "001.png" in (names := {path.name for path in tmp_path.iterdir()}) and not of_datasets & names


def test_a_foreign_table_of_predictions_is_not_replaced(trained, tiny_files, tiny_dataset, tmp_path):
    (tmp_path / "predictions.csv").write_text("a,b\n1,2\n")
    image = str(tiny_dataset / "plate/test/spot/001.png")
    with pytest.raises(InputError, match=r"predictions\.csv is there already"):
        test.main(["--image", image, *image_flags(trained, tiny_files, tmp_path)])
    with pytest.raises(InputError, match=r"predictions\.csv is there already"):
        evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize("label, warned", [("tiny_training", True), ("visa", False)])
def test_the_warning_goes_by_the_label_too(trained, tiny_files, tiny_dataset, tmp_path, label, warned):
    index = json.loads((tiny_dataset / "meta.json").read_text())
    index["test"]["plate"].pop()  # another dataset than the one trained on
    index["root"] = str(tiny_dataset)
    (tmp_path / "meta.json").write_text(json.dumps(index))
    assert evaluate_tiny(trained, tiny_files, tmp_path / "meta.json", tmp_path / "out", "--dataset", label) == 0
    assert ("not a zero-shot result" in (tmp_path / "out" / "log.txt").read_text()) is warned


@pytest.mark.parametrize("label", ["MVTec", "MVTec AD", "mvtec_anomaly_detection"])
def test_other_spellings_of_a_dataset_find_the_right_prompts(tiny_dataset, monkeypatch, tmp_path, label):
    asked = []

    def load(*_, tested_dataset=None, **__):
        asked.append(tested_dataset)
        raise InputError("far enough")

    monkeypatch.setattr("AnomalyCLIP_lib.loading.load", load)
    with pytest.raises(InputError, match="far enough"):
        test.main(["--data_path", str(tiny_dataset), "--dataset", label, "--save_path", str(tmp_path)])
    assert asked == ["mvtec"]
