"""Whole runs of the commands on a tiny CLIP and a tiny dataset."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import REPOSITORY
from PIL import Image

import test
import train


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


TRAINING_FILES = ["epoch_1.pth", "epoch_2.pth", "log.txt", "losses.csv", "losses.png", "maps.png"]


def training_files(folder):
    """What a training left in its folder, but for TensorBoard's files, which need a package of their own."""
    return sorted(path.name for path in folder.glob("[!.]*") if path.name != "tensorboard")


def evaluate_tiny(trained, tiny_files, dataset, folder, *more):
    return test.main(
        [
            *("--data_path", str(dataset), "--save_path", str(folder), "--dataset", "visa"),
            *("--checkpoint_path", str(trained / "epoch_2.pth"), "--pretrained", str(tiny_files / "tiny.safetensors")),
            *("--device", "cpu", "--workers", "0", *more),
        ]
    )


def small_mask(dataset, image_path):
    name, _, specie, file = Path(image_path).parts
    if specie == "good":
        return np.zeros((42, 42), np.uint8)
    mask = Image.open(dataset / name / "ground_truth" / specie / file.replace(".png", "_mask.png"))
    return (np.asarray(mask.resize((42, 42), Image.Resampling.BILINEAR)) > 127).astype(np.uint8)


def image_flags(trained, tiny_files, folder):
    return [
        *("--checkpoint_path", str(trained / "epoch_2.pth"), "--pretrained", str(tiny_files / "tiny.safetensors")),
        *("--device", "cpu", "--save_path", str(folder)),
    ]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
