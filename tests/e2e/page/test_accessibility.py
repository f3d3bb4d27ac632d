"""Everybody can use the page: axe-core, the keyboard, phones, dark mode, and no wait."""

from collections.abc import Iterator

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until
from tests.service.api.test_page import MAX_PAGE_BYTES

pytestmark = MARKS

# Every view, of a model that shows most of it.
SEEN = {
    "density": "moons",
    "samples": "magic",
    "interpolate": "digits-glow",
    "score": "magic",
    "trust": "digits-glow",
    "live": "moons",
}
# What another width and other colours can change; all rules are tried on the desktop.
ON_A_PHONE = ["color-contrast", "scrollable-region-focusable", "region"]
QUIET = "document.querySelectorAll('[role=tab][aria-selected=true]').length === 1"


# The views that are looked at in every run of the tests.
AT_ONCE = ("density", "score")


def settled(page: Page, server: RunningServer, view: str, model: str) -> None:
    """Open a view, and wait for what it shows."""
    open_view(page, server, model, view)
    until(page, QUIET)
    if view == "score":
        page.locator("#score-try").click()
        expect(page.locator("#score-why h3")).to_be_visible()
    if view == "live":
        expect(page.locator("#live-models")).to_contain_text(model)
    else:
        page.wait_for_timeout(500)  # so that it has drawn something
    page.evaluate("document.querySelector('#request').open = true")


def violations(page: Page, **options: object) -> str:
    found = Axe().run(page, options={"resultTypes": ["violations"], **options})
    return found.generate_report() if found.violations_count else ""


@pytest.mark.parametrize(
    ("view", "model"),
    [pytest.param(*one, marks=() if one[0] in AT_ONCE else AT_LENGTH) for one in SEEN.items()],
)
def test_axe_finds_nothing_and_nothing_is_wider_than_a_phone(
    server: RunningServer, page: Page, view: str, model: str
) -> None:
    settled(page, server, view, model)
    assert violations(page) == ""
    page.emulate_media(color_scheme="dark")
    assert violations(page, runOnly=ON_A_PHONE[:1]) == ""
    page.set_viewport_size({"width": 375, "height": 800})
    until(page, "document.documentElement.scrollWidth <= innerWidth")
    assert violations(page, runOnly=ON_A_PHONE) == ""


@AT_LENGTH
def test_the_table_of_views_is_complete(server: RunningServer, page: Page) -> None:
    settled(page, server, "trust", "moons")
    tabs = page.evaluate("[...document.querySelectorAll('[role=tab]')].map(tab => tab.id)")
    assert tabs == [f"tab-{view}" for view in SEEN]


def fitting(page: Page) -> Iterator[str]:
    yield from page.evaluate(
        "[...document.querySelectorAll('[role=tab]:not(:disabled)')].map(tab => tab.id)"
    )


def test_the_keyboard_alone_walks_through_the_page(server: RunningServer, page: Page) -> None:
    page.goto(f"{server.url}/ui#model=moons&view=trust")
    page.locator("#view-trust").wait_for()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#model")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator("#tab-trust")).to_be_focused()
    names = list(fitting(page))
    start = names.index("tab-trust")
    for name in (*names[start + 1 :], *names[: start + 1]):
        page.keyboard.press("ArrowRight")
        expect(page.locator(f"#{name}")).to_be_focused()
        expect(page.locator(f"#{name.replace('tab', 'view')}")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#view-trust') !== null")


# What of the view has the focus, and whether a line is seen around it.
FOCUS = """view => {
  const focused = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(focused);
  const box = focused.getBoundingClientRect();
  return [focused.closest(`#view-${view}`) && (focused.id || focused.outerHTML.slice(0, 80)),
    outlineStyle !== "none" && parseFloat(outlineWidth) >= 1 && box.width > 0 && box.height > 0];
}"""
MOST_STOPS = 60


@AT_LENGTH
def test_every_focus_is_seen(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "density")
    for view in SEEN:
        page.locator(f"#tab-{view}").click()
        page.locator(f"#view-{view}").wait_for()
        stops = []
        for _ in range(MOST_STOPS):
            page.keyboard.press("Tab")
            where, is_seen = page.evaluate(FOCUS, view)
            if not where:
                break
            assert is_seen, (view, where)
            stops.append(where)
        assert len(set(stops)) >= 2, view


def test_what_a_browser_loads_is_small_and_soon_painted(server: RunningServer, page: Page) -> None:
    settled(page, server, "density", "moons")
    paint = page.evaluate("performance.getEntriesByType('paint').map(entry => entry.startTime)")
    loaded = page.evaluate(
        "performance.getEntriesByType('resource').map(entry => entry.name)"
        ".filter(name => name.includes('/static/'))"
    )
    assert loaded
    with httpx.Client() as client:
        files = [client.get(address) for address in (page.url.split("#")[0], *set(loaded))]
    total = sum(len(file.content) for file in files)
    print(f"first paint {paint} ms, {total} bytes in {len(files)} files")
    assert total <= MAX_PAGE_BYTES
    assert max(paint) < 5000  # 1 s on two quiet cores; tests share theirs
