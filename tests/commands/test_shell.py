"""test.sh and train.sh: what they run, and what they say where something is missing."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.fixture
def clone(tmp_path):
    """The repository as links, with an environment that counts as installed: the one that runs the tests."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for path in REPOSITORY.iterdir():
        if path.name not in (".venv", ".git", "results", "data"):
            (folder / path.name).symlink_to(path)
    for name in ("environment.sh", "test.sh", "train.sh"):
        (folder / name).unlink()
        shutil.copy(REPOSITORY / name, folder / name)
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    command = "cat requirements.txt pyproject.toml | cksum"
    checksum = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True).stdout
    (folder / ".venv" / ".installed").write_text(f". {checksum}")
    return folder


def run_shell(clone, script, *arguments, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "DATA_ROOT"}
    environment |= {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **{name: str(value) for name, value in variables.items()},
    }
    return subprocess.run(
        ["bash", str(clone / script), *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("script", ["test.sh", "train.sh"])
def test_names_need_a_data_root(clone, script):
    result = run_shell(clone, script, "mvtec")
    assert result.returncode == 2 and "DATA_ROOT=/data bash" in result.stderr and "mvtec" in result.stderr


@pytest.mark.parametrize("script", ["test.sh", "train.sh"])
def test_a_missing_dataset_is_told(clone, script, tmp_path):
    result = run_shell(clone, script, "visa", DATA_ROOT=tmp_path)
    assert result.returncode == 2 and "holds no VisA" in result.stderr and "github.com" in result.stderr
    assert "Traceback" not in result.stderr


def test_real_datasets_are_built_trained_on_and_tested(clone, tiny_files, tiny_dataset, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data / "mvtec")
    (data / "mvtec" / "meta.json").unlink()
    tiny = f"--backbone {tiny_files / 'tiny.json'} --device cpu --workers 0"
    weights = tiny_files / "tiny.safetensors"
    (clone / "checkpoints").unlink()
    result = run_shell(
        clone, "train.sh", "mvtec", DATA_ROOT=data, PRETRAINED=weights, EXTRA_FLAGS=f"{tiny} --epoch 1 --image_size 28"
    )
    assert result.returncode == 0, result.stderr
    prompts = clone / "checkpoints" / "trained_on_mvtec" / "epoch_1.pth"
    assert prompts.is_file() and (data / "mvtec" / "meta.json").is_file()
    result = run_shell(
        clone,
        "test.sh",
        DATA_ROOT=data,
        PRETRAINED=weights,
        CHECKPOINT=prompts,
        SAVE_PATH=tmp_path / "out",
        EXTRA_FLAGS=tiny,
    )
    assert result.returncode == 0, result.stderr
    assert "the paper on MVTec AD" in result.stdout and "not a zero-shot result" in result.stdout
    assert (tmp_path / "out" / "mvtec" / "metrics.json").is_file()
