"""A real browser for tests of pages: the fixture `browser_page`, skipped where playwright or a browser is missing.

A test module takes the fixtures by `pytest_plugins = ("browser",)`. Screenshots go to the folder that the
environment variable SCREENSHOTS names, else to the test's own temporary folder.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from AnomalyCLIP_lib.errors import InputError
from demo.browser import WINDOW, start_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OWN_HOSTS = ("127.0.0.1", "localhost")


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Headless Chromium with an empty profile."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    with playwright.sync_playwright() as running:
        try:
            started = start_browser(running)
        except InputError as error:
            pytest.skip(str(error))
        yield started
        started.close()


@pytest.fixture
def open_page(browser: "Browser") -> "Iterator[Callable[..., Page]]":
    """A function that opens a page of its own profile, as another person would; arguments as for `watched_page`."""
    contexts = []

    def open_one(**options) -> "Page":
        page = watched_page(browser, **options)
        contexts.append(page.context)
        return page

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture
def browser_page(open_page: "Callable[..., Page]") -> "Page":
    """A page of 1280 x 900 pixels with the lists `console_errors` and `outside_requests`, see `watched_page`."""
    return open_page()


@pytest.fixture
def screenshot(tmp_path: Path) -> "Callable[..., Path]":
    """A function that writes the page, or with full_page all of it, as PNG of the given name; returns the path."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(page: "Page", name: str, full_page: bool = False) -> Path:
        path = folder / f"{name}.png"
        page.screenshot(path=path, full_page=full_page)
        assert path.stat().st_size > 0
        return path

    return take


def watched_page(browser: "Browser", size: tuple[int, int] = WINDOW, **options) -> "Page":
    """A page that keeps what went wrong.

    Args:
        size: of the window, pixels.
        options: of playwright's `Browser.new_context`, for instance color_scheme="dark".

    Returns:
        a Page with two more attributes: `console_errors`, the sentences of errors that the page's console showed
        or its scripts raised, and `outside_requests`, the addresses of everything asked of other hosts.
    """
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    page = context.new_page()
    console_errors: list[str] = []
    outside_requests: list[str] = []

    def note(address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in OWN_HOSTS:
            outside_requests.append(address)

    page.on("console", lambda message: console_errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: console_errors.append(str(error)))
    context.on("request", lambda request: note(request.url))
    page.on("websocket", lambda socket: note(socket.url))
    page.console_errors = console_errors  # type: ignore[attr-defined]
    page.outside_requests = outside_requests  # type: ignore[attr-defined]
    return page
