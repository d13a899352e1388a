"""What many tests need: the reference weights, a tiny CLIP and a tiny dataset."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent / "reference"))

import make_weights

from AnomalyCLIP_lib.backbone import find_backbone
from AnomalyCLIP_lib.weights import random_clip
from generic_dataset_json import custom

REPOSITORY = Path(__file__).resolve().parent.parent
REFERENCE = Path(__file__).parent / "reference" / "reference.npz"
TINY_CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 28, "layers": 4, "width": 64, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
    "anomalyclip": {"image_size": 42, "features_list": [2, 4], "n_ctx": 3, "depth": 3, "t_n_ctx": 2},
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models run faster on one thread, and sums come out in the same order everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def reference():
    """The reference figures, by name."""
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def reference_files(tmp_path_factory):
    """Folder with config.json, clip.pt and prompts.pth of the reference weights, in the released format."""
    folder = tmp_path_factory.mktemp("reference")
    (folder / "config.json").write_text(json.dumps(make_weights.CONFIG))
    clip = make_weights.clip_state_dict()
    torch.save(clip, folder / "clip.pt")
    torch.save({"prompt_learner": make_weights.full_prompt_state_dict(clip)}, folder / "prompts.pth")
    return folder


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory):
    """Folder with the config and weights of a tiny random CLIP: tiny.json and tiny.safetensors."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.json").write_text(json.dumps(TINY_CONFIG))
    torch.manual_seed(0)
    clip = random_clip(find_backbone(str(folder / "tiny.json")))
    save_file(clip.state_dict(), folder / "tiny.safetensors")
    return folder


@pytest.fixture
def tiny_flags(tiny_files):
    """Flags that make train.py and test.py run the tiny CLIP in this process."""
    weights = str(tiny_files / "tiny.safetensors")
    return [
        *("--backbone", str(tiny_files / "tiny.json"), "--pretrained", weights),
        *("--device", "cpu", "--workers", "0"),
    ]


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """An MVTec-like dataset: two classes, three normal and three anomalous images each, with meta.json."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    for name in ("plate", "cloth"):
        for number in range(3):
            picture = rng.integers(90, 130, (40, 52, 3), dtype=np.uint8)
            save_picture(picture, root / name / "test" / "good" / f"{number:03d}.png")
            mask = np.zeros((40, 52), np.uint8)
            mask[10 : 20 + number, 12:30] = 255
            picture[mask > 0] = (250, 20, 20)
            save_picture(picture, root / name / "test" / "spot" / f"{number:03d}.png")
            save_picture(mask, root / name / "ground_truth" / "spot" / f"{number:03d}_mask.png")
    assert custom.main(["--root", str(root)]) == 0
    return root


def save_picture(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.fixture(scope="module")
def trained(tiny_files, tiny_dataset, tmp_path_factory):
    """Two epochs on the tiny dataset; the folder of the checkpoints."""
    folder = tmp_path_factory.mktemp("trained")
    from runs import train_tiny

    assert train_tiny(tiny_files, tiny_dataset, folder) == 0
    return folder


@pytest.fixture(scope="module")
def tested(trained, tiny_files, tiny_dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tested")
    from runs import evaluate_tiny

    assert evaluate_tiny(trained, tiny_files, tiny_dataset, folder, "--save_maps") == 0
    return folder


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("b.jpg", "a.png", "deep/er/c.bmp", "x.png", "x.bmp"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), len(name) * 9, np.uint8)).save(path)
    return folder
