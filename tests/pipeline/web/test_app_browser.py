"""The web page in a real browser: `python app.py` is started, used by several people, and ended."""

import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY
from PIL import Image

pytest_plugins = ("browser",)

ASSETS = REPOSITORY / "docs" / "images"
DAMAGED, INTACT = ASSETS / "washer_damaged.png", ASSETS / "capsule_intact.png"
SECONDS = 60
THRESHOLDS = ("--threshold", "0.5", "--pixel_threshold", "0.5")  # whatever the prompts store
FILES = "#files input[type=file]"
PICTURE = "#picture img"


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory):
    """Address of the page, served by a process of its own; that it ends well on Ctrl-C is checked at the end."""
    pytest.importorskip("gradio", reason="Gradio is not installed (pip install -e '.[app]')")
    temporary = tmp_path_factory.mktemp("temporary")
    process = subprocess.Popen(
        [sys.executable, "app.py", "--backbone", "demo", "--device", "cpu", *THRESHOLDS],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
    )
    try:
        told = read_until(process.stderr, rb"the web page is at (\S+) ")
        assert "small embedded demo CLIP" in told and "thresholds: image score 0.5 (--threshold)" in told
        yield re.search(r"the web page is at (\S+) ", told)[1]
        assert list(temporary.iterdir())  # uploads are kept nowhere else
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert rest.decode() == "the web page has ended\n"
    assert not list(temporary.glob("anomalyclip_page_*"))


def read_until(stream, pattern):
    """What a process writes, up to the end of the line that holds the pattern."""
    os.set_blocking(stream.fileno(), False)
    text, end = b"", time.monotonic() + SECONDS
    while not re.search(pattern + rb".*\n", text):
        assert time.monotonic() < end, text.decode()
        if select.select([stream], [], [], 1)[0]:
            part = stream.read()
            assert part, f"the process has ended: {text.decode()}"
            text += part
    os.set_blocking(stream.fileno(), True)
    return text.decode()


@pytest.fixture
def visit(served):
    """A function that opens the page in a browser page."""

    def go(page):
        page.set_default_timeout(SECONDS * 1000)
        page.goto(served)
        page.wait_for_selector(FILES, state="attached")
        page.wait_for_selector("#samples button")
        return page

    return go


def wait_for_verdict(page, name):
    page.wait_for_function(
        "name => document.querySelector('#verdict h2')?.innerText.includes(name)", arg=name, timeout=SECONDS * 1000
    )
    return page.inner_text(".verdict")


def wait_for_another(page, source):
    page.wait_for_function("before => document.querySelector('#picture img')?.src !== before", arg=source)
    return page.get_attribute(PICTURE, "src")


def test_upload_sliders_downloads(browser_page, visit, screenshot):
    page = visit(browser_page)
    assert "not the paper's model" in page.inner_text(".intro")
    screenshot(page, "web_page_empty")
    page.set_input_files(FILES, DAMAGED)
    verdict = wait_for_verdict(page, DAMAGED.name)
    assert "anomalous" in verdict and "in 1 region" in verdict
    first = page.get_attribute(PICTURE, "src")
    screenshot(page, "web_page_one")

    page.focus("#pixel input[type=range]")  # sliders are moved by the keyboard as well
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.querySelector('#verdict').innerText.includes('pixel threshold 0.4 ')")
    lower = wait_for_another(page, first)
    page.fill("#image input[type=number]", "0.995")
    page.wait_for_function("() => document.querySelector('#verdict .decision').innerText === 'normal'")
    page.uncheck("#outlined input")
    plain = wait_for_another(page, lower)
    with page.expect_download() as saved:
        page.click("#save_table")
    assert saved.value.suggested_filename == "predictions.csv"
    table = Path(saved.value.path()).read_text()
    assert table.startswith("image_path,") and "washer_damaged.png,,,0.99" in table and "normal,0.995" in table
    with page.expect_download() as saved:
        page.click("#save_picture")
    content = Path(saved.value.path()).read_bytes()
    assert saved.value.suggested_filename == "washer_damaged_heat_map.png"
    assert Image.open(io.BytesIO(content)).size == (256, 256)
    with page.expect_download() as saved:
        page.click("#save_map")
    assert saved.value.suggested_filename == "washer_damaged.npy"

    page.check("#outlined input")
    wait_for_another(page, plain)
    page.click("#reset")
    page.wait_for_function("before => document.querySelector('#picture img').src === before", arg=first)
    assert page.inner_text(".verdict") == verdict
    assert page.console_errors == [] and page.outside_requests == []


def test_corrupt_files_are_told_and_the_page_lives_on(browser_page, visit, screenshot, tmp_path):
    page = visit(browser_page)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nonsense")
    page.set_input_files(FILES, bad)
    page.wait_for_selector(".problems")
    assert page.inner_text("#trouble").startswith("bad.png is not an image")
    screenshot(page, "web_page_bad")
    assert page.locator(PICTURE).count() == 0
    page.click("#files [aria-label='Clear']")
    page.wait_for_selector(".empty")
    page.set_input_files(FILES, [DAMAGED, bad, INTACT])
    wait_for_verdict(page, DAMAGED.name)
    assert page.inner_text("#trouble").startswith("bad.png is not an image")
    assert "1 anomalous, 1 normal" in page.inner_text("#overview")
    page.click("#choice button >> nth=1")
    assert "normal" in wait_for_verdict(page, INTACT.name)
    screenshot(page, "web_page_several", full_page=True)
    assert page.console_errors == [] and page.outside_requests == []


def test_two_people_at_once_each_get_their_own(open_page, visit, screenshot):
    one, other = visit(open_page()), visit(open_page(size=(390, 844), color_scheme="dark"))
    one.set_input_files(FILES, [DAMAGED, ASSETS / "marble_damaged.png"])
    other.click("#samples button >> nth=3")
    assert "normal" in wait_for_verdict(other, INTACT.name)
    assert "anomalous" in wait_for_verdict(one, DAMAGED.name)
    source, untouched = one.get_attribute(PICTURE, "src"), other.get_attribute(PICTURE, "src")
    one.fill("#opacity input[type=number]", "0.1")
    wait_for_another(one, source)
    other.reload()
    other.wait_for_selector(".empty")  # a page opened anew starts anew
    assert DAMAGED.name in one.inner_text("#verdict") and untouched not in (source, one.get_attribute(PICTURE, "src"))
    other.click("#samples button >> nth=1")
    wait_for_verdict(other, "woven_damaged.png")
    width = other.evaluate("document.documentElement.scrollWidth")
    assert width <= 390  # nothing sticks out on a phone
    screenshot(other, "web_page_phone", full_page=True)
    for page in (one, other):
        assert page.console_errors == [] and page.outside_requests == []
