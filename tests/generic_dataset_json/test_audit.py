"""The audit of a dataset: what it finds, and its exit codes."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from trees import encoded, mask, mvtec_tree, picture, write_tree

from AnomalyCLIP_lib.errors import InputError
from generic_dataset_json import kvasir, mvtec
from generic_dataset_json.check import main


def _audit(root: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["--root", str(root), "--workers", "1", *flags])
    return code, capsys.readouterr().out


def _section(printed: str, title: str) -> list[str]:
    """The lines under a kind of finding."""
    below = printed.split(f"{title}: ", 1)[1].split("\n\n")[0]
    return [line.strip() for line in below.splitlines()[1:]]


def test_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mvtec_tree(tmp_path)
    mvtec.main(["--root", str(root)])
    code, printed = _audit(root, capsys, "--dataset", "mvtec")
    assert code == 0
    assert "clean: nothing found in 6 images" in printed
    assert "1 normal, 4 anomalous" in printed
    assert "the paper, MVTec AD: 467 normal, 1258 anomalous" in printed


def test_every_kind_of_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = mvtec_tree(tmp_path)
    mvtec.main(["--root", str(root)])
    masks = root / "bottle/ground_truth/broken_large"
    (masks / "000_mask.png").write_bytes(mask("png", 0))
    (masks / "001_mask.png").write_bytes(encoded(Image.new("L", (6, 8), 255), "png"))
    (masks / "002_mask.png").write_bytes(mask("png", 255, 20, 10))
    (root / "bottle/ground_truth/contamination/000_mask.png").write_bytes(b"no image")
    (root / "bottle/train/good/000.png").write_bytes(picture("png", 1)[:-30])
    with Image.open(root / "bottle/test/good/000.png") as image:  # the same picture in another format
        pixels = np.asarray(image)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="bmp")
    (root / "bottle/test/contamination/000.png").write_bytes(buffer.getvalue())
    code, printed = _audit(root, capsys)
    assert code == 1
    assert [Path(line).name for line in _section(printed, "empty masks of anomalous images")] == ["000_mask.png"]
    assert _section(printed, "masks over 90% of the image") == [f"{masks / '001_mask.png'}: 100.0%"]
    assert _section(printed, "masks of another size than their image") == [
        f"{masks / '002_mask.png'} is 10 x 20, its image 6 x 8"
    ]
    unreadable = _section(printed, "files that cannot be read")
    assert len(unreadable) == 2
    assert str(root / "bottle/train/good/000.png") in unreadable[0]
    assert str(root / "bottle/ground_truth/contamination/000_mask.png") in unreadable[1]
    assert _section(printed, "the same picture both normal and anomalous") == [
        "bottle/test/good/000.png (normal) = bottle/test/contamination/000.png (anomalous)"
    ]
    assert "6 findings in 6 images" in printed


def test_jpeg_masks_are_cut_above_their_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = encoded(Image.new("L", (6, 8), 20), "jpg")
    root = write_tree(tmp_path, "images/1.jpg", contents={"masks/1.jpg": noise})
    kvasir.main(["--root", str(root)])
    assert "empty masks of anomalous images: 1" in _audit(root, capsys)[1]
    assert "masks over 90% of the image: 1" in _audit(root, capsys, "--mask_threshold", "0")[1]


def test_each_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = mvtec_tree(tmp_path)
    mvtec.main(["--root", str(root)])
    read: list[Path] = []
    real_read = Path.read_bytes

    def counting(path: Path) -> bytes:
        read.append(path)
        return real_read(path)

    monkeypatch.setattr(Path, "read_bytes", counting)
    main(["--root", str(root), "--workers", "1"])
    assert sorted(read) == sorted(set(read))
    assert len(read) == 6 + 4 + 1  # images, masks and meta.json


def test_several_processes_on_the_command_line(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path)
    mvtec.main(["--root", str(root)])
    (root / "bottle/test/good/000.png").unlink()
    command = [sys.executable, "-m", "generic_dataset_json.check", "--root", str(root), "--workers", "2"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "bottle/test/good/000.png does not exist" in done.stdout
    assert "100%" in done.stderr  # the bar


def test_it_could_not_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"meta\.json does not exist"):
        main(["--root", str(tmp_path)])
