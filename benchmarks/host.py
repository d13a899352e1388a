"""What the host does for an image while the encoder costs nothing: stored maps in its place, all defaults on."""

import contextlib
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import test
from AnomalyCLIP_lib.detector import Detector, Prediction, Provenance
from AnomalyCLIP_lib.preprocessing import Preprocess
from benchmarks.pixel_metrics import draw
from benchmarks.table import Row
from benchmarks.timing import seconds
from generic_dataset_json import custom

SIZES = (
    ("1024 x 1024 PNG", (1024, 1024), "png"),
    ("1500 x 1000 JPEG", (1500, 1000), "jpg"),
    ("12 MP JPEG", (4000, 3000), "jpg"),
)
STORED = 16  # different maps
SIDE = 518


class StoredMaps(Detector):
    """Scores whatever it is given with maps that were made before."""

    name, image_size, layers = "stored maps", SIDE, 1

    def __init__(self) -> None:
        self.preprocess = Preprocess(SIDE)
        self.provenance = Provenance("", None, None)
        self.maps = torch.stack([torch.from_numpy(draw(index, SIDE)[1]) for index in range(STORED)])
        self.scored = 0

    @property
    def needs_class_names(self) -> bool:
        return False

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def score(self, images: Tensor, class_names: Sequence[str] | None = None, *, maps: bool = True) -> Prediction:
        rows = (torch.arange(len(images)) + self.scored) % STORED
        self.scored += len(images)
        return Prediction((rows + 0.5) / STORED, self.maps[rows], self.layers)

    def describe(self) -> str:
        return self.name

    def settings_dict(self) -> dict[str, str]:
        return {"backbone": self.name}


def host(images: int, workers: int) -> list[Row]:
    """A row for each kind of run and of image: what a further image costs, from runs on `images` and three times that.

    The targets are those of a dataset run at 100 images/s on a GPU with few cores beside it.
    """
    rows = []
    for what, size, ending in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for part, count in (("few", images), ("many", 3 * images)):
                _draw(root / part, count, size, ending)
            for kind in ("dataset", "--image"):
                _measure(root / "few", root / "warm", kind, workers)
                few, many = (_measure(root / part, root / f"{kind}_{part}", kind, workers) for part in ("few", "many"))
                main, cpu, wall = ((b - a) / (2 * images) for a, b in zip(few, many, strict=True))
                spent = f"main thread {seconds(main)}, CPU {seconds(cpu)}, wall {seconds(wall)}"
                rows.append(Row(f"host, {kind}, {what}, an image", "", spent))
    return rows


def _measure(dataset: Path, output: Path, kind: str, workers: int) -> tuple[float, float, float]:
    """CPU seconds of the main thread and of all threads, and wall seconds."""
    source = ["--data_path", str(dataset)] if kind == "dataset" else ["--image", str(dataset / "texture" / "test")]
    flags = [*source, "--save_path", str(output), "--workers", str(workers), "--device", "cpu"]
    detector = StoredMaps()
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with mock.patch("AnomalyCLIP_lib.loading.load", lambda *_, **__: detector), silent[0], silent[1]:
        before = time.thread_time(), time.process_time(), time.perf_counter()
        test.main(flags)
        after = time.thread_time(), time.process_time(), time.perf_counter()
    main, cpu, wall = (end - start for start, end in zip(before, after, strict=True))
    return main, cpu, wall


def _draw(root: Path, count: int, size: tuple[int, int], ending: str) -> None:
    """Photograph-like images of one class, every second one with a mask."""
    width, height = size
    for index in range(count):
        rng = np.random.default_rng(index % 8)
        coarse = Image.fromarray(rng.integers(60, 200, (height // 40, width // 40, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
        image = Image.fromarray(
            (pixels + rng.integers(-6, 7, (height, width, 1), dtype=np.int16)).clip(0, 255).astype(np.uint8)
        )
        specie = "spot" if index % 2 else "good"
        path = root / "texture/test" / specie / f"{index:04d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=92)
        if index % 2:
            mask = Image.new("L", size)
            mask.paste(255, (width // 4, height // 4, width // 2, height // 2))
            path = root / "texture/ground_truth/spot" / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            mask.save(path)
    with contextlib.redirect_stdout(io.StringIO()):
        custom.main(["--root", str(root)])
