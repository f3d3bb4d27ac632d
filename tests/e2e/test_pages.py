"""The pages in a real browser that reaches no other host, on a server that wants a key."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from benchmarks.process import RunningServer, serving
from models.checkpoints.manifest import digest
from models.datasets import load
from models.scoring.calibration import calibrate
from models.scoring.statistics import Evidence
from models.scoring.storage import write_calibration
from tests.e2e import chromium

KEY = "a-key-of-16-characters"
ZOO = Path(__file__).parents[2] / "models" / "zoo"
CHROMIUM = chromium.find()

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason=f"no browser here: {', '.join(chromium.NAMES)}"),
    pytest.mark.xdist_group("pages"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two models: one of a name that nobody guesses, calibrated, and one that is not."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(ZOO / "moons", folder / "models" / "rings")
    calibrate_on_moons(folder / "models" / "rings")
    uncalibrated = shutil.ignore_patterns("calibration.*")
    shutil.copytree(ZOO / "digits-nice", folder / "models" / "digits", ignore=uncalibrated)
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Connection]:
    assert CHROMIUM is not None
    with chromium.browser(CHROMIUM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: chromium.Connection) -> chromium.Page:
    return chromium.Page(browser)


def assert_sound(page: chromium.Page, server: RunningServer) -> None:
    """Nothing violated the policy, and nothing was asked of another host."""
    assert page.faults() == []
    addresses = page.requested()
    assert len(addresses) > 4
    own = (f"{server.url}/", f"blob:{server.url}/", "data:image/")
    assert [address for address in addresses if not address.startswith(own)] == []


def give_key(page: chromium.Page, key: str) -> None:
    page.until("!document.querySelector('#key-form').hidden")
    page.write("#key", key)
    page.click("#key-form button")


def test_the_page_asks_for_the_key_and_draws(server: RunningServer, page: chromium.Page) -> None:
    page.open(server.url)
    assert page.run("document.querySelector('#calls').checkVisibility()") is False
    give_key(page, f"{KEY}-not")
    page.until(
        "document.querySelector('#facts').textContent === \"the key is not one of this server's\""
    )
    give_key(page, "schlüssel")
    page.until("document.querySelector('#facts').textContent.includes('ASCII')")
    give_key(page, KEY)
    page.until("document.querySelector('#calls').checkVisibility()")
    assert page.run("document.querySelector('#key-form').checkVisibility()") is False
    page.run("model.value = 'rings'; model.dispatchEvent(new Event('change'))")
    page.write("#seed", "7")
    page.click("#draw button")
    page.until("drawn.textContent.startsWith('seed 7, ') && plot.checkVisibility()")
    page.run("model.value = 'digits'; model.dispatchEvent(new Event('change'))")
    page.click("#draw button")
    page.until("drawn.textContent.startsWith('seed 7, ') && picture.naturalWidth > 100")
    assert_sound(page, server)


def test_the_page_scores_and_says_what_is_wrong(server: RunningServer, page: chromium.Page) -> None:
    page.open(server.url)
    give_key(page, KEY)
    page.until("document.querySelector('#calls').checkVisibility()")
    page.run("model.value = 'rings'; model.dispatchEvent(new Event('change'))")
    page.write("#rows", "[[0, 1]]")
    page.click("#score button")
    answer = json.loads(page.until("scored.textContent"))
    assert answer["log_prob"] == pytest.approx([-0.30267775], abs=1e-4)
    page.write("#rows", "[[0, 1, 2]]")
    page.click("#score button")
    page.until("scored.textContent.startsWith('x: expected (*, 2)')")
    assert_sound(page, server)


def test_the_page_finds_anomalies(server: RunningServer, page: chromium.Page) -> None:
    page.open(server.url)
    give_key(page, KEY)
    page.until("document.querySelector('#calls').checkVisibility()")
    page.run("model.value = 'rings'; model.dispatchEvent(new Event('change'))")
    assert page.run("document.querySelector('#alpha').value") == "0.01"
    page.write("#suspects", "[[0, 1], [9, 1]]")
    page.write("#explain", "1")
    page.click("#judge button")
    page.until("judged.textContent === '1 of 2 rows flagged; neg_log_prob over 500 rows of moons'")
    cells = "[...verdicts.rows].map(row => [...row.cells].map(cell => cell.textContent))"
    head, likely, far = page.run(cells)
    assert head == ["row", "score", "p", "", "because of"]
    assert (likely[1], likely[3]) == ("0.3027", "")
    assert far[2:4] == ["0.001996", "flagged"]
    assert likely[4] == ""
    assert re.fullmatch(r"\w+ 9, expected -?[\d.]+: \d+(\.\d+)? nats", far[4]), far[4]
    page.write("#alpha", "0.001")
    page.click("#judge button")
    page.until("judged.textContent.startsWith('alpha: ')")
    page.run("model.value = 'digits'; model.dispatchEvent(new Event('change'))")
    assert page.run("document.querySelector('#alpha').value") == ""
    assert_sound(page, server)


def test_the_key_lasts_as_long_as_the_tab(server: RunningServer, page: chromium.Page) -> None:
    page.open(server.url)
    give_key(page, KEY)
    page.until("document.querySelector('#calls').checkVisibility()")
    page.open(server.url)
    page.until("document.querySelector('#calls').checkVisibility()")
    assert page.run("[localStorage.length, document.cookie]") == [0, ""]
    page.click("#forget")
    page.until("document.querySelector('#key-form').checkVisibility()")
    assert page.run("[sessionStorage.length, facts.textContent]") == [0, ""]
    # One that was good and is not any more, as after an exchange of the keys.
    page.run(f"sessionStorage.setItem('pushforward.key', '{KEY}-once')")
    page.open(server.url)
    page.until("document.querySelector('#key-form').checkVisibility() && facts.textContent")
    assert_sound(page, server)


def authorize(page: chromium.Page, key: str) -> None:
    page.click(".scheme-container .authorize")
    page.write("#auth-bearer-value", key)
    page.click(".modal-ux .auth-btn-wrapper .authorize")
    page.click(".modal-ux .btn-done")


SAMPLE = "#operations-operations-sample"
STATUS = f"document.querySelector('{SAMPLE} .live-responses-table tbody .response-col_status')"


def execute(page: chromium.Page) -> str:
    """Press Execute, and give the status that is shown once it is another one."""
    before = json.dumps(page.run(f"{STATUS}?.innerText ?? ''"))
    page.click(f"{SAMPLE} .execute")
    return str(
        page.until(f"{STATUS} !== null && {STATUS}.innerText !== {before} && {STATUS}.innerText")
    )


def try_sample(page: chromium.Page) -> None:
    page.click(f"{SAMPLE} .opblock-summary-control")
    page.click(f"{SAMPLE} .try-out__btn")


def test_swagger_ui_executes_a_call_once_it_has_the_key(
    server: RunningServer, page: chromium.Page
) -> None:
    page.open(f"{server.url}/docs")
    page.until(f"document.querySelector('{SAMPLE}') !== null")
    text = "ui.specSelectors.specStr()"
    assert "rings" not in page.run(text)
    authorize(page, KEY)
    page.until(f"{text}.includes('rings')")
    try_sample(page)
    assert execute(page).startswith("200")
    assert page.run("[localStorage.length, sessionStorage.length]") == [0, 0]
    assert_sound(page, server)


@pytest.mark.parametrize(
    ("key", "reason"), [(None, "wants a key"), (f"{KEY}-not", "not one of this server")]
)
def test_swagger_ui_says_that_a_key_is_wanted(
    server: RunningServer, page: chromium.Page, key: str | None, reason: str
) -> None:
    page.open(f"{server.url}/docs")
    if key is not None:
        authorize(page, key)
    try_sample(page)
    assert execute(page).startswith("401")
    page.until(f"document.querySelector('{SAMPLE}').innerText.includes('{reason}')")
    assert_sound(page, server)


def test_pages_follow_the_scheme_and_fit_a_phone(
    server: RunningServer, page: chromium.Page
) -> None:
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    for path in ("/ui", "/docs"):
        page.open(f"{server.url}{path}")
        for dark in (True, False):
            page.resize(390, dark=dark)
            page.until(
                f"matchMedia('(prefers-color-scheme: dark)').matches === {str(dark).lower()}"
            )
            page.until(f"{scheme}.includes('{'dark' if dark else 'light'}')")
    page.open(server.url)
    give_key(page, KEY)
    page.until("document.querySelector('#calls').checkVisibility()")
    page.run("model.value = 'rings'; model.dispatchEvent(new Event('change'))")
    page.click("#draw button")
    page.until("plot.checkVisibility()")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert_sound(page, server)


@pytest.mark.parametrize("path", ["/ui", "/docs"])
def test_the_policy_stops_what_is_not_this_servers(
    server: RunningServer, page: chromium.Page, path: str
) -> None:
    page.open(f"{server.url}{path}")
    for code in (
        "document.head.append(Object.assign(document.createElement('script'), {text: 'x = 1'}))",
        "document.body.innerHTML += '<p style=\"color: red\">'",
        "fetch('http://127.0.0.2:1/').catch(() => {})",
    ):
        found = len(page.faults())
        page.run(code)
        assert len(page.faults()) > found, code
    assert page.run("typeof x") == "undefined"
