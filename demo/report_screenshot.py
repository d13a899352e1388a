"""Take the README's screenshot of a report.

    python test.py --backbone demo --data_path data/demo/unseen --dataset demo
    python -m demo.report_screenshot results/report.html

Needs playwright (pip install playwright) and a Chromium of the system.
"""

import argparse
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from AnomalyCLIP_lib.backbone import REPOSITORY
from AnomalyCLIP_lib.errors import InputError
from AnomalyCLIP_lib.files import atomic_write, output_folder
from command_line import run
from demo.browser import start_browser

SIZE = (1280, 1460)
LEVELS = 48  # of each colour: hardly to be told from 256, and a third of the bytes
EXCERPT = "#metrics, .charts + .charts { display: none } nav { position: static !important }"
"""The tables and all curves but the first class's are left out, so that the gallery is seen too."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="a report.html")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "assets", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    if not arguments.report.is_file():
        raise InputError(f"{arguments.report} does not exist; let test.py write it.")
    folder = output_folder(arguments.out, "--out")
    if importlib.util.find_spec("playwright") is None:
        raise InputError("Screenshots need playwright; install it by: pip install playwright")
    from playwright.sync_api import sync_playwright  # pyright: ignore[reportMissingImports]

    with sync_playwright() as playwright:
        browser = start_browser(playwright)
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
        page.goto(arguments.report.resolve().as_uri())
        page.add_style_tag(content=EXCERPT)
        page.wait_for_function("() => [...document.images].slice(0, 24).every(image => image.complete)")
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        browser.close()
    few = picture.point([round(round(value / 255 * (LEVELS - 1)) * 255 / (LEVELS - 1)) for value in range(256)] * 3)
    with atomic_write(folder / "report.png") as temporary:
        few.save(temporary, format="PNG", optimize=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
