"""A real browser that reaches no other host, and what is wrong in every page of it."""

import os
import shutil
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import ConsoleMessage, Page

from benchmarks.process import RunningServer

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

# Of every module of these tests: one server and one browser serve them all.
MARKS = [
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser here: {', '.join(NAMES)}"),
    pytest.mark.xdist_group("browser"),
]

# What takes all of them too long for every run of the tests: `make pages` tries them too.
AT_LENGTH = pytest.mark.skipif(
    os.environ.get("PAGES") != "all", reason="every test of the page: make pages"
)

FLAGS = (
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@dataclass
class Log:
    """What a page asked for, and what it complained of.

    requested: addresses of all requests that were made, or tried.
    faults: violations of the policy, exceptions, and whatever else a console shows in red. That a
        request was answered with an error is not among them: a page that asks without a key is
        answered 401.
    """

    requested: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load"):
            self.faults.append(message.text)

    def foreign(self, server: RunningServer) -> list[str]:
        """Addresses that were asked for and are not this server's."""
        own = (f"{server.url}/", f"blob:{server.url}/", "data:image/")
        return [address for address in self.requested if not address.startswith(own)]


def open_view(page: Page, server: RunningServer, model: str, view: str, **state: object) -> None:
    """Open the page where its address leads to a view of a model, and wait for it."""
    given = "&".join(f"{name}={value}" for name, value in state.items())
    # Another query makes the browser load the page anew, though only what follows # differs.
    page.goto("about:blank")
    page.goto(f"{server.url}/ui#model={model}&view={view}&{given}")
    page.locator(f"#view-{view}").wait_for()


def until(page: Page, code: str) -> Any:
    """Wait for JavaScript to give something true (the policy forbids Playwright's own way)."""
    end = time.monotonic() + 30
    while not (value := page.evaluate(code)):
        assert time.monotonic() < end, (code, page.locator("body").inner_text())
        page.wait_for_timeout(25)
    return value
