"""Take the screenshots of the README, with the demo model: the report of its test, and the web page.

    bash test.sh
    python -m demo.screenshots

Needs the extra dev (pip install -e '.[dev]') and a Chromium of the system.
"""

import argparse
import importlib.util
import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from AnomalyCLIP_lib.backbone import CHECKPOINTS, DEMO_BACKBONE
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write, output_folder
from demo.browser import WINDOW, start_browser
from utils import run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page  # pyright: ignore[reportMissingImports]

LEVELS = 48  # of each colour: hardly to be told from 256, and half of the bytes
IMAGES = CHECKPOINTS.parent / "docs" / "images"
REPORT = CHECKPOINTS.parent / "results" / "demo" / "report.html"
REPORT_WINDOW = (1280, 1460)
EXCERPT = "#metrics, .charts + .charts { display: none } nav { position: static !important }"
"""The tables and all curves but the first class's are left out of the picture, so that the gallery is seen too."""
MOST_SECONDS = 120
SETTLING_MILLISECONDS = 1000  # what fades in has done so
SAMPLES = ("washer_damaged", "woven_damaged", "marble_damaged", "capsule_intact")


def report_page(browser: "Browser", report: Path, path: Path) -> None:
    """The top of a report.html, written to `path` as PNG."""
    page = browser.new_page(viewport={"width": REPORT_WINDOW[0], "height": REPORT_WINDOW[1]})
    page.goto(report.resolve().as_uri())
    page.add_style_tag(content=EXCERPT)
    page.wait_for_function("() => [...document.images].slice(0, 24).every(image => image.complete)")
    save_screenshot(page, path)
    page.close()


def web_page(browser: "Browser", path: Path) -> None:
    """The page of app.py with the sample pictures scored, written to `path` as PNG."""
    page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1] + 60})
    page.set_default_timeout(MOST_SECONDS * 1000)
    with served() as address:
        page.goto(address)
        page.wait_for_selector("#samples button")
        page.set_input_files("#files input[type=file]", [IMAGES / f"{name}.png" for name in SAMPLES])
        page.wait_for_selector("#picture img")
        page.wait_for_selector("#choice img")
        page.wait_for_function("() => [...document.images].every(image => image.complete)")
        page.wait_for_timeout(SETTLING_MILLISECONDS)
        save_screenshot(page, path)
    page.close()


@contextmanager
def served() -> Iterator[str]:
    """Run app.py with the demo model while the block runs; gives its address.

    Raises:
        InputError: it does not start; the sentence is its own.
    """
    process = subprocess.Popen(
        [sys.executable, "app.py", "--backbone", DEMO_BACKBONE],
        cwd=CHECKPOINTS.parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = ""
        for line in process.stderr:
            if found := re.search(r"the web page is at (\S+)", line):
                yield found[1]
                return
        raise InputError(f"app.py did not start: {line.strip()}")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=MOST_SECONDS)


def save_screenshot(page: "Page", path: Path) -> None:
    """What is seen of a page as PNG, written atomically."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    few = picture.point([round(round(value / 255 * (LEVELS - 1)) * 255 / (LEVELS - 1)) for value in range(256)] * 3)
    with atomic_write(path) as temporary:
        few.save(temporary, format="PNG", optimize=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=IMAGES, help="default: %(default)s")
    parser.add_argument("--report", type=Path, default=REPORT, help="default: the one that test.sh writes")
    arguments = parser.parse_args(argv)
    if not arguments.report.is_file():
        raise InputError(f"{arguments.report} does not exist; let bash test.sh write it.")
    folder = output_folder(arguments.out, "--out")
    if importlib.util.find_spec("playwright") is None:
        raise InputError("Screenshots need playwright; install it by: pip install playwright")
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    with sync_playwright() as playwright:
        browser = start_browser(playwright)
        report_page(browser, arguments.report, folder / "report.png")
        web_page(browser, folder / "web_page.png")
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
