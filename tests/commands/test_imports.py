"""Which way imports go, and what a command imports before it needs it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.smoke


MAY_IMPORT = {
    "AnomalyCLIP_lib": set(),
    "metrics": set(),
    "prompt_ensemble": {"AnomalyCLIP_lib"},
    "utils": {"AnomalyCLIP_lib"},
    "generic_dataset_json": {"AnomalyCLIP_lib", "utils"},
    "dataset": {"AnomalyCLIP_lib", "utils", "generic_dataset_json"},
    "pipeline": {"AnomalyCLIP_lib", "metrics", "utils", "generic_dataset_json", "dataset"},
    "train": {"AnomalyCLIP_lib", "utils", "pipeline"},
    "test": {"AnomalyCLIP_lib", "utils", "pipeline"},
    "app": {"AnomalyCLIP_lib", "utils", "pipeline"},
}
"""Per package or module of the repository: which others it may import. demo, benchmarks and tests are free."""
FREE = {"demo", "benchmarks", "tests"}


def modules(part: str) -> list[Path]:
    folder = REPOSITORY / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(str(node.module).split(".")[0])
    return found


def test_every_part_of_the_repository_has_its_place():
    parts = {path.stem for path in REPOSITORY.glob("*.py")}
    parts |= {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    assert parts - FREE == set(MAY_IMPORT)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_go_one_way(part):
    known = set(MAY_IMPORT) | FREE
    for path in modules(part):
        assert imported(path) & known - {part} <= MAY_IMPORT[part], path


def loaded_by(tmp_path: Path, *command: str) -> set[str]:
    """The top-level modules that a command has imported when it ends."""
    code = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
        "sys.stderr.write('\\nLOADED ' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    script = str(REPOSITORY / command[0])
    result = subprocess.run(
        [sys.executable, "-c", code, script, *command[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return set(result.stderr.rpartition("LOADED ")[2].split())


HEAVY = {"torch", "torchvision", "open_clip", "sklearn", "skimage", "matplotlib", "scipy", "pandas", "gradio", "cv2"}


@pytest.mark.parametrize("script", ["test.py", "train.py", "app.py"])
@pytest.mark.parametrize("flags", [["--help"], ["--no_such_flag"], ["--device"]], ids=["help", "unknown", "no value"])
def test_flags_are_read_before_anything_heavy_is_imported(script, flags, tmp_path):
    loaded = loaded_by(tmp_path, script, *flags)
    assert "argparse" in loaded and not loaded & HEAVY


@pytest.mark.parametrize(
    "command",
    [
        ["test.py", "--image", "nothing.png"],
        ["test.py", "--data_path", "nothing"],
        ["test.py", "--image", "nothing.png", "--data_path", "nothing"],
        ["train.py", "--train_data_path", "nothing"],
    ],
    ids=" ".join,
)
def test_a_missing_file_is_reported_before_anything_heavy_is_imported(command, tmp_path):
    loaded = loaded_by(tmp_path, *command)
    assert "argparse" in loaded and not loaded & HEAVY


def test_a_single_image_imports_only_what_it_uses(tmp_path):
    image = str(REPOSITORY / "docs" / "images" / "washer_damaged.png")
    loaded = loaded_by(
        tmp_path, "test.py", "--image", image, "--backbone", "demo", "--save_path", str(tmp_path / "out")
    )
    assert "torch" in loaded and (tmp_path / "out" / "predictions.csv").is_file()
    assert not loaded & {"sklearn", "skimage", "matplotlib", "pandas", "gradio", "jinja2"}
