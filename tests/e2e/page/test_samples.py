"""Samples as the page shows them: at a temperature, and on their way from the noise."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until

pytestmark = MARKS

SEED = 7
CLOSE = {"rtol": 1e-4, "atol": 2e-4}


def sample(server: RunningServer, model: str, **fields: Any) -> dict[str, np.ndarray]:
    """What the service itself draws."""
    fields = {"model": model, "seed": SEED, **fields}
    answer = httpx.post(f"{server.url}/sample", json=fields, timeout=60)
    answer.raise_for_status()
    return {name: np.array(value) for name, value in answer.json().items()}


def look(page: Page, server: RunningServer, model: str, count: int, **state: object) -> None:
    state = {"temperature": 0.7, **state}
    open_view(page, server, model, "samples", seed=SEED, count=count, **state)
    expect(page.locator("#drawn")).to_contain_text(f"seed {SEED}, {count} samples at T = 0.70")


def move(page: Page, slider: str, value: float) -> None:
    page.evaluate(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input'))")


def seek(page: Page, progress: float, state: str) -> None:
    """Go to a place between noise and data."""
    move(page, "progress", progress)
    # The first states wait for torch.
    expect(page.locator("#state")).to_contain_text(state, timeout=30_000)


def saved(page: Page, kind: str) -> bytes:
    with page.expect_download() as download:
        page.locator(f"#save-{kind}").click()
    assert download.value.suggested_filename.endswith(f"-seed-{SEED}.{kind}")
    return Path(download.value.path()).read_bytes()


def rows(page: Page) -> np.ndarray:
    """What is seen, by the file that is downloaded."""
    return np.loadtxt(io.BytesIO(saved(page, "csv")), delimiter=",", skiprows=1, ndmin=2)


def seen(page: Page, canvas: str) -> np.ndarray:
    """The pixels of a canvas, with their opacity."""
    _, _, encoded = page.evaluate(f"{canvas}.toDataURL()").partition(",")
    return np.array(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA"))


def axes(page: Page) -> tuple[Any, Any]:
    ends, box = page.evaluate("[plot.dataset.ends, plot.dataset.box].map(JSON.parse)")
    return ends, box


def check_points(page: Page, points: np.ndarray) -> None:
    """There is a point on the canvas for each of these, and hardly anything else."""
    ((left, right), (bottom, top)), (x0, x1, y0, y1) = axes(page)
    across = x0 + (points[:, 0] - left) / (right - left) * (x1 - x0)
    up = y0 + (points[:, 1] - bottom) / (top - bottom) * (y1 - y0)
    pixels = seen(page, "plot").astype(int)
    is_coloured = (pixels[:, :, 0] > pixels[:, :, 2] + 30) & (pixels[:, :, 3] > 100)
    assert is_coloured[up.round().astype(int), across.round().astype(int)].all()
    assert is_coloured.sum() <= 16 * len(points)


def check_morph(page: Page, server: RunningServer, model: str, said: list[str], **more: Any) -> Any:
    """The noise, the middle, and just before the data; each is what the service says."""
    expected = sample(server, model, temperature=0.7, **more)
    states, x = expected["trajectory"], expected["x"]
    states = states.reshape(*states.shape[:2], -1)
    np.testing.assert_allclose(states[:, -1], x.reshape(len(x), -1), rtol=0, atol=0)
    for progress, text in zip((0, 0.5, 0.995), said, strict=True):
        seek(page, progress, text)
        place = progress * (states.shape[1] - 1)
        first = int(place)
        share = place - first
        between = states[:, first] * (1 - share) + states[:, first + 1] * share
        scale = np.abs(states).max()
        np.testing.assert_allclose(rows(page) / scale, between / scale, **CLOSE)
    return states


def test_points_move_smoothly_with_the_temperature(server: RunningServer, page: Page) -> None:
    look(page, server, "moons", 40)
    before = sample(server, "moons", num_samples=40, temperature=0.7)["x"]
    np.testing.assert_allclose(rows(page), before, **CLOSE)
    check_points(page, before)
    ends = axes(page)
    page.locator("#temperature").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#temperature-value")).to_have_text("0.71")
    expect(page.locator("#drawn")).to_contain_text("T = 0.71")
    assert "temperature=0.71" in page.url
    after = sample(server, "moons", num_samples=40, temperature=0.71)["x"]
    np.testing.assert_allclose(rows(page), after, **CLOSE)
    check_points(page, after)
    assert 0 < np.abs(after - before).max() < 0.1
    assert axes(page) == ends
    label = page.locator("#plot").get_attribute("aria-label") or ""
    assert f"x1 from {float(f'{after[:, 0].min():.3g}'):g} to " in label


def test_points_of_the_plane_come_from_noise(server: RunningServer, page: Page) -> None:
    look(page, server, "moons", 40)
    said = [
        "the noise, no layer of 5",
        "3 of 5 layers applied, the last a Coupling",
        "about 5 of 5",
    ]
    states = check_morph(page, server, "moons", said, num_samples=40, trajectory=6)
    seek(page, 0, "the noise")
    check_points(page, states[:, 0])
    seek(page, 1, "The data")
    check_points(page, states[:, -1])


@AT_LENGTH
def test_playing_goes_on_and_back_and_stops(server: RunningServer, page: Page) -> None:
    look(page, server, "moons", 40)
    page.locator("#samples-play").click()
    until(page, "+progress.value > 0.05 && +progress.value < 0.9")
    page.locator("#samples-play").click()
    expect(page.locator("#samples-play")).to_have_text("Play")
    stopped = page.evaluate("+progress.value")
    page.locator("#backwards").check()
    page.locator("#samples-play").click()
    until(page, f"+progress.value < {stopped}")
    page.locator("#samples-play").click()
    page.emulate_media(reduced_motion="reduce")
    page.locator("#backwards").uncheck()
    seek(page, 0, "the noise")
    page.locator("#samples-play").click()
    stops = {until(page, f"+progress.value > {least} && progress.value") for least in (0, 0.21)}
    assert stops == {"0.2", "0.4"}


@AT_LENGTH
def test_rows_of_a_table_are_points_and_numbers(server: RunningServer, page: Page) -> None:
    look(page, server, "magic", 30, up=2)
    x = sample(server, "magic", num_samples=30, temperature=0.7)["x"]
    check_points(page, x[:, [0, 2]])
    cells = "[...document.querySelectorAll('#samples-table tr')].map(row => row.innerText)"
    head, *lines = [line.split("\t") for line in page.evaluate(cells)]
    assert head[:2] == ["fLength", "fWidth"]
    np.testing.assert_allclose(np.array(lines, float), x[:8], rtol=1e-3)
    page.locator("#across").select_option("fAsym")
    check_points(page, x[:, [5, 2]])
    said = ["the noise, no layer of 8", "4 of 8 layers", "about 8 of 8"]
    check_morph(page, server, "magic", said, num_samples=30, trajectory=9)
    page.set_viewport_size({"width": 375, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def drawn_by_the_server(server: RunningServer, model: str, **fields: Any) -> np.ndarray:
    fields = {"model": model, "seed": SEED, "temperature": 0.7, **fields}
    answer = httpx.post(f"{server.url}/sample", json=fields, headers={"Accept": "image/png"})
    return np.array(Image.open(io.BytesIO(answer.content)).convert("RGB"))


@AT_LENGTH
def test_pictures_look_as_the_server_draws_them(server: RunningServer, page: Page) -> None:
    look(page, server, "digits-glow", 4)
    expected = drawn_by_the_server(server, "digits-glow", num_samples=4)
    # A value that lies between two levels may be rounded to either.
    near = np.abs(seen(page, "picture")[:, :, :3].astype(int) - expected) <= 1
    assert near.all()
    file = np.array(Image.open(io.BytesIO(saved(page, "png"))).convert("RGB"))
    np.testing.assert_array_equal(file, seen(page, "picture")[:, :, :3])
    label = f"4 pictures drawn from digits-glow, seed {SEED}, temperature 0.7"
    expect(page.locator("#picture")).to_have_attribute("aria-label", label)
    x = sample(server, "digits-glow", num_samples=4, temperature=0.7)["x"]
    np.testing.assert_allclose(np.load(io.BytesIO(saved(page, "npy"))), x, rtol=1e-3, atol=5e-2)
    states = sample(server, "digits-glow", num_samples=4, temperature=0.7, trajectory=32)
    seek(page, 0, "the noise, no layer of 50")
    first = states["trajectory"][0, 0, 0]
    near = (
        np.abs(seen(page, "picture")[:28, :28, 0].astype(int) - np.clip(np.rint(first), 0, 255))
        <= 1
    )
    assert near.all()


@AT_LENGTH
def test_a_continuous_flow_is_seen_in_time(server: RunningServer, page: Page) -> None:
    look(page, server, "pinwheel", 20)
    said = ["time 1.000: the noise is at 1, the data at 0", "time 0.500", "time 0.005"]
    states = check_morph(page, server, "pinwheel", said, num_samples=20, trajectory=16)
    seek(page, 0, "time 1.000")
    check_points(page, states[:, 0])


@AT_LENGTH
def test_samples_and_their_noise_are_of_the_chosen_class(server: RunningServer, page: Page) -> None:
    look(page, server, "digits-classes", 2)
    page.evaluate("drawn.textContent = ''")
    page.locator("#label").select_option("2")
    expected = drawn_by_the_server(server, "digits-classes", num_samples=2, context=2)
    other = drawn_by_the_server(server, "digits-classes", num_samples=2, context=0)
    assert np.abs(expected.astype(int) - other).max() > 5
    pixel = expected[0, 0, 0]
    until(
        page, f"Math.abs(picture.getContext('2d').getImageData(0, 0, 1, 1).data[0] - {pixel}) < 2"
    )
    assert (np.abs(seen(page, "picture")[:, :, :3].astype(int) - expected) <= 1).all()
    said = ["the noise", "layers applied", "layers applied"]
    check_morph(page, server, "digits-classes", said, num_samples=2, context=2, trajectory=64)


@AT_LENGTH
def test_another_draw_has_another_seed_and_too_many_are_refused(
    server: RunningServer, page: Page
) -> None:
    look(page, server, "moons", 40)
    page.locator("#another").click()
    expect(page.locator("#drawn")).not_to_contain_text(f"seed {SEED},")
    seed = page.locator("#seed").input_value()
    expect(page.locator("#drawn")).to_contain_text(f"seed {seed}, 40 samples")
    assert f"seed={seed}" in page.url
    page.locator("#count").fill("99999999")
    page.locator("#count").press("Enter")
    expect(page.locator("#count-message")).to_contain_text("num_samples: expected at most")


@AT_LENGTH
def test_wrong_numbers_are_said_beside_the_field_and_kept_out_of_the_address(
    server: RunningServer, page: Page
) -> None:
    open_view(page, server, "moons", "samples", count=-1, seed=-2)
    expect(page.locator("#count")).to_have_value("2000")
    expect(page.locator("#seed")).to_have_value("1")
    for field, wrong in (("count", "1.5"), ("count", "-1"), ("seed", "-3")):
        page.locator(f"#{field}").fill(wrong)
        page.locator(f"#{field}").blur()
        expect(page.locator(f"#{field}-message")).not_to_be_empty()
        assert f"{field}={wrong}" not in page.url
    page.locator("#count").fill("7")
    page.locator("#seed").fill("4")
    page.locator("#seed").blur()
    expect(page.locator("#drawn")).to_contain_text("seed 4, 7 samples")
    expect(page.locator("#count-message")).to_be_empty()


@AT_LENGTH
def test_a_link_to_a_model_that_is_gone_says_so(server: RunningServer, page: Page) -> None:
    page.goto("about:blank")
    page.goto(f"{server.url}/ui#model=nothere&view=samples&count=3")
    facts = page.locator("#facts")
    expect(facts).to_contain_text("No model nothere is served here; moons is shown.")
    assert "nothere" not in page.url
    assert page.url.endswith("#view=samples")
    expect(page.locator("#count")).to_have_value("2000")
