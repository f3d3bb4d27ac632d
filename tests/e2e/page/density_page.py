"""What the view of the density shows: pixels, numbers and the row."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import until

MEASURES = "performance.getEntriesByType('measure')"
IS_FINE = f"{MEASURES}.some(measure => measure.name === 'density: fine map')"
# Of canvases, the colours of some pixels each; and what stands at the ends of the legend, since
# both change while a map becomes finer.
PIXELS = """asked => [
  ...asked.map(([id, places]) => {
    const canvas = document.querySelector(id);
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const pen = copy.getContext("2d", { willReadFrequently: true });
    pen.drawImage(canvas, 0, 0);
    return places.map(([x, y]) => [...pen.getImageData(x, y, 1, 1).data.slice(0, 3)]);
  }),
  ["density-low", "density-high"].map(id =>
    Number(document.getElementById(id).textContent.replace("≤ ", ""))),
]"""
MAP, SCALE = "#density-x .map", "#density-scale"


def ask(server: RunningServer, operation: str, **fields: object) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}/{operation}", json=fields, timeout=60)
    answer.raise_for_status()
    given: dict[str, Any] = answer.json()
    return given


Places = Sequence[tuple[int, int]]


def colours(page: Page, canvas: str, places: Places) -> list[list[int]]:
    found: list[list[int]] = page.evaluate(PIXELS, [[canvas, [list(place) for place in places]]])[0]
    return found


def fine(count: int, low: float, high: float) -> np.ndarray:
    return low + (np.arange(count) + 0.5) * (high - low) / count


def assert_painted(page: Page, cells: np.ndarray, log_prob: Sequence[float]) -> None:
    """The colour of each cell is that of its log p in the legend."""
    places = [[int(x), 199 - int(y)] for x, y in cells]
    legend = [[at, 0] for at in range(160)]
    painted, scale, (low, high) = page.evaluate(PIXELS, [[MAP, places], [SCALE, legend]])
    shares = np.clip((np.asarray(log_prob) - low) / (high - low), 0, 1)
    wanted = np.array(scale)[np.round(shares * 159).astype(int)]
    assert len({tuple(colour) for colour in painted}) > len(painted) / 3
    np.testing.assert_allclose(painted, wanted, atol=6)


def drag(page: Page, plane: str, start: Sequence[float], end: Sequence[float]) -> None:
    """Drag with the pointer, between shares of the plane's sides."""
    canvas = page.locator(f"{plane} .map")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    places = [
        (box["x"] + a * box["width"], box["y"] + (1 - b) * box["height"]) for a, b in (start, end)
    ]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=12)
    page.mouse.up()


def readings(page: Page) -> list[Decimal]:
    """The base log-density, the log-det and their sum, as they stand on the page."""
    cells = (page.locator(f"#density-{name}") for name in ("base", "log-det", "log-p"))
    return [Decimal(cell.inner_text()) for cell in cells]


def row_of(page: Page) -> list[float]:
    row: list[float] = json.loads(page.locator("#density-row").input_value())
    return row


def assert_itemised(server: RunningServer, page: Page, model: str, **fields: object) -> list[float]:
    """The numbers on the page add up, and are those of the API for the row in the field."""
    row = row_of(page)
    given = {"model": model, "x": [row], **fields}
    log_prob = ask(server, "log_prob", **given)["log_prob"][0]
    shown = "Number(document.getElementById('density-log-p').textContent)"
    until(page, f"Math.abs({shown} - {log_prob}) < 1e-3")
    encoded = ask(server, "encode", **given)
    z: list[float] = encoded["z"][0]
    base, log_det, log_p = readings(page)
    assert base + log_det == log_p
    assert float(log_det) == pytest.approx(encoded["log_det"][0], abs=1e-3)
    normal = -0.5 * float(np.square(z).sum()) - 0.5 * len(z) * np.log(2 * np.pi)
    assert float(base) == pytest.approx(normal, abs=1e-3)
    return z


def assert_latent(page: Page, z: Sequence[float]) -> None:
    assert shown_latent(page) == pytest.approx(z, abs=2e-4)


def shown_latent(page: Page) -> list[float]:
    text = page.locator("#density-z-text").inner_text()
    return [float(part.split(" ")[1]) for part in text.split(", ")]
