"""The density in a browser: its map, its lines, and the point that is dragged."""

import json
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from playwright.sync_api import Page

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import MARKS, open_view, until

pytestmark = MARKS

MEASURES = "performance.getEntriesByType('measure')"
IS_FINE = f"{MEASURES}.some(measure => measure.name === 'density: fine map')"
# Of a canvas, the colours of some pixels.
PIXELS = """([id, places]) => {
  const canvas = document.querySelector(id);
  const copy = new OffscreenCanvas(canvas.width, canvas.height);
  const pen = copy.getContext("2d", { willReadFrequently: true });
  pen.drawImage(canvas, 0, 0);
  return places.map(([x, y]) => [...pen.getImageData(x, y, 1, 1).data.slice(0, 3)]);
}"""
MAP, SCALE = "#density-x .map", "#density-scale"


def ask(server: RunningServer, operation: str, **fields: object) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/{operation}", json=fields, timeout=60)
    answer.raise_for_status()
    return answer.json()


def colours(page: Page, canvas: str, places: Sequence[tuple[int, int]]) -> list[list[int]]:
    return page.evaluate(PIXELS, [canvas, [list(place) for place in places]])


def number(page: Page, id_: str) -> float:
    return float(page.locator(id_).inner_text().removeprefix("≤ ").removesuffix(" nats"))


def fine(count: int, low: float, high: float) -> np.ndarray:
    return low + (np.arange(count) + 0.5) * (high - low) / count


def assert_painted(page: Page, cells: np.ndarray, log_prob: Sequence[float]) -> None:
    """The colour of each cell is that of its log p in the legend."""
    low, high = number(page, "#density-low"), number(page, "#density-high")
    shares = np.clip((np.asarray(log_prob) - low) / (high - low), 0, 1)
    width = page.evaluate(f"document.querySelector('{SCALE}').width")
    legend = colours(page, SCALE, [(round(share * (width - 1)), 0) for share in shares])
    painted = colours(page, MAP, [(int(x), 199 - int(y)) for x, y in cells])
    assert len({tuple(colour) for colour in painted}) > len(painted) / 3
    np.testing.assert_allclose(painted, legend, atol=6)


def test_colours_of_the_map_are_the_models_log_p(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "density", window="-1.5,2.5,-1,1.5")
    until(page, IS_FINE)
    cells = np.random.default_rng(3).integers(0, 200, (20, 2))
    x = np.stack([fine(200, -1.5, 2.5)[cells[:, 0]], fine(200, -1, 1.5)[cells[:, 1]]], 1)
    assert_painted(page, cells, ask(server, "log_prob", model="moons", x=x.tolist())["log_prob"])


def test_other_features_stay_as_in_the_row(server: RunningServer, page: Page) -> None:
    row = ask(server, "sample", model="magic", num_samples=1, seed=8)["x"][0]
    given = {"row": json.dumps(row), "fx": "fSize", "fy": "fAlpha", "window": "1.9,2.6,-20,60"}
    open_view(page, server, "magic", "density", **given)
    until(page, IS_FINE)
    cells = np.random.default_rng(4).integers(20, 180, (20, 2))
    x = np.tile(row, (20, 1))
    x[:, 2], x[:, 8] = fine(200, 1.9, 2.6)[cells[:, 0]], fine(200, -20, 60)[cells[:, 1]]
    assert_painted(page, cells, ask(server, "log_prob", model="magic", x=x.tolist())["log_prob"])
