"""A headless browser, for screenshots and for tests of pages. Needs playwright and a Chromium of the system."""

import shutil
from typing import TYPE_CHECKING

from AnomalyCLIP_lib.errors import InputError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright  # pyright: ignore[reportMissingImports]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SWITCHES = (
    "--headless",
    "--no-sandbox",  # which containers forbid
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # no page leaves this machine
)
WINDOW = (1280, 900)
MOST_SECONDS_TO_START = 120


def start_browser(playwright: "Playwright") -> "Browser":
    """Chromium or Chrome with an empty profile.

    Raises:
        InputError: none is installed, or it does not start.
    """
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        raise InputError("No Chromium or Chrome was found; install one, on Debian by: apt-get install chromium")
    from playwright.sync_api import Error  # pyright: ignore[reportMissingImports]

    try:
        return playwright.chromium.launch(
            executable_path=executable, args=list(SWITCHES), timeout=MOST_SECONDS_TO_START * 1000
        )
    except Error as error:
        reason = (str(error).strip() or "without a message").splitlines()[0]
        raise InputError(f"{executable} does not start ({reason}); fix it or install another Chromium.") from error
