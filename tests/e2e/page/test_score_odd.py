"""The score view where what is looked at changes meanwhile, and where files are odd."""

import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from playwright.sync_api import Error, FilePayload, Page, Route, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until

pytestmark = MARKS

PROBLEM = "application/problem+json"


def hold(page: Page, pattern: str) -> list[Route]:
    """Let no request that fits be answered; they are in the list, for `release`."""
    held: list[Route] = []
    page.route(pattern, lambda route: held.append(route))
    return held


def wait_for(page: Page, held: list[Route]) -> None:
    end = time.monotonic() + 30
    while not held:
        assert time.monotonic() < end
        page.wait_for_timeout(25)


def release(page: Page, pattern: str, held: list[Route]) -> None:
    page.unroute(pattern)
    for route in held:
        try:
            route.continue_()
        except Error:  # given up by the page
            continue


def choose(page: Page, *files: tuple[str, bytes]) -> None:
    given: list[FilePayload] = [
        {"name": name, "mimeType": "", "buffer": content} for name, content in files
    ]
    page.locator("#score-file").set_input_files(given)


def test_a_batch_is_scored_of_one_class(server: RunningServer, page: Page) -> None:
    query = {"model": "digits-classes", "num_samples": "1", "context": "0"}
    headers = {"Accept": "image/png"}
    drawn = httpx.post(f"{server.url}/sample", params=query, headers=headers, timeout=30).content
    asked: list[str] = []
    first: list[Route] = []

    def answer(route: Route) -> None:
        if "png" in route.request.headers["accept"]:  # the heat map
            return route.fulfill(status=503, content_type=PROBLEM, body='{"detail": "later"}')
        asked.append(parse_qs(urlsplit(route.request.url).query)["context"][0])
        if len(asked) == 1:
            return first.append(route)
        return route.fulfill(json={"score": [1], "log_prob": [-1], "p_value": [0.5]})

    page.route("**/score?*", answer)
    open_view(page, server, "digits-classes", "score")
    choose(page, *((f"{index}.png", drawn) for index in range(3)))
    wait_for(page, first)
    page.locator("#tab-live").click()
    page.locator("#label").select_option("3")
    first[0].fulfill(json={"score": [1], "log_prob": [-1], "p_value": [0.5]})
    until(page, "document.querySelectorAll('#score-table td').length > 0")
    assert asked == ["0", "0", "0"]
    page.locator("#tab-score").click()
    expect(page.locator("#score-why h3")).to_have_text("Row 0: 0.png")
    until(page, "!document.querySelector('#score-save').disabled")
    assert asked[3:] == ["3", "3", "3"]


@AT_LENGTH
def test_another_model_while_the_calibration_is_asked_for(
    server: RunningServer, page: Page
) -> None:
    open_view(page, server, "magic", "score")
    held = hold(page, "**/magic/calibration*")
    page.locator("#score-try").click()
    wait_for(page, held)
    page.locator("#model").select_option("moons")
    expect(page.locator("#score-notes")).to_be_empty()
    release(page, "**/magic/calibration*", held)
    page.wait_for_timeout(200)  # for what is not to be said
    expect(page.locator("#view-score .error:not(:empty)")).to_have_count(0)
    page.locator("#score-try").click()
    expect(page.locator("#score-why h3")).to_be_visible()
    expect(page.locator("#view-score .error:not(:empty)")).to_have_count(0)
    expect(page.locator("#score-table tbody tr")).to_have_count(20)


@AT_LENGTH
def test_what_is_scored_behind_another_tab_is_seen_afterwards(
    server: RunningServer, page: Page
) -> None:
    open_view(page, server, "moons", "score")
    held = hold(page, "**/score?*")
    page.locator("#score-try").click()
    wait_for(page, held)
    page.locator("#tab-live").click()
    release(page, "**/score?*", held)
    until(page, "document.querySelector('#score-table tbody')")
    page.locator("#tab-score").click()
    expect(page.locator("#score-plot canvas")).to_be_visible()
    # A narrower window draws it anew, and the plot of before is gone.
    page.set_viewport_size({"width": 700, "height": 800})
    until(page, "document.querySelector('#score-plot .u-wrap').clientWidth < 700")
    expect(page.locator("#score-plot canvas")).to_have_count(1)


@AT_LENGTH
def test_a_key_that_is_refused_at_the_reasons_is_asked_for(
    server: RunningServer, page: Page
) -> None:
    refusal = {"status": 401, "content_type": PROBLEM, "body": '{"detail": "an old key"}'}
    open_view(page, server, "magic", "score", alpha=0.0005)
    page.locator("#score-try").click()
    expect(page.locator("#score-why table")).to_be_visible()
    page.route("**/score?*explain*", lambda route: route.fulfill(**refusal))
    page.locator("#score-table td button").nth(12).click()
    expect(page.locator("#key-form")).to_be_visible()


@AT_LENGTH
def test_pictures_without_levels_are_rows_of_numbers(server: RunningServer, page: Page) -> None:
    def without_levels(route: Route) -> None:
        card: dict[str, Any] = json.loads(route.fetch().body())
        del card["num_levels"]
        route.fulfill(json=card)

    page.route("**/models/digits-glow", without_levels)
    open_view(page, server, "digits-glow", "score")
    expect(page.locator("#score-takes")).to_have_text(".npy of shape (rows, 1, 28, 28).")
    page.locator("#score-try").click()
    expect(page.locator("#score-why")).to_contain_text("Rows of this shape are not explained.")
    choose(page, ("one.png", b"\x89PNG"))
    expect(page.locator("#score-file-message")).to_contain_text("and no pictures")


@AT_LENGTH
def test_lines_are_counted_as_an_editor_counts_them(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "score")
    message = page.locator("#score-file-message")
    choose(page, ("blank.csv", b"sep=,\nx1,x2\n\n\n1,2\nfoo,3\n1,1\n"))
    expect(message).to_contain_text('row 1 (line 6): "foo" in x1 is no number')
    choose(page, ("quoted.csv", b'x1,x2,note\r\n1,2,"two\r\nlines"\r\n1,foo,none\r\n'))
    expect(message).to_contain_text('row 1 (line 4): "foo" in x2 is no number')
