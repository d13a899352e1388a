"""report.html in a real browser, from a file: nothing fails, nothing is fetched, the filters and the viewer work."""

import pytest
from test_report import CURVE, TWO_CLASSES, report_of, rows_of

from pipeline.reporting.report.page import render

pytest_plugins = ("browser",)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "report.html").write_text(render(report_of(rows_of(TWO_CLASSES), curves=CURVE)), encoding="utf-8")
    return (folder / "report.html").as_uri()


def test_the_filters(address, browser_page, screenshot):
    browser_page.goto(address)
    visible = browser_page.locator(".card:visible")
    assert visible.count() == 8
    browser_page.locator("#filters select").select_option("cloth")
    assert visible.count() == 4
    browser_page.get_by_label("true negative").uncheck()
    assert visible.count() == 2
    assert browser_page.locator("#shown").inner_text() == "2 of 2 shown"
    assert browser_page.locator('[data-count="false-negative"]').inner_text() == "1"
    screenshot(browser_page, "report", full_page=True)
    assert browser_page.console_errors == [] and browser_page.outside_requests == []


def test_the_viewer_opens_by_key_and_by_click(address, browser_page):
    browser_page.goto(address)
    viewer = browser_page.locator("dialog")
    browser_page.locator("a.enlarge").first.focus()
    browser_page.keyboard.press("Enter")
    assert viewer.is_visible() and "plate/3.png" in viewer.inner_text()
    browser_page.keyboard.press("ArrowRight")
    assert "plate/1.png" in viewer.inner_text()
    browser_page.keyboard.press("Escape")
    assert not viewer.is_visible()
    browser_page.locator("a.enlarge img").first.click()
    assert viewer.is_visible()
    viewer.get_by_role("button", name="close").click()
    assert not viewer.is_visible()
    assert browser_page.console_errors == []


def test_a_phone_in_the_dark_and_without_scripts(address, open_page):
    page = open_page(size=(390, 844), color_scheme="dark", java_script_enabled=False)
    page.goto(address)
    assert page.locator(".card:visible").count() == 8 and page.locator("#filters").is_hidden()
    page.locator("a.enlarge").first.click()
    assert page.url.endswith("#image-1")
    assert page.console_errors == []


def test_a_phone_is_never_scrolled_sideways(address, open_page):
    page = open_page(size=(390, 844))
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
