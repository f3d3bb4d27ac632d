"""Take the pictures of docs/page.md: each view of the page, as a browser shows it.

    python -m tools.screenshots [FOLDER]

A server with the zoo is started for them, and Debian's `chromium` is driven by Playwright; neither
reaches another host. Pictures have few colours, which keeps each below 100 KB.
"""

import io
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.process import RunningServer, serving

COLOURS = 64
MARGIN = 12
NINTH_ROW = "#score-table tbody tr:nth-child(9)"
FOLDER = Path(__file__).parent.parent / "docs" / "page"
ODD_ROW = [200, 150, 2.1, 0.8, 0.6, -250, 150, 90, 85, 440]


def _nothing(_: Page, __: RunningServer) -> None:
    pass


def _score_a_night(page: Page, _: RunningServer) -> None:
    page.locator("#score-file").set_input_files(FOLDER.parent / "night.csv")
    page.locator("#score-features").wait_for()


def _traffic(page: Page, server: RunningServer) -> None:
    """Ask for a while what the lines are to show."""
    with server.client() as http:
        for turn in range(60):
            rows = [[0.1 * turn % 2, 0.2]] * (1 + turn % 40)
            http.post("/log_prob", json={"model": "moons", "x": rows})
            http.post("/score", json={"model": "magic", "x": [ODD_ROW], "alpha": 0.01})
            page.wait_for_timeout(200)


def _open_the_request(page: Page, _: RunningServer) -> None:
    page.locator("#request summary").click()
    page.locator("#which").select_option(index=1)
    page.locator("#language").select_option("Python")
    page.locator("#request").scroll_into_view_if_needed()


@dataclass(frozen=True)
class Shot:
    """A picture: of which model and view, and what is done before it is taken.

    state: what else stands in the address.
    is_map: most of it are shades; of others each colour is kept, however little there is of it.
    end: the picture ends below this element, or where there is none below so many pixels.
    """

    name: str
    model: str
    view: str
    state: str = ""
    width: int = 1000
    height: int = 760
    scheme: Literal["light", "dark"] = "light"
    is_map: bool = False
    end: str | None = None
    act: Callable[[Page, RunningServer], None] = _nothing


SHOTS = (
    Shot("density", "moons", "density", is_map=True, end="#density-log-p"),
    Shot("density-table", "magic", "density", is_map=True, end="#density-log-p"),
    Shot("samples", "pinwheel", "samples", "&temperature=0.7"),
    Shot("interpolate", "digits-glow", "interpolate", end="#along"),
    Shot("score", "magic", "score", end=NINTH_ROW, act=_score_a_night),
    Shot("trust", "digits-glow", "trust", end="#ledger"),
    Shot("live", "moons", "live", scheme="dark", act=_traffic),
    Shot("request", "moons", "trust", act=_open_the_request, height=420),
    Shot("phone", "moons", "density", width=375, is_map=True, end="#density-log-p"),
)


def _take(browser: Browser, server: RunningServer, shot: Shot) -> bytes:
    page = browser.new_page(
        viewport={"width": shot.width, "height": shot.height}, color_scheme=shot.scheme
    )
    page.goto(f"{server.url}/ui#model={shot.model}&view={shot.view}{shot.state}")
    page.locator(f"#view-{shot.view}").wait_for()
    page.wait_for_timeout(2500)
    shot.act(page, server)
    page.wait_for_timeout(1500)
    taken = page.screenshot(full_page=shot.end is not None)
    if shot.end is not None:
        code = "end => document.querySelector(end).getBoundingClientRect().bottom + scrollY"
        taken = _cut(taken, math.ceil(page.evaluate(code, shot.end)) + MARGIN)
    page.close()
    return taken


def _cut(picture: bytes, height: int) -> bytes:
    cut, whole = io.BytesIO(), Image.open(io.BytesIO(picture))
    whole.crop((0, 0, whole.width, min(height, whole.height))).save(cut, "PNG")
    return cut.getvalue()


def _save(picture: bytes, file: Path, *, is_map: bool) -> None:
    method = Image.Quantize.MEDIANCUT if is_map else Image.Quantize.MAXCOVERAGE
    whole = Image.open(io.BytesIO(picture)).convert("RGB")
    whole.quantize(COLOURS, method, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    """Take all of them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("expected the command chromium (apt-get install chromium)")
    with (
        tempfile.TemporaryDirectory() as scratch,
        serving(Path(scratch) / "server.log") as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        for shot in SHOTS:
            started = time.monotonic()
            file = folder / f"{shot.name}.png"
            _save(_take(browser, server, shot), file, is_map=shot.is_map)
            seconds = time.monotonic() - started
            print(f"{file}: {file.stat().st_size / 1000:.0f} KB, {seconds:.1f} s")
        browser.close()


if __name__ == "__main__":
    main()
