"""The pages on a server that wants a key, and the policy that they are under."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect

import models
from benchmarks.process import RunningServer, serving
from models.checkpoints.manifest import digest
from models.datasets import load
from models.scoring.calibration import calibrate
from models.scoring.statistics import Evidence
from models.scoring.storage import write_calibration
from tests.cases import perturb
from tests.e2e.page.browsing import AT_LENGTH, MARKS, Log, until
from tests.e2e.page.test_request import program, run

KEY = "a-key-of-16-characters"
ZOO = Path(__file__).parents[3] / "models" / "zoo"

pytestmark = MARKS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A model of a name that nobody guesses, calibrated; one that is not; one of two classes."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(ZOO / "moons", folder / "models" / "rings")
    calibrate_on_moons(folder / "models" / "rings")
    uncalibrated = shutil.ignore_patterns("calibration.*")
    shutil.copytree(ZOO / "digits-nice", folder / "models" / "digits", ignore=uncalibrated)
    small = {"event_shape": [2], "num_layers": 2, "conditioner": {"kind": "mlp", "widths": [6]}}
    flow = perturb(models.build("realnvp", {**small, "num_classes": 2}), 0.4).eval()
    models.save(flow, folder / "models" / "halves")
    calibrate_by_class(folder / "models" / "halves")
    arguments = (str(folder / "models"), "--engine", "torch")
    env = {"PUSHFORWARD_API_KEYS": KEY}
    with serving(folder / "server.log", *arguments, env=env) as server:
        yield server


def calibrate_on_moons(folder: Path) -> None:
    flow, rows = models.load(folder), load("two_moons?rows=500&seed=9").x.astype(np.float32)
    with torch.no_grad():
        x = torch.from_numpy(rows)
        z, log_prob = flow.encode(x)[0].numpy(), flow.log_prob(x).numpy()
    calibration = calibrate(
        Evidence(rows, log_prob, z),
        statistic="neg_log_prob",
        weights=digest(folder),
        dtype="float32",
        dataset="moons",
    )
    write_calibration(folder, calibration)


def calibrate_by_class(folder: Path) -> None:
    """Each class on its own scores, of rows drawn wider for the second."""
    flow = models.load(folder)
    rows = np.random.default_rng(3).normal(size=(400, 2)).astype(np.float32)
    labels = np.repeat([0, 1], 200)
    rows[200:] *= 3
    with torch.no_grad():
        x, context = torch.from_numpy(rows), torch.eye(2)[torch.from_numpy(labels)]
        z, log_prob = flow.encode(x, context)[0].numpy(), flow.log_prob(x, context).numpy()
    calibration = calibrate(
        Evidence(rows, log_prob, z),
        statistic="neg_log_prob",
        weights=digest(folder),
        dtype="float32",
        dataset="noise",
        labels=labels,
        class_rows=100,
    )
    write_calibration(folder, calibration)


def give_key(page: Page, key: str) -> None:
    page.locator("#key").fill(key)
    page.locator("#key-form button").click()


def enter(page: Page, server: RunningServer, model: str, view: str) -> None:
    page.goto(f"{server.url}/ui#model={model}&view={view}")
    give_key(page, KEY)
    page.locator(f"#view-{view}").wait_for()


def test_the_page_asks_for_the_key_and_draws(server: RunningServer, page: Page) -> None:
    page.goto(server.url)
    facts = page.locator("#facts")
    expect(page.locator("#calls")).to_be_hidden()
    give_key(page, f"{KEY}-not")
    expect(facts).to_have_text("the key is not one of this server's")
    give_key(page, "schlüssel")
    expect(facts).to_contain_text("ASCII")
    give_key(page, KEY)
    expect(page.locator("#calls")).to_be_visible()
    expect(page.locator("#key-form")).to_be_hidden()
    page.locator("#model").select_option("rings")
    page.locator("#tab-samples").click()
    page.locator("#seed").fill("7")
    page.locator("#seed").press("Enter")
    expect(page.locator("#drawn")).to_contain_text("seed 7, ")
    expect(page.locator("#plot")).to_be_visible()
    page.locator("#model").select_option("digits")
    page.locator("#draw button").click()
    until(page, "picture.width > 100")


def test_the_page_scores_and_says_what_is_wrong(server: RunningServer, page: Page) -> None:
    enter(page, server, "rings", "score")
    page.locator("#by-hand summary").click()
    page.locator("#rows").fill("[[0, 1]]")
    page.locator("#score button").click()
    expect(page.locator("#scored")).to_contain_text("log_prob")
    answer = json.loads(page.locator("#scored").inner_text())
    assert answer["log_prob"] == pytest.approx([-0.30267775], abs=1e-4)
    for text, message in (("[[0, 1, 2]]", "x: expected (*, 2)"), ("[[0,", "expected rows as JSON")):
        page.locator("#rows").fill(text)
        page.locator("#score button").click()
        expect(page.locator("#rows-message")).to_contain_text(message)
        expect(page.locator("#rows")).to_have_attribute("aria-describedby", "rows-message")


def test_the_page_finds_anomalies(server: RunningServer, page: Page) -> None:
    enter(page, server, "rings", "score")
    page.locator("#by-hand summary").click()
    expect(page.locator("#alpha")).to_have_value("0.01")
    page.locator("#suspects").fill("[[0, 1], [9, 1]]")
    page.locator("#explain").fill("1")
    page.locator("#judge button").click()
    summary = "1 of 2 rows flagged; neg_log_prob over 500 rows of moons"
    expect(page.locator("#judged")).to_have_text(summary)
    cells = "[...verdicts.rows].map(row => [...row.cells].map(cell => cell.textContent))"
    head, likely, far = page.evaluate(cells)
    assert head == ["row", "score", "p", "decision", "because of"]
    assert (likely[1], likely[3]) == ("0.3027", "")
    assert far[2:4] == ["0.001996", "flagged"]
    assert likely[4] == ""
    assert re.fullmatch(r"\w+ 9, expected -?[\d.]+: \d+(\.\d+)? nats", far[4]), far[4]
    page.locator("#alpha").fill("0.001")
    page.locator("#judge button").click()
    expect(page.locator("#suspects-message")).to_contain_text("alpha: ")
    page.locator("#model").select_option("digits")
    expect(page.locator("#alpha")).to_have_value("")


@AT_LENGTH
def test_rows_are_judged_by_the_scores_of_their_class(server: RunningServer, page: Page) -> None:
    enter(page, server, "halves", "score")
    rows = [[0.1 * row, 1 - row] for row in range(12)]
    table = "a,b\n" + "\n".join(f"{a},{b}" for a, b in rows)
    page.locator("#score-file").set_input_files(
        {"name": "rows.csv", "mimeType": "text/csv", "buffer": table.encode()}
    )
    page.locator("#score-rate").fill("0.05")
    page.locator("#score-rate").press("Enter")
    found = []
    for label in (0, 1):
        page.locator("#label").select_option(str(label))
        answer = httpx.post(
            f"{server.url}/score",
            json={"model": "halves", "x": rows, "context": label, "alpha": 0.05},
            headers={"X-API-Key": KEY},
        ).json()
        least = min(answer["p_value"])
        until(page, f"{FIRST_P} === {least:.4g}")
        found.append(sum(answer["is_anomaly"]))
        expect(page.locator("#score-told")).to_contain_text(f"{found[-1]} of 12 rows flagged")
        expect(page.locator("#score-bound")).to_contain_text("200 calibration rows (noise)")
        worst = answer["p_value"].index(least)
        expect(page.locator("#score-why h3")).to_have_text(f"Why row {worst} (line {worst + 2})")
        (reasons,) = httpx.post(
            f"{server.url}/score",
            json={"model": "halves", "x": [rows[worst]], "context": label, "explain": 2},
            headers={"X-API-Key": KEY},
        ).json()["explanation"]
        until(page, f"Math.abs({NATS}[0] - {reasons[0]['nats']}) < 0.006")
    assert found[0] > found[1]


NATS = (
    "[...document.querySelectorAll('#score-features tr td:nth-child(4)')]"
    ".map(cell => Number(cell.textContent))"
)
FIRST_P = "Number(document.querySelector('#score-table tbody td:nth-child(3)')?.textContent)"


@AT_LENGTH
def test_without_calibration_rows_are_scored_and_it_is_said_how(
    server: RunningServer, page: Page
) -> None:
    enter(page, server, "digits", "score")
    page.locator("#score-try").click()
    expect(page.locator("#score-told")).to_have_text("200 rows scored")
    bound = page.locator("#score-bound")
    expect(bound).to_contain_text("pushforward calibrate digits --data HELD-OUT")
    expect(page.locator("#score-decide")).to_be_hidden()
    expect(page.locator("#score-plot canvas")).to_be_visible()


def test_the_key_lasts_as_long_as_the_page(server: RunningServer, page: Page) -> None:
    enter(page, server, "rings", "samples")
    stored = "[localStorage.length, sessionStorage.length, document.cookie]"
    assert page.evaluate(stored) == [0, 0, ""]
    assert KEY not in page.url
    page.reload()
    expect(page.locator("#key-form")).to_be_visible()
    give_key(page, KEY)
    expect(page.locator("#view-samples")).to_be_visible()
    page.locator("#forget").click()
    expect(page.locator("#key-form")).to_be_visible()
    expect(page.locator("#calls")).to_be_hidden()


@AT_LENGTH
def test_a_forgotten_key_is_not_asked_for_again_while_one_is_typed(
    server: RunningServer, page: Page
) -> None:
    page.goto(f"{server.url}/ui#view=live")
    give_key(page, KEY)
    expect(page.locator("#live-models")).to_contain_text("rings")
    expect(page.locator("#key")).to_have_value("")
    page.locator("#forget").click()
    page.locator("#key").fill("half")
    page.wait_for_timeout(2200)  # the view asks every two seconds
    expect(page.locator("#key")).to_have_value("half")


def test_programs_have_a_placeholder_for_the_key(
    server: RunningServer, page: Page, tmp_path: Path
) -> None:
    enter(page, server, "rings", "trust")
    until(page, "document.querySelectorAll('#ledger tr').length > 1")
    for language in ("curl", "Python", "JavaScript"):
        text = program(page, language)
        assert "Bearer YOUR-KEY" in text
        assert KEY not in text
    assert run(page, "Python", tmp_path, KEY)[:6] == b"\x93NUMPY"


@AT_LENGTH
def test_what_a_model_has_not_is_said(server: RunningServer, page: Page) -> None:
    enter(page, server, "digits", "trust")
    until(page, "document.querySelectorAll('#ledger tr').length > 1")
    for part, mend in (("certificate", "export"), ("calibration", "calibrate")):
        told = page.locator(f"#trust-no-{part}")
        expect(told).to_be_visible()
        expect(told).to_contain_text(f"pushforward {mend}")
    expect(page.locator("#trust-certificate")).to_be_empty()
    expect(page.locator("#trust-calibration")).to_be_hidden()
    unknown = page.locator("#verdicts-of-trust .unknown")
    expect(unknown.first).to_contain_text("No certificate: torch serves")
    expect(unknown.last).to_contain_text("Not calibrated")


def authorize(page: Page, key: str) -> None:
    page.locator(".scheme-container .authorize").click()
    page.locator("#auth-bearer-value").fill(key)
    page.locator(".modal-ux .auth-btn-wrapper .authorize").first.click()
    page.locator(".modal-ux .btn-done").first.click()


SAMPLE = "#operations-operations-sample"


def execute(page: Page, status: str) -> None:
    """Try the call, and wait for an answer of this status."""
    page.locator(f"{SAMPLE} .opblock-summary-control").click()
    page.locator(f"{SAMPLE} .try-out__btn").click()
    page.locator(f"{SAMPLE} .execute").click()
    shown = page.locator(f"{SAMPLE} .live-responses-table tbody .response-col_status")
    expect(shown.first).to_contain_text(status)


def test_swagger_ui_executes_a_call_once_it_has_the_key(server: RunningServer, page: Page) -> None:
    page.goto(f"{server.url}/docs")
    page.locator(SAMPLE).wait_for()
    text = "ui.specSelectors.specStr()"
    assert "rings" not in page.evaluate(text)
    authorize(page, KEY)
    until(page, f"{text}.includes('rings')")
    execute(page, "200")
    assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


def test_swagger_ui_says_that_a_key_is_wanted(server: RunningServer, page: Page) -> None:
    page.goto(f"{server.url}/docs")
    execute(page, "401")
    expect(page.locator(SAMPLE)).to_contain_text("wants a key")
    authorize(page, f"{KEY}-not")
    page.locator(f"{SAMPLE} .execute").click()
    expect(page.locator(SAMPLE)).to_contain_text("not one of this server")


def test_pages_follow_the_scheme_and_fit_a_phone(server: RunningServer, page: Page) -> None:
    schemes: tuple[Literal["dark", "light"], ...] = ("dark", "light")
    for path in ("/ui", "/docs"):
        page.goto(f"{server.url}{path}")
        page.set_viewport_size({"width": 375, "height": 800})
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            until(
                page, f"getComputedStyle(document.documentElement).colorScheme.includes('{scheme}')"
            )
    enter(page, server, "rings", "samples")
    page.locator("#draw button").click()
    expect(page.locator("#plot")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("path", ["/ui", "/docs"])
def test_the_policy_stops_what_is_not_this_servers(
    server: RunningServer, page: Page, log: Log, path: str
) -> None:
    page.goto(f"{server.url}{path}")
    page.wait_for_timeout(200)
    assert log.faults == []
    for code in (
        "document.head.append(Object.assign(document.createElement('script'), {text: 'x = 1'}))",
        "document.body.innerHTML += '<p style=\"color: red\">'",
        "fetch('http://127.0.0.2:1/').catch(() => {})",
    ):
        found = len(log.faults)
        page.evaluate(code)
        page.wait_for_timeout(100)
        assert len(log.faults) > found, code
    assert page.evaluate("typeof x") == "undefined"
    log.faults.clear()
    log.requested.clear()
