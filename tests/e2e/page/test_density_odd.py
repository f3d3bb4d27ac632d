"""The density of models that the zoo has not: angles, whole numbers, classes of a table."""

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, expect

import models
from benchmarks.process import RunningServer, serving
from tests.cases import perturb
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until
from tests.e2e.page.density_page import (
    IS_FINE,
    MAP,
    SCALE,
    ask,
    assert_itemised,
    assert_painted,
    colours,
    drag,
    fine,
    row_of,
)

pytestmark = MARKS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Models of what the zoo has not: angles, whole numbers, classes of a table."""
    folder = tmp_path_factory.mktemp("odd")
    small = {"kind": "mlp", "widths": [6]}
    angles = {"event_shape": [2], "num_layers": 2, "circular": [0, 1], "conditioner": small}
    columns = {"kind": "dequantise_columns", "columns": [0]}
    scale = {"kind": "standardise", "mean": [3.5, 0, 1.5], "std": [2, 1, 1.2]}
    counts = {"event_shape": [3], "num_classes": 2, "preprocessing": [columns, scale]}
    for name, family, config in (
        ("angles", "nsf", angles),
        ("counts", "realnvp", {**counts, "num_layers": 2, "conditioner": small}),
    ):
        flow = perturb(models.build(family, config), 0.4).eval()
        models.save(flow, folder / "models" / name)
    with serving(folder / "server.log", str(folder / "models"), "--engine", "torch") as server:
        yield server


@AT_LENGTH
def test_what_lies_outside_of_the_support_is_told_apart(server: RunningServer, page: Page) -> None:
    open_view(page, server, "angles", "density", window="-5,5,-5,5", row="[4,0]")
    until(page, IS_FINE)
    expect(page.locator("#density-outside")).to_be_visible()
    expect(page.locator("#density-log-p")).to_have_text("−∞")
    (swatch,) = colours(page, "#density-outside canvas", [(8, 8)])
    inside, right, top = colours(page, MAP, [(100, 100), (180, 100), (100, 10)])
    assert inside != swatch == right == top
    legend = colours(page, SCALE, [(at, 0) for at in range(160)])
    assert all(np.abs(np.subtract(colour, swatch)).max() > 20 for colour in legend)


@AT_LENGTH
def test_whole_numbers_and_classes_of_a_table(server: RunningServer, page: Page) -> None:
    state = {"row": "[3,0.5,1]", "fx": "x1", "fy": "x2", "window": "-0.4,7.3,-4,4"}
    open_view(page, server, "counts", "density", **state, **{"class": 1})
    until(page, IS_FINE)
    assert page.evaluate(f"document.querySelector('{MAP}').width") == 8
    cells = np.stack([np.arange(20) % 8, np.random.default_rng(2).integers(50, 150, 20)], 1)
    x = np.stack([cells[:, 0], fine(200, -4, 4)[cells[:, 1]], np.ones(20)], 1).tolist()
    log_prob = ask(server, "log_prob", model="counts", x=x, context=1)["log_prob"]
    assert_painted(page, cells, log_prob)
    page.locator("#density-x").focus()
    page.keyboard.press("ArrowRight")
    assert row_of(page)[0] == 4
    assert_itemised(server, page, "counts", context=1)
    drag(page, "#density-x", (4.4 / 7.7, 0.5625), (2.4 / 7.7, 0.25))
    until(page, "JSON.parse(document.getElementById('density-row').value)[0] === 2")
    assert row_of(page) == pytest.approx([2, -2, 1], abs=0.06)
    assert_itemised(server, page, "counts", context=1)
    page.locator("#label").select_option("0")
    assert_itemised(server, page, "counts", context=0)
