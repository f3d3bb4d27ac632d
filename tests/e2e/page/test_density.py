"""The density in a browser: its map, its lines, and the point that is dragged."""

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until
from tests.e2e.page.density_page import (
    IS_FINE,
    MEASURES,
    SCALE,
    ask,
    assert_itemised,
    assert_latent,
    assert_painted,
    colours,
    drag,
    fine,
    readings,
    row_of,
    shown_latent,
)

pytestmark = MARKS

# How many pixels of what is drawn over the map are not clear.
INK = """(() => {
  const canvas = document.querySelector("#density-x .ink");
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  return pen.getImageData(0, 0, canvas.width, canvas.height).data
    .filter((value, at) => at % 4 === 3 && value > 0).length;
})()"""
# Where in x the pixels of a colour, over the map, are.
INKED = """colour => {
  const canvas = document.querySelector("#density-x .ink");
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  const wanted = pen.getImageData(0, 0, 1, 1).data;
  pen.clearRect(0, 0, 1, 1);
  pen.drawImage(canvas, 0, 0);
  const { data, width, height } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const map = document.querySelector("#density-x .map");
  const found = [];
  for (let at = 0; at < data.length; at += 4) {
    if (wanted.some((value, index) => Math.abs(value - data[at + index]) > 2)) continue;
    const [x, y] = [at / 4 % width, Math.floor(at / 4 / width)];
    const across = (x + 0.5 - map.offsetLeft) / map.clientWidth;
    const up = 1 - (y + 0.5 - map.offsetTop) / map.clientHeight;
    found.push([-1.5 + 4 * across, -1 + 2.5 * up]);
  }
  return found;
}"""


def move_over(page: Page, share: Sequence[float]) -> None:
    canvas = page.locator("#density-x .map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + share[0] * box["width"], box["y"] + (1 - share[1]) * box["height"])


def test_colours_of_the_map_are_the_models_log_p(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "density", window="-1.5,2.5,-1,1.5")
    until(page, IS_FINE)
    cells = np.random.default_rng(3).integers(0, 200, (20, 2))
    x = np.stack([fine(200, -1.5, 2.5)[cells[:, 0]], fine(200, -1, 1.5)[cells[:, 1]]], 1)
    log_prob = ask(server, "log_prob", model="moons", x=x.tolist())["log_prob"]
    assert_painted(page, cells, log_prob)
    share = (cells[7] + 0.5) / 200
    move_over(page, share)
    where = ", ".join(f"x{side + 1} {x[7, side]:g}" for side in range(2))
    expect(page.locator("#density-hover")).to_contain_text(f"Here: {where}: log p ")
    hovered = page.locator("#density-hover").inner_text().split("log p ")[1].removesuffix(" nats")
    assert float(hovered) == pytest.approx(log_prob[7], abs=1e-3, rel=1e-5)


@AT_LENGTH
def test_other_features_stay_as_in_the_row(server: RunningServer, page: Page) -> None:
    row = ask(server, "sample", model="magic", num_samples=1, seed=8)["x"][0]
    given = {"row": json.dumps(row), "fx": "fSize", "fy": "fAlpha", "window": "1.9,2.6,-20,60"}
    open_view(page, server, "magic", "density", **given)
    until(page, IS_FINE)
    cells = np.random.default_rng(4).integers(20, 180, (20, 2))
    x = np.tile(row, (20, 1))
    x[:, 2], x[:, 8] = fine(200, 1.9, 2.6)[cells[:, 0]], fine(200, -20, 60)[cells[:, 1]]
    assert_painted(page, cells, ask(server, "log_prob", model="magic", x=x.tolist())["log_prob"])


def test_a_point_and_its_latent_follow_each_other(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "density", window="-1.5,2.5,-1,1.5", row="[0.5,0.25]")
    until(page, IS_FINE)
    assert_latent(page, assert_itemised(server, page, "moons"))
    drag(page, "#density-x", (0.5, 0.5), (0.2, 0.6))
    expect(page.locator("#density-row")).not_to_have_value("[0.5,0.25]")
    assert row_of(page) == pytest.approx([-0.7, 0.5], abs=0.02)
    assert_latent(page, assert_itemised(server, page, "moons"))
    before = page.locator("#density-row").input_value()
    drag(page, "#density-z", (0.5, 0.5), (0.75, 0.25))
    expect(page.locator("#density-row")).not_to_have_value(before)
    z = shown_latent(page)
    assert z == pytest.approx([1.8, -1.8], abs=0.04)
    row = ask(server, "decode", model="moons", z=[z])["x"][0]
    until(
        page,
        f"Math.abs(JSON.parse(document.getElementById('density-row').value)[0] - {row[0]}) < 1e-3",
    )
    assert row_of(page) == pytest.approx(row, abs=1e-3)
    assert_latent(page, assert_itemised(server, page, "moons"))
    assert json.loads(
        page.evaluate("new URLSearchParams(location.hash.slice(1)).get('row')")
    ) == row_of(page)


@AT_LENGTH
def test_keys_move_the_point_and_the_map(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "density", window="-1.5,2.5,-1,1.5", row="[0.5,0.25]")
    until(page, IS_FINE)
    page.locator("#density-x").focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    assert row_of(page) == pytest.approx([0.58, 0.5], abs=1e-6)
    assert_latent(page, assert_itemised(server, page, "moons"))
    log_p = readings(page)[2]
    expect(page.locator("#density-status")).to_have_text(f"x1 0.58, x2 0.5: log p {log_p} nats")
    label = page.locator("#density-x").get_attribute("aria-label")
    assert f"x1 0.58, x2 0.5: log p {log_p} nats" in str(label)
    page.keyboard.press("+")
    page.keyboard.press("d")
    window = page.evaluate("new URLSearchParams(location.hash.slice(1)).get('window')")
    low, high = 0.58 - 0.7 * 2.08, 0.58 + 0.7 * 1.92
    far = 0.2 * (high - low)
    assert list(map(float, window.split(",")))[:2] == pytest.approx(
        [low + far, high + far], abs=1e-4
    )
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "density-in"


@AT_LENGTH
def test_lines_hold_the_shares_that_they_say(server: RunningServer, page: Page) -> None:
    state = {"window": "-1.5,2.5,-1,1.5", "row": "[2.4,-0.9]", "samples": "false", "warp": "false"}
    open_view(page, server, "moons", "density", **state)
    caption = page.locator("#density-caption")
    expect(caption).to_contain_text("Lines hold 50 %")
    found = re.findall(r"(\d+) % \(log p ≥ (-?[\d.]+)\)", caption.inner_text())
    assert [share for share, _ in found] == ["50", "90", "99"]
    levels = [float(level) for _, level in found]
    log_prob = np.array(ask(server, "sample", model="moons", num_samples=8000, seed=77)["log_prob"])
    for (share, _), level in zip(found, levels, strict=True):
        assert np.mean(log_prob >= level) == pytest.approx(int(share) / 100, abs=0.03)
    until(page, IS_FINE)
    page.wait_for_timeout(100)
    places = page.evaluate(
        INKED,
        page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--contour')"),
    )
    assert len(places) > 200
    log_prob = np.array(ask(server, "log_prob", model="moons", x=places)["log_prob"])
    away = np.abs(log_prob[:, None] - np.array(levels)).min(1)
    assert np.quantile(away, 0.9) < 0.25
    without = page.evaluate(INK)
    page.locator("#density-samples").check()
    until(page, f"{INK} > {without} + 1000")


@AT_LENGTH
def test_a_table_shows_its_latents_as_bars(server: RunningServer, page: Page) -> None:
    open_view(page, server, "magic", "density", rowseed=5, fx="fSize", fy="fAlpha")
    expect(page.locator("#density-caption")).to_contain_text("of the density in this map")
    row = ask(server, "sample", model="magic", num_samples=1, seed=5)["x"][0]
    assert row_of(page) == pytest.approx(row, rel=1e-5)
    drag(page, "#density-x", (0.5, 0.5), (0.6, 0.4))
    moved = row_of(page)
    assert [
        index for index in range(10) if moved[index] != pytest.approx(row[index], rel=1e-5)
    ] == [2, 8]
    z = assert_itemised(server, page, "magic")
    bars = [f"z{index + 1}\n{value:.2f} σ" for index, value in enumerate(z)]
    last = page.locator("#density-bars li:last-child > span:last-child")
    expect(last).to_have_text(f"{z[-1]:.2f} σ")
    assert page.locator("#density-bars li").all_inner_texts() == bars


WRONG_ROWS = {
    "[1, 2": "expected a row as JSON, such as [0, 0]",
    "[1, 2, 3]": "expected 2 numbers, got 3",
    '{"x1": 1, "x3": 2}': "x2 is missing",
    '[1, "a"]': 'x2 is "a"',
}


@AT_LENGTH
def test_a_wrong_row_is_refused_beside_its_field(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "density")
    expect(page.locator("#density-log-p")).not_to_be_empty()
    row = page.locator("#density-row")
    for text, message in WRONG_ROWS.items():
        row.fill(text)
        row.press("Tab")
        expect(page.locator("#density-row-message")).to_contain_text(message)
    row.fill("[0.5, 0.25]")
    row.press("Tab")
    expect(page.locator("#density-row-message")).to_be_empty()
    expect(page.locator("#density-status")).to_contain_text("x1 0.5, x2 0.25")


@AT_LENGTH
def test_a_finger_drags_on_a_dark_phone(server: RunningServer, page: Page) -> None:
    page.set_viewport_size({"width": 375, "height": 800})
    page.emulate_media(color_scheme="dark")
    open_view(page, server, "moons", "density", window="-1.5,2.5,-1,1.5", row="[0.5,0.25]")
    until(page, IS_FINE)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    corner, dense = colours(page, SCALE, [(0, 0), (159, 0)])
    assert sum(corner) < 60 < 600 < sum(dense)
    canvas = page.locator("#density-x .map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    touches = page.context.new_cdp_session(page)
    touches.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, far in (
        *(("touchStart", 0), ("touchMove", 10), ("touchMove", 20), ("touchMove", 40)),
        ("touchEnd", None),
    ):
        points = [] if far is None else [{"x": x, "y": y + far}]
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    scrolled = page.evaluate("scrollY")
    until(page, "JSON.parse(document.getElementById('density-row').value)[1] < 0.2")
    assert row_of(page) == pytest.approx([0.5, 0.25 - 2.5 * 40 / box["height"]], abs=0.02)
    assert page.evaluate("scrollY") == scrolled
    assert_latent(page, assert_itemised(server, page, "moons"))


def drag_latent(page: Page, server: RunningServer, model: str, z: Sequence[float]) -> None:
    """Drag the latent halfway to the middle of its plane, where 0 is; x follows."""
    wide = 7.2  # of the plane, in σ
    share = [0.5 + value / wide for value in z]
    drag(page, "#density-z", share, [0.25 + value / 2 for value in share])
    moved = "Number(document.getElementById('density-z-text').textContent.split(/[ ,]+/)[1])"
    until(page, f"Math.abs({moved} - {z[0]} / 2) < 0.1")
    row = ask(server, "decode", model=model, z=[shown_latent(page)])["x"][0]
    until(
        page,
        f"Math.abs(JSON.parse(document.getElementById('density-row').value)[0] - {row[0]}) < 1e-3",
    )
    assert row_of(page) == pytest.approx(row, abs=2e-3)


@AT_LENGTH
def test_a_continuous_model_is_seen_coarse_first(server: RunningServer, page: Page) -> None:
    open_view(page, server, "pinwheel", "density", window="-4,4,-4,4", row="[0.5,1]")
    until(page, f"{MEASURES}.length > 0")
    cells = 16 * np.random.default_rng(5).integers(2, 10, (20, 2)) + 10
    x = fine(200, -4, 4)[cells]
    log_prob = ask(server, "log_prob", model="pinwheel", x=x.tolist())["log_prob"]
    assert_painted(page, cells, log_prob)
    page.locator("#density-x").focus()
    page.keyboard.press("ArrowUp")
    assert row_of(page) == pytest.approx([0.5, 1.08])
    assert_latent(page, assert_itemised(server, page, "pinwheel"))
    drag(page, "#density-x", (0.5625, 0.635), (0.7, 0.4))
    until(page, "JSON.parse(document.getElementById('density-row').value)[0] > 1")
    assert row_of(page) == pytest.approx([1.6, -0.8], abs=0.05)
    assert_latent(page, z := assert_itemised(server, page, "pinwheel"))
    drag_latent(page, server, "pinwheel", z)
