"""One browser for all tests of the pages; a context, and so a memory, of its own for each."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import CHROMIUM, FLAGS, Log


# Not of the session: while Playwright is there its event loop runs in this thread, and whatever
# other tests there are could run none of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(FLAGS), chromium_sandbox=False
        )
        yield browser
        browser.close()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def server(zoo_server: RunningServer) -> RunningServer:
    """What the page is a page of; a module that needs another server has its own."""
    return zoo_server


@pytest.fixture
def page(browser: Browser, server: RunningServer, log: Log) -> Iterator[Page]:
    """A page that has to be without faults, and to ask nothing of another host, to the end."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    log.watch(page)
    yield page
    context.close()
    assert log.faults == []
    assert log.foreign(server) == []
