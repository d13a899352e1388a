"""What `pip install .` gives: the library with its demo model, usable from any folder, and nothing else."""

import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import pytest
from conftest import REPOSITORY
from PIL import Image

SOURCES = ("AnomalyCLIP_lib", "checkpoints/demo", "LICENSE", "README.md", "pyproject.toml", "requirements.txt")
SCORE = """
import AnomalyCLIP_lib
prediction = AnomalyCLIP_lib.load("demo", device="cpu").predict("part.png")
print(AnomalyCLIP_lib.__file__, prediction.anomaly_score.item(), sep="\\n")
"""
STRANGERS = (
    "dataset",
    "demo",
    "generic_dataset_json",
    "metrics",
    "pipeline",
    "prompt_ensemble",
    "test",
    "train",
    "utils",
)


def run(*command: object, cwd: Path) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, since setuptools writes beside its sources."""
    pytest.importorskip("setuptools", minversion="77", reason="no setuptools to build with (pip install -e '.[test]')")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        path, copy = REPOSITORY / name, source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, copy)
    flags = ("--no-deps", "--no-index", "--no-build-isolation", "--quiet", "--wheel-dir", out)
    run(sys.executable, "-m", "pip", "wheel", *flags, source, cwd=source)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The interpreter of a fresh environment that holds the wheel and sees the packages it depends on."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    python = next(environment.glob("[bS][ic]*/python*"))
    target = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=environment).strip())
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        target,
        wheel,
        cwd=target,
    )
    # a folder named in a .pth file has no .pth files of its own read: an editable install of the checkout stays unseen
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (target / "dependencies.pth").write_text("\n".join(sorted(dependencies)))
    return python


def test_the_installed_library_scores_an_image_from_any_folder(installed, tmp_path):
    import AnomalyCLIP_lib

    Image.new("RGB", (64, 48), (120, 90, 60)).save(tmp_path / "part.png")
    place, score = run(installed, "-c", SCORE, cwd=tmp_path).split()
    assert not Path(place).is_relative_to(REPOSITORY)
    expected = AnomalyCLIP_lib.load("demo", device="cpu").predict(tmp_path / "part.png").anomaly_score.item()
    assert float(score) == pytest.approx(expected, abs=1e-6)


def test_nothing_but_the_library_is_installed(installed, tmp_path):
    code = f"from importlib.util import find_spec\nprint([n for n in {STRANGERS} if n != 'test' and find_spec(n)])"
    assert run(installed, "-c", code, cwd=tmp_path).strip() == "[]"


def test_the_metadata_names_what_requirements_txt_lists(wheel):
    (distribution,) = metadata.distributions(path=[str(wheel)])
    required = [line for line in distribution.requires or [] if "extra ==" not in line]
    listed = (REPOSITORY / "requirements.txt").read_text().split()
    names = {line.split(">=")[0].lower() for line in listed}
    assert {line.split("<")[0].split(">")[0].lower() for line in required} == names
    assert set(distribution.metadata.get_all("Provides-Extra") or ()) == {"app", "dev", "test"}
