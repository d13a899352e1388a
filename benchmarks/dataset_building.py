"""How long it takes to list a dataset and to audit it, on folders made up for the purpose.

    python benchmarks/dataset_building.py

Building: 20,000 images and their masks in the layout of MVTec AD, under 5 s. Audit: photographs of
about a megapixel, with one process and with all cores; it reads and decodes each file once.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1]))  # so that it runs as a script from any folder

from generic_dataset_json import check, mvtec
from utils import run

CLASSES = 15


def main(argv: Sequence[str] | None = None) -> int:
    """Run both measurements and print a line for each."""
    parser = argparse.ArgumentParser(description="Measure the builders and the audit.")
    parser.add_argument("--images", type=int, default=20_000, help="images in the dataset to be listed")
    parser.add_argument("--audited", type=int, default=400, help="images in the dataset to be audited")
    parser.add_argument("--side", type=int, default=1024, help="their side in pixels")
    parser.add_argument("--folder", type=Path, help="where the datasets are made (default: the system's)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        listed = Path(name) / "listed"
        masks = make_dataset(listed, arguments.images, b"not opened", b"not opened")
        seconds = timed(lambda: mvtec.main(["--root", str(listed)]))
        print(f"building: {arguments.images} images, {masks} masks: {seconds:.2f} s")

        audited = Path(name) / "audited"
        masks = make_dataset(audited, arguments.audited, photograph(arguments.side), mask(arguments.side))
        timed(lambda: mvtec.main(["--root", str(audited)]))
        size = sum(path.stat().st_size for path in audited.rglob("*.*")) / 2**20
        for workers in sorted({1, check.available_cores()}):
            flags = ["--root", str(audited), "--workers", str(workers)]
            seconds = timed(lambda flags=flags: check.main(flags))
            print(
                f"audit: {arguments.audited} images of {arguments.side} x {arguments.side}, {masks} masks, "
                f"{size:.0f} MB, {workers} processes: {seconds:.2f} s, {arguments.audited / seconds:.0f} images/s"
            )
    return 0


def make_dataset(root: Path, images: int, image: bytes, mask_data: bytes) -> int:
    """Write a folder laid out like MVTec AD, one third of it anomalous; returns the number of masks."""
    masks = 0
    for number in range(images):
        class_name = f"class_{number % CLASSES:02d}"
        folder = ("train/good", "test/good", "test/defect")[number // CLASSES % 3]
        write(root / class_name / folder / f"{number:05d}.jpg", image)
        if folder == "test/defect":
            write(root / class_name / "ground_truth/defect" / f"{number:05d}_mask.png", mask_data)
            masks += 1
    return masks


def write(path: Path, data: bytes) -> None:
    """Write a file, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def photograph(side: int) -> bytes:
    """A JPEG with some structure at every scale."""
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC), "JPEG")


def mask(side: int) -> bytes:
    """A PNG with one square."""
    pixels = np.zeros((side, side), np.uint8)
    pixels[side // 4 : side // 2, side // 4 : side // 2] = 255
    return encoded(Image.fromarray(pixels), "PNG")


def encoded(image: Image.Image, file_format: str) -> bytes:
    """An image's bytes in a format."""
    buffer = io.BytesIO()
    image.save(buffer, format=file_format)
    return buffer.getvalue()


def timed(action: Callable[[], object]) -> float:
    """Seconds that it takes, its output thrown away."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        action()
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(run(main))
