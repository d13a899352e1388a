"""Training, testing and single images through the command line, end to end on a tiny CLIP and dataset."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import metrics
import test
import train
from AnomalyCLIP_lib import InputError
from generic_dataset_json import mvtec
from metrics import ALL_METRICS

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def trained(tiny_files, tiny_dataset, tmp_path_factory):
    """Two epochs on the tiny dataset; the folder of the checkpoints."""
    folder = tmp_path_factory.mktemp("trained")
    assert train_tiny(tiny_files, tiny_dataset, folder) == 0
    return folder


def train_tiny(tiny_files, dataset, folder, *more):
    return train.main(
        [
            *("--train_data_path", str(dataset), "--save_path", str(folder), "--dataset", "tiny_training"),
            *("--backbone", str(tiny_files / "tiny.json"), "--pretrained", str(tiny_files / "tiny.safetensors")),
            *("--device", "cpu", "--workers", "0", "--epoch", "2", "--batch_size", "5", *more),
        ]
    )


def run_script(*command, cwd=REPOSITORY):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


# --- training ----------------------------------------------------------------------------------------------------


TRAINING_FILES = ["epoch_1.pth", "epoch_2.pth", "log.txt", "losses.csv", "losses.png", "maps.png"]


def training_files(folder):
    """What a training left in its folder, but for TensorBoard's files, which need a package of their own."""
    return sorted(path.name for path in folder.glob("[!.]*") if path.name != "tensorboard")


def test_training_writes_checkpoints_and_a_log(trained, tiny_dataset):
    assert training_files(trained) == TRAINING_FILES
    log = (trained / "log.txt").read_text()
    assert "epoch 1/2: local loss" in log and "epoch 2/2: local loss" in log
    content = torch.load(trained / "epoch_2.pth", weights_only=True)
    assert content["epoch"] == 2
    settings = content["settings"]
    assert settings["backbone"]["name"] == "tiny" and settings["backbone"]["config"]["embed_dim"] == 16
    assert settings["train_dataset"] == "tiny_training" and settings["seed"] == 111
    assert settings["image_size"] == 42 and settings["features_list"] == [2, 4]
    assert str(tiny_dataset) not in json.dumps(settings)
    assert {"ctx_pos", "ctx_neg", "compound_prompts_text.0", "compound_prompts_text.1"} <= set(
        content["prompt_learner"]
    )


def test_the_same_seed_gives_the_same_bytes(trained, tiny_files, tiny_dataset, tmp_path):
    train_tiny(tiny_files, tiny_dataset, tmp_path / "again")
    train_tiny(tiny_files, tiny_dataset, tmp_path / "other", "--seed", "7")
    first = (trained / "epoch_2.pth").read_bytes()
    assert (tmp_path / "again" / "epoch_2.pth").read_bytes() == first
    assert (tmp_path / "other" / "epoch_2.pth").read_bytes() != first


def test_only_the_prompts_learn_and_the_loss_falls(tiny_files, tiny_dataset, tmp_path):
    train_tiny(tiny_files, tiny_dataset, tmp_path, "--epoch", "8", "--save_freq", "100", "--learning_rate", "0.01")
    assert [path.name for path in tmp_path.glob("*.pth")] == ["epoch_8.pth"]
    lines = [line for line in (tmp_path / "log.txt").read_text().splitlines() if line.startswith("epoch")]
    losses = [float(line.split("local loss ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < losses[0]


def test_a_batch_of_one_trains(tiny_files, tiny_dataset, tmp_path):
    assert train_tiny(tiny_files, tiny_dataset, tmp_path, "--batch_size", "1", "--epoch", "1") == 0


def test_training_starts_from_released_prompts(reference_files, tiny_dataset, tmp_path):
    arguments = [
        *("--train_data_path", str(tiny_dataset), "--save_path", str(tmp_path), "--epoch", "1", "--image_size", "28"),
        *("--backbone", str(reference_files / "config.json"), "--pretrained", str(reference_files / "clip.pt")),
        *("--init_from", str(reference_files / "prompts.pth"), "--device", "cpu", "--workers", "0"),
        *("--learning_rate", "1e-9", "--dataset", "mine"),
    ]
    assert train.main(arguments) == 0
    before = torch.load(reference_files / "prompts.pth", weights_only=True)["prompt_learner"]
    after = torch.load(tmp_path / "epoch_1.pth", weights_only=True)["prompt_learner"]
    assert torch.allclose(before["ctx_pos"], after["ctx_pos"], atol=1e-6)
    assert not any("projections" in key for key in after)


# --- testing on a dataset ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tested(trained, tiny_files, tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tested")
    assert evaluate_tiny(trained, tiny_files, tiny_dataset, folder, "--save_maps") == 0
    return folder


def evaluate_tiny(trained, tiny_files, dataset, folder, *more):
    return test.main(
        [
            *("--data_path", str(dataset), "--save_path", str(folder), "--dataset", "visa"),
            *("--checkpoint_path", str(trained / "epoch_2.pth"), "--pretrained", str(tiny_files / "tiny.safetensors")),
            *("--device", "cpu", "--workers", "0", *more),
        ]
    )


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


def small_mask(dataset, image_path):
    name, _, specie, file = Path(image_path).parts
    if specie == "good":
        return np.zeros((42, 42), np.uint8)
    mask = Image.open(dataset / name / "ground_truth" / specie / file.replace(".png", "_mask.png"))
    return (np.asarray(mask.resize((42, 42), Image.Resampling.BILINEAR)) > 127).astype(np.uint8)


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


# --- single images -----------------------------------------------------------------------------------------------


def image_flags(trained, tiny_files, folder):
    return [
        *("--checkpoint_path", str(trained / "epoch_2.pth"), "--pretrained", str(tiny_files / "tiny.safetensors")),
        *("--device", "cpu", "--save_path", str(folder)),
    ]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("b.jpg", "a.png", "deep/er/c.bmp", "x.png", "x.bmp"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), len(name) * 9, np.uint8)).save(path)
    return folder


def test_single_images_agree_with_the_dataset_run(tested, trained, tiny_files, tiny_dataset, tmp_path, capsys):
    image = tiny_dataset / "plate" / "test" / "spot" / "001.png"
    flags = image_flags(trained, tiny_files, tmp_path)
    assert test.main(["--image", str(image), "--save_maps", *flags]) == 0
    captured = capsys.readouterr()
    path, score = captured.out.strip().split("\t")
    assert path == str(image) and "called anomalous: " in captured.err
    assert captured.err.splitlines()[0].startswith("model: anomalyclip; backbone tiny")
    with (tested / "predictions.csv").open(newline="") as file:
        expected = {row["image_path"]: float(row["anomaly_score"]) for row in csv.DictReader(file)}
    assert float(score) == pytest.approx(expected["plate/test/spot/001.png"], abs=1e-5)
    anomaly_map = np.load(tmp_path / "001.npy")
    assert anomaly_map.shape == (42, 42) and anomaly_map.dtype == np.float32
    assert np.allclose(anomaly_map, np.load(tested / "plate" / "test" / "spot" / "001.npy"), atol=1e-5)
    assert Image.open(tmp_path / "001.png").size > (52, 40)


def test_single_images_without_pictures(trained, tiny_files, tiny_dataset, tmp_path, capsys):
    image = tiny_dataset / "plate" / "test" / "spot" / "001.png"
    assert test.main(["--image", str(image), "--visualize", "none", *image_flags(trained, tiny_files, tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["predictions.csv", "settings.json"]
    assert "heat maps" not in capsys.readouterr().err


def test_folders_are_searched_and_mirrored(trained, tiny_files, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert test.main(["--image_path", str(pictures), *image_flags(trained, tiny_files, out), "--batch_size", "2"]) == 0
    lines = [line.split("\t")[0] for line in capsys.readouterr().out.strip().splitlines()]
    assert lines == [str(pictures / name) for name in ("a.png", "b.jpg", "deep/er/c.bmp", "x.bmp", "x.png")]
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.*") if path.is_file())
    images = ["a.png", "b.png", "deep/er/c.png", "x.bmp.png", "x.png.png"]
    assert written == sorted([*images, "predictions.csv", "report.html", "settings.json"])
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_path"] for row in rows] == lines and {row["label"] for row in rows} == {""}
    assert [row["picture"] for row in rows] == images and {row["map"] for row in rows} == {""}


def test_a_bad_file_among_several_is_told(trained, tiny_files, pictures, tmp_path, capsys):
    (pictures / "bad.png").write_bytes(b"no image")
    (pictures / "cut.png").write_bytes((pictures / "a.png").read_bytes()[:60])
    given = [str(pictures), str(tmp_path / "missing.png")]
    assert test.main(["--image", *given, *image_flags(trained, tiny_files, tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.strip().splitlines()) == 5
    for name in ("bad.png", "cut.png", "missing.png"):
        assert sum(name in line for line in captured.err.splitlines()) == 1
    assert "3 of 8 images could not be read" in captured.err


@pytest.mark.parametrize(
    "make, complaint",
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "damaged|not an image"),
        (lambda path: path.mkdir(), "holds no images"),
    ],
)
def test_a_single_bad_image(trained, tiny_files, tmp_path, make, complaint):
    path = tmp_path / "picture.png"
    make(path)
    out = tmp_path / "out"
    with pytest.raises(InputError, match=f"picture.png.*({complaint})"):
        test.main(["--image", str(path), *image_flags(trained, tiny_files, out)])
    assert not out.exists() or not any(out.iterdir())


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, complaint",
    [
        (None, "meta.json"),
        ("{", "meta.json.*JSON"),
        ("[]", "meta.json"),
        ('{"test": {"a": [{"anomaly": 1}]}}', "img_path"),
        ('{"test": {"a": [{"img_path": "../x.png", "anomaly": 0}]}}', r"\.\./x\.png"),
        ('{"test": {}}', "no test images"),
    ],
)
def test_bad_meta_json(tiny_files, tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "meta.json").write_text(content)
    for script, flag in ((test, "--data_path"), (train, "--train_data_path")):
        with pytest.raises(InputError, match=complaint):
            script.main([flag, str(tmp_path), "--save_path", str(tmp_path / "out"), "--device", "cpu"])
    assert not (tmp_path / "out").exists()


def test_a_missing_mask_stops_before_anything_is_written(tiny_files, tiny_dataset, tmp_path):
    index = json.loads((tiny_dataset / "meta.json").read_text())
    index["test"]["plate"][-1]["mask_path"] = "plate/ground_truth/spot/nowhere.png"
    index["root"] = str(tiny_dataset)
    (tmp_path / "meta.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"nowhere\.png"):
        train_tiny(tiny_files, tmp_path / "meta.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["test/spot/001.png", "ground_truth/spot/001_mask.png"])
def test_a_truncated_file_of_a_dataset_is_named(tiny_files, tiny_dataset, trained, tmp_path, file):
    shutil.copytree(tiny_dataset, tmp_path / "data")
    path = tmp_path / "data" / "plate" / file
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(InputError, match=path.name):
        evaluate_tiny(trained, tiny_files, tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_either_a_dataset_or_images(tiny_dataset):
    for flags in ([], ["--data_path", str(tiny_dataset), "--image", "a.png"]):
        with pytest.raises(InputError, match=r"either --data_path .* or --image"):
            test.main(flags)


def test_contradictions_with_a_checkpoint(trained, tiny_files, tiny_dataset, tmp_path, capsys):
    for flag, value in (("--n_ctx", "4"), ("--depth", "2"), ("--t_n_ctx", "1"), ("--backbone", "ViT-B/32")):
        with pytest.raises(InputError, match=f"{flag} {value} contradicts"):
            evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path / "out", flag, value)
    assert evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, "--sigma", "1", "--image_size", "28") == 0
    printed = capsys.readouterr().out
    assert "sigma 1.0 replaces 4.0" in printed and "image_size 28 replaces 42" in printed


def test_other_weights_than_the_checkpoints(trained, tiny_files, tiny_dataset, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(tiny_files / "tiny.safetensors")
    state["visual.proj"] = state["visual.proj"] + 1e-3
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="other weights"):
        evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path, "--pretrained", str(tmp_path / "other.safetensors"))


def test_a_diverging_run_says_so(tiny_files, tiny_dataset, tmp_path):
    with pytest.raises(InputError, match="lower --learning_rate"):
        train_tiny(tiny_files, tiny_dataset, tmp_path, "--learning_rate", "1e38", "--epoch", "5")


def test_a_save_path_that_cannot_be_written(trained, tiny_files, tiny_dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--save_path .*file"):
        evaluate_tiny(trained, tiny_files, tiny_dataset, tmp_path / "file" / "below")


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


# --- what is not overwritten -------------------------------------------------------------------------------------


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_are_not_overwritten_by_their_heat_maps(trained, tiny_files, pictures):
    before = contents(pictures)
    with pytest.raises(InputError, match=r"would overwrite the image .*a\.png"):
        test.main(["--image", str(pictures), *image_flags(trained, tiny_files, pictures)])
    assert contents(pictures) == before


def test_a_dataset_is_not_overwritten_by_its_heat_maps(trained, tiny_files, tiny_dataset, tmp_path):
    shutil.copytree(tiny_dataset, tmp_path / "data")
    before = contents(tmp_path / "data")
    with pytest.raises(InputError, match="would overwrite the image"):
        evaluate_tiny(trained, tiny_files, tmp_path / "data", tmp_path / "data")
    assert contents(tmp_path / "data") == before


def test_a_file_where_a_folder_has_to_be(trained, tiny_files, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").write_text("")
    with pytest.raises(InputError, match=r"--save_path .*deep"):
        test.main(["--image", str(pictures), *image_flags(trained, tiny_files, tmp_path / "out")])


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


def test_training_needs_both_labels(tiny_files, tiny_dataset, tmp_path):
    index = json.loads((tiny_dataset / "meta.json").read_text())
    index["test"] = {name: [entry for entry in part if not entry["anomaly"]] for name, part in index["test"].items()}
    index["root"] = str(tiny_dataset)
    (tmp_path / "meta.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="one kind only"):
        train_tiny(tiny_files, tmp_path / "meta.json", tmp_path / "out")


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


@pytest.mark.parametrize(
    "flags", [["--seed", str(2**64)], ["--seed", "-1"], ["--workers", "-1"], ["--batch_size", "0"]]
)
def test_numbers_out_of_range(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        test.main(["--image", "a.png", *flags])
    assert stopped.value.code == 2 and flags[0] in capsys.readouterr().err


def test_an_empty_image_path_is_not_the_current_folder():
    with pytest.raises(InputError, match="empty path"):
        test.main(["--image", ""])
