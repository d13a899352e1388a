"""test.py on single images, end to end on a tiny CLIP."""

import csv

import numpy as np
import pytest
from PIL import Image
from runs import (
    contents,
    image_flags,
)

import test
from AnomalyCLIP_lib import InputError


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


def test_pictures_are_not_overwritten_by_their_heat_maps(trained, tiny_files, pictures):
    before = contents(pictures)
    with pytest.raises(InputError, match=r"would overwrite the image .*a\.png"):
        test.main(["--image", str(pictures), *image_flags(trained, tiny_files, pictures)])
    assert contents(pictures) == before


def test_a_file_where_a_folder_has_to_be(trained, tiny_files, pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").write_text("")
    with pytest.raises(InputError, match=r"--save_path .*deep"):
        test.main(["--image", str(pictures), *image_flags(trained, tiny_files, tmp_path / "out")])


def test_an_empty_image_path_is_not_the_current_folder():
    with pytest.raises(InputError, match="empty path"):
        test.main(["--image", ""])
