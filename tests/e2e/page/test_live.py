"""What the server does now, as the page shows it from its metrics."""

import math

import httpx
import pytest
from playwright.sync_api import Page, Route, expect
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, Log, open_view, until

pytestmark = MARKS

HEAD = ["model", "rows/s", "requests/s", "rows", "p50, ms", "p99, ms", "waiting"]
PARSER = "import('/static/page/metrics.js')"
TEXT = r"""# HELP a Of a \\ and a "quote"
# TYPE a counter
a{model="one \"of, two\"}",path="C:\\x\nend",} 3 1234
  a { model = "x" }   1e3
b +Inf
b_bucket{le="0.5"} NaN
"""


def cells(page: Page, model: str) -> dict[str, str]:
    """What the table says of a model now, by the heads of its columns."""
    rows = page.evaluate(
        "[...document.querySelectorAll('#live-models tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    head, found = rows[0], next(row for row in rows if row[0] == model)
    return dict(zip(head, found, strict=True))


def scrapes(log: Log) -> int:
    return sum(address.endswith("/metrics") for address in log.requested)


# The view asks every two seconds: here sooner, and nothing else that waits is changed.
SOONER = """const later = window.setTimeout;
window.setTimeout = (work, ms, ...more) => later(work, ms === 2000 ? 150 : ms, ...more);"""
# One of each kind: 2-D, table, image, class-conditional, continuous.
KINDS = ("moons", "magic", "digits-glow", "digits-classes", "pinwheel")


def opened(page: Page, server: RunningServer) -> None:
    page.add_init_script(SOONER)
    open_view(page, server, "moons", "live")
    expect(page.locator("#live-models")).to_contain_text("moons")


def test_metrics_are_read_as_prometheus_reads_them(server: RunningServer, page: Page) -> None:
    page.goto(f"{server.url}/ui")
    real = httpx.get(f"{server.url}/metrics").text
    code = f"text => {PARSER}.then(({{parseMetrics}}) => [...parseMetrics(text)])"
    found = {
        (name, tuple(sorted(sample["labels"].items()))): sample["value"]
        for name, samples in page.evaluate(code, real)
        for sample in samples
    }
    assert found == {
        (sample.name, tuple(sorted(sample.labels.items()))): pytest.approx(sample.value)
        for family in text_string_to_metric_families(real)
        for sample in family.samples
    }
    (_, a), (_, b), (_, bucket) = page.evaluate(code, TEXT)
    assert a[0] == {"labels": {"model": 'one "of, two"}', "path": "C:\\x\nend"}, "value": 3}
    assert a[1] == {"labels": {"model": "x"}, "value": 1000}
    assert (b[0], bucket[0]["labels"]) == ({"labels": {}, "value": math.inf}, {"le": "0.5"})
    assert math.isnan(bucket[0]["value"])


# Of ten observations: 4 up to 1, 4 more up to 2, one more up to 5, one beyond.
@pytest.mark.parametrize(
    ("share", "expected"), [(0.2, 0.5), (0.4, 1), (0.5, 1.25), (0.85, 3.5), (0.99, 5)]
)
def test_quantiles_are_those_of_prometheus(
    server: RunningServer, page: Page, share: float, expected: float
) -> None:
    page.goto(f"{server.url}/ui")
    buckets = "[[Infinity, 10], [1, 4], [5, 9], [2, 8]]"
    code = f"{PARSER}.then(({{quantileOf}}) => quantileOf({share}, {buckets}))"
    assert page.evaluate(code) == pytest.approx(expected)
    assert page.evaluate(f"{PARSER}.then(m => isNaN(m.quantileOf(0.5, [[1, 0], [Infinity, 0]])))")


@AT_LENGTH
def test_what_is_asked_of_the_server_is_seen(server: RunningServer, page: Page) -> None:
    opened(page, server)
    expect(page.locator("#live-load")).to_contain_text("Not overloaded")
    with server.client() as http:
        for _ in range(3):
            http.post("/log_prob", json={"model": "moons", "x": [[0, 1]] * 100})
        http.post("/log_prob", json={"model": "moons", "x": [[0, 1, 2]]})
        for model in KINDS[1:]:
            fields = {"context": 0} if model == "digits-classes" else {}
            http.post("/sample", json={"model": model, "num_samples": 3, **fields})
    rows = "[...document.querySelectorAll('#live-models tr')].map(row => row.cells[3].textContent)"
    until(page, f"{rows}.filter(rows => rows === '3').length === {len(KINDS) - 1}")
    seen = cells(page, "moons")
    assert list(seen)[: len(HEAD)] == HEAD
    assert (seen["rows"], seen["rows a batch"], seen["errors"]) == ("300", "100", "1")
    assert cells(page, "all")["rows"] == str(300 + 3 * (len(KINDS) - 1))
    assert [cells(page, model)["rows"] for model in KINDS[1:]] == ["3"] * (len(KINDS) - 1)
    assert cells(page, "magic-iaf")["rows"] == "0"
    assert float(seen["rows/s"]) > 10
    assert 0 < float(seen["p50, ms"]) <= float(seen["p99, ms"])
    label = page.locator("#live-chart-rate").get_attribute("aria-label") or ""
    assert label.startswith("Rows computed a second. rows/s: "), label
    drawn = """[...document.querySelectorAll('#live-charts canvas')].map(canvas => {
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return pixels.data.some(value => value > 0);
    })"""
    assert page.evaluate(drawn) == [True] * 4
    expect(page.locator("#live-errors")).to_contain_text("422")


@AT_LENGTH
def test_its_own_questions_are_no_traffic_and_end_with_the_view(
    server: RunningServer, page: Page, log: Log
) -> None:
    opened(page, server)
    while scrapes(log) < 4:
        page.wait_for_timeout(50)
    all_of_them = cells(page, "all")
    assert (all_of_them["rows/s"], all_of_them["requests/s"]) == ("0", "0")
    page.locator("#live-pause").click()
    expect(page.locator("#live-seen")).to_contain_text("paused")
    asked = scrapes(log)
    page.wait_for_timeout(500)
    assert scrapes(log) == asked
    page.locator("#live-pause").click()
    page.locator("#tab-samples").click()
    page.wait_for_timeout(100)
    asked = scrapes(log)
    page.wait_for_timeout(500)
    assert scrapes(log) == asked


@AT_LENGTH
def test_drift_is_an_alarm_once_it_is_beyond_its_limit(server: RunningServer, page: Page) -> None:
    opened(page, server)
    with server.client() as http:
        http.post("/score", json={"model": "moons", "x": [[9, 9]] * 50})
    expect(page.locator("#live-drift")).to_contain_text(
        "no longer like those of the calibration: m"
    )
    text = httpx.get(f"{server.url}/metrics").text
    (drift,) = (
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith('pushforward_drift_log_martingale{model="moons",')
    )
    assert cells(page, "moons")["drift"] == f"{drift:.3g}, alarm"


@AT_LENGTH
def test_an_alarm_is_told_after_its_window_has_ended(server: RunningServer, page: Page) -> None:
    start = "pushforward_drift_"
    other = {"log_martingale": "-0.5", "log_martingale_max": "108", "crossings_total": "1"}

    def answer(route: Route) -> None:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        kept = [line for line in lines if not line.startswith((start, "pushforward_requests"))]
        kept += [f'{start}{name}{{model="magic"}} {value}' for name, value in other.items()]
        kept.append('pushforward_requests_total{model="magic",op="score",code="499"} 2')
        route.fulfill(body="\n".join(kept) + "\n", content_type="text/plain")

    page.route("**/metrics", answer)
    opened(page, server)
    said = page.locator("#live-drift")
    expect(said).to_contain_text("no longer like those of the calibration: magic (alarm in this")
    expect(said).to_contain_text("Since the start 1 window crossed the limit")
    assert cells(page, "magic")["drift"] in ("-0.5, alarm before", "no row scored")
    assert cells(page, "magic")["errors"] == "0"
    expect(page.locator("#live-errors")).to_contain_text("499the client went away")
    other["log_martingale_max"] = "0.3"
    expect(said).not_to_contain_text("no longer like")
    expect(said).not_to_contain_text("like the rows")
