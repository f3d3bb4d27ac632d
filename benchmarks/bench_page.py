"""How soon the page shows something: its first paint, its maps, and log p under an arrow key.

A server with the zoo and Debian's `chromium`, driven by Playwright, on the same cores; times are
the browser's own (`performance`), so what Playwright takes is not in them.

    python -m benchmarks.bench_page [--turns 7]
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.harness import machine
from benchmarks.process import RunningServer, serving

OUT = Path("runs/benchmarks/page.json")
MODELS = ("moons", "magic", "pinwheel")
SECONDS = 180.0
SIDES = ("Left", "Right", "Up")
HEADINGS = (
    "model",
    "first paint",
    "first map of a zoom",
    "fine map of a zoom",
    "log p after a key",
)

PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)[0]"
MAPS = "performance.getEntriesByName('density: {} map').map(entry => entry.duration)"
# From the next key to the number that it changes, as a frame shows it.
LISTEN = """() => {
  const number = document.getElementById("density-log-p");
  window.took = null;
  let pressed;
  addEventListener("keydown", event => { pressed = event.timeStamp; },
    { once: true, capture: true });
  const observer = new MutationObserver(() => {
    observer.disconnect();
    requestAnimationFrame(() => { window.took = performance.now() - pressed; });
  });
  observer.observe(number, { childList: true, characterData: true, subtree: true });
}"""


def wait_for(page: Page, code: str) -> Any:
    """Evaluate until something true comes (the policy of the page forbids Playwright's own way)."""
    end = time.monotonic() + SECONDS
    while not (value := page.evaluate(code)):
        if time.monotonic() > end:
            raise TimeoutError(code)
        page.wait_for_timeout(20)
    return value


def open_map(browser: Browser, server: RunningServer, model: str) -> Page:
    """Open the density of a model, in a memory of its own, to its finest."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"{server.url}/ui#model={model}&view=density")
    wait_for(page, f"{MAPS.format('fine')}.length")
    return page


def zoom(page: Page) -> tuple[float, float]:
    """Zoom in by a key: ms to the first map, and to that of 200 x 200 points."""
    page.evaluate("performance.clearMeasures()")
    page.locator("#density-x").focus()
    page.keyboard.press("+")
    fine = wait_for(page, MAPS.format("fine"))[-1]
    return page.evaluate(MAPS.format("first"))[-1], fine


def move(page: Page, key: str) -> float:
    """Move the point by a key: ms to its log p."""
    page.locator("#density-x").focus()
    page.evaluate(LISTEN)
    page.keyboard.press(key)
    took: float = wait_for(page, "window.took")
    page.wait_for_timeout(100)
    return took


def measure(browser: Browser, server: RunningServer, model: str, turns: int) -> dict[str, float]:
    """Medians of so many turns, each in a page of its own."""
    found: list[tuple[float, ...]] = []
    for _ in range(turns):
        page = open_map(browser, server, model)
        found.append(
            (page.evaluate(PAINT), *zoom(page), median(move(page, f"Arrow{s}") for s in SIDES))
        )
        page.context.close()
    return dict(zip(HEADINGS[1:], map(median, zip(*found, strict=True)), strict=True))


def table(found: dict[str, dict[str, float]]) -> str:
    """Write the medians as lines of Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|---|" + "---:|" * (len(HEADINGS) - 1)]
    for model, times in found.items():
        numbers = " | ".join(f"{times[heading]:.0f} ms" for heading in HEADINGS[1:])
        lines.append(f"| {model} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all models, print the table and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    turns = parser.parse_args().turns
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("expected the command chromium (apt-get install chromium)")
    with (
        tempfile.TemporaryDirectory() as scratch,
        serving(Path(scratch) / "server.log") as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        found = {model: measure(browser, server, model, turns) for model in MODELS}
        browser.close()
    print(table(found))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"machine": machine(), "turns": turns, "ms": found}, indent=2))


if __name__ == "__main__":
    main()
