"""The request panel: its programs, run as they stand, get what the page got."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until

pytestmark = MARKS

API = "import('/static/page/api.js')"
# What node prints is what was given to console.log, whole.
PRELUDE = """console.log = value => process.stdout.write(value instanceof Uint8Array
  ? Buffer.from(value).toString("base64") : typeof value === "string" ? value
  : JSON.stringify(value));"""
RUNNERS = {
    "curl": ("curl", "program.sh", lambda file: ["sh", file]),
    "Python": (sys.executable, "program.py", lambda file: [sys.executable, file]),
    "JavaScript": ("node", "program.mjs", lambda file: ["node", "-r", "./prelude.cjs", file]),
}


def program(page: Page, language: str) -> str:
    if not page.locator("#request").get_attribute("open"):
        page.evaluate("document.querySelector('#request').open = true")
        until(page, "document.querySelector('#which').options.length > 0")
    page.locator("#language").select_option(language)
    return page.locator("#program").inner_text()


def run(page: Page, language: str, folder: Path, key: str = "") -> bytes:
    """Run what the panel shows, beside the file that it offers, and give what was answered."""
    command, name, words = RUNNERS[language]
    if shutil.which(command) is None:
        pytest.skip(f"no {command} here")
    text = program(page, language).replace("YOUR-KEY", key)
    (folder / name).write_text(text, "utf-8")
    (folder / "prelude.cjs").write_text(PRELUDE)
    for old in folder.glob("answer.*"):
        old.unlink()
    link = page.locator("#body-file")
    if link.is_visible():
        with page.expect_download() as download:
            link.click()
        download.value.save_as(folder / download.value.suggested_filename)
    done = subprocess.run(words(name), cwd=folder, capture_output=True, timeout=60)
    assert done.returncode == 0, (text, done.stderr.decode())
    (answer,) = list(folder.glob("answer.*")) or [None]
    if answer is not None:
        return answer.read_bytes()
    is_bytes = language == "JavaScript" and "arrayBuffer" in text
    return base64.b64decode(done.stdout) if is_bytes else done.stdout


def same(language: str, got: bytes, wanted: bytes) -> bool:
    """Whether an answer is the page's; Python prints what JSON says as Python writes it."""
    if not wanted.startswith(b"{"):
        return got == wanted
    return (
        (str(json.loads(wanted)) + "\n").encode() == got
        if language == "Python"
        else (json.loads(got) == json.loads(wanted))
    )


def sent(page: Page, code: str) -> bytes:
    """Let the page ask, as its views do, and give the bytes of the answer."""
    code = f"{API}.then(api => {code}).then(answer => answer.arrayBuffer())"
    numbers: list[int] = page.evaluate(f"{code}.then(bytes => [...new Uint8Array(bytes)])")
    return bytes(numbers)


CALLS = {
    "JSON": "api.call('log_prob', {model: 'moons', x: [[0, 1], [0.5, -0.25]]})",
    "long JSON": "api.call('log_prob', {model: 'moons', x: Array(500).fill([0, 1])})",
    "npy": "api.call('encode', {model: 'moons'}, {accept: 'application/x-npy', "
    "rows: {data: Float32Array.of(0, 1, 2, 3), shape: [2, 2]}})",
    "PNG": "api.call('sample', {model: 'digits-glow', num_samples: 4, seed: 3, scale: 2}, "
    "{accept: 'image/png'})",
}
# Of other kinds of model, each by a program of another language.
OF_OTHERS = {
    "curl": "api.call('score', {model: 'magic', x: [Array(10).fill(1.5)], alpha: 0.05})",
    "Python": "api.call('encode', {model: 'pinwheel', x: [[0.5, 1]]})",
    "JavaScript": "api.call('sample', {model: 'digits-classes', context: 2, num_samples: 1, "
    "seed: 3}, {accept: 'application/x-npy'})",
}


@AT_LENGTH
@pytest.mark.parametrize("call", CALLS)
def test_each_program_gets_what_the_page_got(
    server: RunningServer, page: Page, tmp_path: Path, call: str
) -> None:
    page.goto(f"{server.url}/ui#model=moons&view=samples")
    page.locator("#view-samples").wait_for()
    page.wait_for_load_state("networkidle")
    wanted = sent(page, CALLS[call])
    for language in RUNNERS:
        assert same(language, run(page, language, tmp_path), wanted), language
    expect(page.locator("#copied")).to_be_empty()


@AT_LENGTH
def test_programs_ask_other_kinds_of_model(
    server: RunningServer, page: Page, tmp_path: Path
) -> None:
    page.goto(f"{server.url}/ui#model=moons&view=samples")
    page.locator("#view-samples").wait_for()
    page.wait_for_load_state("networkidle")
    for language, call in OF_OTHERS.items():
        wanted = sent(page, call)
        assert same(language, run(page, language, tmp_path), wanted), language


@AT_LENGTH
def test_what_was_clicked_is_listed(server: RunningServer, page: Page, tmp_path: Path) -> None:
    open_view(page, server, "moons", "trust", **{"trip-count": 3})
    until(page, "document.querySelectorAll('#ledger tr').length > 1")
    assert "/decode?model=moons" in program(page, "curl")
    which = page.locator("#which option")
    heads = [text.split(",")[0] for text in which.all_inner_texts()]
    assert heads[:4] == [
        "the last: POST decode",
        "2: POST encode",
        "3: POST sample",
        "4: GET models/moons",
    ]
    back = run(page, "Python", tmp_path)
    page.locator("#which").select_option(index=2)
    x = run(page, "curl", tmp_path)
    assert back[:6] == x[:6] == b"\x93NUMPY"
    assert len(back) == len(x) == 128 + 3 * 2 * 4
    page.locator("#which").select_option(index=3)
    facts: Any = json.loads(run(page, "curl", tmp_path))
    assert facts["name"] == "moons"


@AT_LENGTH
def test_rows_in_several_requests_are_said_to_be(server: RunningServer, page: Page) -> None:
    page.goto(f"{server.url}/ui#model=moons&view=samples")
    page.locator("#view-samples").wait_for()
    page.wait_for_load_state("networkidle")
    rows = "{data: new Float32Array(40000), shape: [20000, 2]}"
    page.evaluate(f"{API}.then(api => api.callRows('encode', {{model: 'moons'}}, {rows}))")
    assert program(page, "Python").startswith("# rows 16384 to 19999 of 20000: ")
    page.locator("#which").select_option(index=1)
    assert program(page, "JavaScript").startswith("// rows 0 to 16383 of 20000: ")
