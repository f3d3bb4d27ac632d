"""Whether a density can be trusted, as the page shows it: against the API's own numbers."""

import io
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until

pytestmark = MARKS

NPY = "application/x-npy"
# A model of each kind, and how many rows the page draws of it unasked.
MODELS = {"moons": 256, "magic": 256, "digits-glow": 16, "pinwheel": 16}


def ask(
    server: RunningServer, operation: str, rows: NDArray[Any] | None = None, **fields: Any
) -> NDArray[Any]:
    """The first output of a call, all in bytes."""
    body = io.BytesIO()
    headers = {"Accept": NPY}
    if rows is not None:
        np.save(body, rows)
        headers["Content-Type"] = NPY
    with server.client() as http:
        answer = http.post(
            f"/{operation}", params=fields, content=body.getvalue(), headers=headers
        ).raise_for_status()
    found: NDArray[Any] = np.load(io.BytesIO(answer.content))
    return found


def short(number: float) -> str:
    """A number as the page writes it."""
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    digits = f"{number:.2e}"
    mantissa, exponent = digits.split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if abs(number) < 1e-3 else f"{number:.3g}"


def lines(page: Page, table: str) -> list[list[str]]:
    found: list[list[str]] = page.evaluate(
        f"[...document.querySelectorAll('#{table} tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return found


def opened(page: Page, server: RunningServer, model: str, **state: object) -> None:
    open_view(page, server, model, "trust", **state)
    until(page, "document.querySelectorAll('#ledger tr').length > 1")


@AT_LENGTH
@pytest.mark.parametrize("model", MODELS)
def test_rows_come_back_and_the_ledger_adds_up(
    server: RunningServer, page: Page, model: str
) -> None:
    opened(page, server, model)
    x = ask(server, "sample", model=model, num_samples=MODELS[model], seed=0)
    back = ask(server, "decode", ask(server, "encode", x, model=model), model=model)
    errors = np.abs(back.astype(np.float64) - x)
    said = page.locator("#trip-result").inner_text()
    unit = "levels" if "digits" in model else "in the units of x"
    assert f"largest error {short(float(errors.max()))} {unit}" in said
    assert f"median {short(float(np.median(errors)))}; " in said
    above = np.count_nonzero(errors > 1e-3 * np.maximum(1, np.abs(x)))
    verdict = page.locator("#trip-verdict")
    expect(verdict).to_have_class("verdict no" if above else "verdict yes")
    expect(verdict).to_contain_text(f"{above} of " if above else "No number lost more than 0.001 ×")
    label = page.locator("#trip-histogram").get_attribute("aria-label") or ""
    counted = sum(int(count.replace(",", "")) for count in re.findall(r"([\d,]+) numbers", label))
    assert counted == np.count_nonzero(errors)
    head, *rows = lines(page, "ledger")
    assert head == [
        "row",
        "-D/2 ln 2π",
        "-|z|²/2",
        "preprocessing",
        "flow",
        "sum",
        "log p",
        "bits/dim",
    ]
    log_prob = ask(server, "log_prob", x, model=model)
    for index, row in enumerate(rows):
        *parts, total, stated, _ = map(float, row[1:])
        assert sum(parts) == pytest.approx(total, abs=0.03)
        assert stated == pytest.approx(total, abs=0.02)
        assert stated == pytest.approx(log_prob[index], abs=0.01)


def test_preprocessing_is_what_standardising_adds(server: RunningServer, page: Page) -> None:
    opened(page, server, "magic")
    with server.client() as http:
        (step,) = http.get("/models/magic").json()["config"]["preprocessing"]
    expected = -np.log(step["std"]).sum()
    assert float(lines(page, "ledger")[1][3]) == pytest.approx(expected, abs=1e-4)


@AT_LENGTH
def test_rows_of_ones_own_and_what_is_wrong_with_them(server: RunningServer, page: Page) -> None:
    opened(page, server, "magic", trip="own")
    rows = page.locator("#trip-rows")
    expect(rows).to_have_value("[0,0,0,0,0,0,0,0,0,0]")
    for text, message in (
        ("[1, 2]", "expected rows of 10 numbers, such as [0, 1, 2, …], got 2 numbers in all"),
        ("[1, ", "expected a row as JSON, such as [0, 1, 2, …]"),
        ('[1, "a"]', 'expected numbers, got "a"'),
    ):
        rows.fill(text)
        page.locator("#trip button").click()
        expect(page.locator("#trip-rows-message")).to_contain_text(message)
        expect(rows).to_have_attribute("aria-describedby", "trip-rows-message")
    rows.fill("[44.1, 18.3, 2.66, 0.35, 0.21, 40.6, 31.9, -15.1, 1.7, 252.5]")
    rows.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#trip-result")).to_contain_text("1 row of 10 numbers")
    expect(page.locator("#trip-rows-message")).to_be_empty()
    worst = lines(page, "trip-worst")
    assert {"fLength", "fDist"} < {line[0] for line in worst}


@AT_LENGTH
def test_the_pictures_of_a_round_trip_are_its_numbers(server: RunningServer, page: Page) -> None:
    opened(page, server, "digits-glow")
    seen = page.evaluate(
        """[...document.querySelectorAll('#trip-pictures canvas')].map(canvas => [...canvas
            .getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, at) => at % 4 === 0))"""
    )
    said = page.locator("#trip-result").inner_text()
    found = re.search(r"row (\d+), line (\d+), column (\d+)", said)
    assert found is not None
    row, line, column = map(int, found.groups())
    x = ask(server, "sample", model="digits-glow", num_samples=16, seed=0)[row].ravel()
    assert np.abs(np.asarray(seen[0]) - np.clip(x, 0, 255)).max() <= 0.5 + 1e-3
    assert seen[2] == pytest.approx(seen[0], abs=1)
    assert seen[3][28 * line + column] == 255


HELD_OUT = {
    **{"moons": "2,000", "pinwheel": "2,000", "magic": "1,233"},
    **{"digits-glow": "500", "digits-classes": "500"},
}


@AT_LENGTH
@pytest.mark.parametrize("model", HELD_OUT)
def test_the_card_says_what_the_server_states(
    server: RunningServer, page: Page, model: str
) -> None:
    opened(page, server, model)
    with server.client() as http:
        stated = http.get(f"/models/{model}").json()
    accuracy, calibration = stated["accuracy"], stated["calibration"]
    first = lines(page, "trust-accuracy")[1]
    assert first[1:] == [
        f"at most {short(accuracy['log_prob_promised_relative_error'])} × max(1, |log p|)",
        f"{short(accuracy['log_prob_max_relative_error'])} × max(1, |log p|)",
        f"8 golden, {HELD_OUT[model]} held out, 64 drawn rows",
    ]
    verdicts = page.locator("#verdicts-of-trust li")
    expect(verdicts.first).to_have_class("yes")
    expect(verdicts.filter(has_text="Replayed when it was loaded: 8 rows")).to_have_class("yes")
    if model == "magic":
        assert calibration["anomalies"]["statistics"]["neg_log_prob"]["auroc"] < 0.9
        expect(page.locator("#verdicts-of-trust .weak")).to_contain_text(
            f"known anomalies least from rows like the data: AUROC "
            f"{short(calibration['anomalies']['statistics']['neg_log_prob']['auroc'])}"
        )
    expect(page.locator("#verdicts-of-trust")).not_to_contain_text("icence")
    certificate = dict(lines(page, "trust-certificate"))
    for name, digest in accuracy["certificate"]["graphs_sha256"].items():
        assert certificate[f"SHA-256 of {name}"] == digest
    assert dict(lines(page, "trust-calibration-facts"))["id"] == calibration["id"]
    thresholds = [line[1] for line in lines(page, "trust-thresholds")[1:]]
    assert thresholds == [
        found["reason"] if found["threshold"] is None else short(found["threshold"])
        for found in calibration["thresholds"]
    ]
    probes = {(line[0], line[1]): line[2] for line in lines(page, "trust-probes")[1:]}
    for probe in calibration["probes"]:
        for name, statistic in probe["statistics"].items():
            assert probes[probe["what"], name].startswith(f"{short(statistic['auroc'])} (")
    expect(page.locator("#trust-provenance")).to_contain_text(stated["provenance"]["licence"])
    expect(page.locator("#trust-replay")).to_contain_text("8 rows whose answers were saved")


@AT_LENGTH
def test_operations_are_timed_when_it_is_asked_for(server: RunningServer, page: Page) -> None:
    opened(page, server, "moons")
    assert [line[1:3] for line in lines(page, "cost")[1:]] == [["once", "–"]] * 4
    page.locator("#cost-measure").click()
    expect(page.locator("#cost-says")).to_have_text("measured")
    head, *found = lines(page, "cost")
    assert head[3] == "1,024 rows, ms"
    assert [line[0] for line in found] == ["log_prob", "encode", "decode", "sample"]
    for _, _, one, full, rate in found:
        assert 0 < float(one) < float(full.replace(",", "")) * 10
        per_second = 1024 / float(full) * 1000
        assert float(rate.replace(",", "")) == pytest.approx(per_second, rel=0.01)


@AT_LENGTH
def test_rows_of_a_class_come_back(server: RunningServer, page: Page) -> None:
    open_view(page, server, "digits-classes", "trust", **{"class": 2, "trip-count": 5})
    until(page, "document.querySelectorAll('#ledger tr').length === 6")
    with server.client() as http:
        of = {"model": "digits-classes", "context": 2}
        x = http.post("/sample", json={**of, "num_samples": 5, "seed": 0}).json()["x"]
        log_prob = http.post("/log_prob", json={**of, "x": x}).json()["log_prob"]
        others = http.post("/log_prob", json={**of, "context": 0, "x": x}).json()["log_prob"]
    said = (
        "[...document.querySelectorAll('#ledger tr')].slice(1).map(row => row.cells[6].textContent)"
    )
    shown = [float(number) for number in page.evaluate(said)]
    assert shown == pytest.approx(log_prob, abs=0.01)
    assert shown != pytest.approx(others, abs=0.01)
    assert "5 rows of" in page.locator("#trip-result").inner_text()
    # Most pictures upside down are as likely as others to this model.
    expect(page.locator("#verdicts-of-trust .weak")).to_contain_text("images upside down")
