"""The view between two rows: its film, its ends, and what is said where they cannot be read."""

import io
import json
import re

import numpy as np
import pytest
from playwright.sync_api import Page, Request, expect

from benchmarks.process import RunningServer
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view, until
from tests.e2e.page.strips import (
    ask,
    choose,
    log_probs,
    path,
    pictures,
    pixels,
    png,
    sample,
    wait_for_film,
    wait_for_pixels,
)

pytestmark = MARKS


def test_the_film_is_the_decoded_slerp(server: RunningServer, page: Page) -> None:
    model = "digits-glow"
    open_view(page, server, model, "interpolate", a=5, b=9, frames=5, compare="true", t=0.25)
    texts = wait_for_film(page, 5)
    ends = np.concatenate([sample(server, model, seed) for seed in (5, 9)])
    ends = ends.round().clip(0, 255)
    rows, scores = path(server, model, ends, np.linspace(0, 1, 5))
    shown = pixels(page, "#film canvas")
    assert np.abs(shown - rows[:, 0].round().clip(0, 255)).max() <= 1
    assert (shown[[0, -1]] == ends[:, 0]).all()
    assert log_probs(texts) == pytest.approx(scores, abs=0.2)
    assert (pixels(page, "#between") == shown[1]).all()
    assert (pixels(page, "#ends .end-picture") == ends[:, 0]).all()
    expect(page.locator("#between")).to_have_attribute("aria-label", re.compile(r"^t 0\.25, log p"))

    blend = np.linspace(0, 1, 5)[:, None, None] * (ends[1] - ends[0]) + ends[0]
    assert np.abs(pixels(page, "#blend canvas") - blend.round()).max() <= 1
    said = log_probs(page.locator("#blend li").all_inner_texts())
    assert said == pytest.approx(ask(server, "log_prob", blend[:, None], model=model), abs=0.2)


@AT_LENGTH
@pytest.mark.parametrize("model", ["moons", "pinwheel"])
def test_the_path_over_samples_of_the_plane(server: RunningServer, page: Page, model: str) -> None:
    open_view(page, server, model, "interpolate", a=5, b=8, frames=5, t=1)
    texts = wait_for_film(page, 5)
    ends = np.concatenate([sample(server, model, seed) for seed in (5, 8)])
    rows, scores = path(server, model, ends, np.linspace(0, 1, 5))
    shown = [[float(number) for number in re.findall(r"-?[\d.]+", text)[:2]] for text in texts]
    np.testing.assert_allclose(shown, rows, rtol=6e-3, atol=1e-3)
    assert log_probs(texts) == pytest.approx(scores, abs=0.06)

    samples = ask(server, "sample", None, model=model, num_samples=1500, seed=0)
    points = np.concatenate([samples, rows])
    low, high = points.min(0), points.max(0)
    (picture,) = pictures(page, "#between")
    height, width, _ = picture.shape
    at = 0.5 + (rows - (low + high) / 2) / ((high - low) * 1.08)
    across, up = (at[:4] * (1, -1) * (width, height) + (0, height)).astype(int).T
    assert (picture[up, across, :3] == (10, 88, 202)).all()  # --accent


@AT_LENGTH
def test_a_line_for_each_feature_of_a_table(server: RunningServer, page: Page) -> None:
    open_view(page, server, "magic", "interpolate", frames=5, t=0.25)
    texts = wait_for_film(page, 5)
    ends = np.concatenate([sample(server, "magic", seed) for seed in (1, 2)])
    rows, scores = path(server, "magic", ends, np.linspace(0, 1, 5))
    assert log_probs(texts) == pytest.approx(scores, abs=0.06)
    captions = page.locator("#by-feature figcaption")
    expect(captions).to_have_count(10)

    def values() -> list[float]:
        return [float(text.split(" ")[1]) for text in captions.all_inner_texts()]

    assert captions.first.inner_text().startswith("fLength ")
    np.testing.assert_allclose(values(), rows[1], rtol=6e-3)
    page.locator("#film button").nth(3).click()
    expect(page.locator("#t")).to_have_value("0.75")
    np.testing.assert_allclose(values(), rows[3], rtol=6e-3)
    label = page.locator("#by-feature [role=img]").first.get_attribute("aria-label")
    assert label is not None
    said = [float(number) for number in re.findall(r"from (\S+) .* to (\S+) at", label)[0]]
    np.testing.assert_allclose(said, rows[[0, -1], 0], rtol=6e-3)


@AT_LENGTH
def test_a_picture_file_becomes_the_row_that_it_shows(server: RunningServer, page: Page) -> None:
    open_view(page, server, "digits-glow", "interpolate", frames=5)
    wait_for_film(page, 5)
    levels = sample(server, "digits-glow", 3)[0, 0].round().clip(0, 255)
    choose(page, "a", "three.png", png(levels))
    expect(page.locator("#about-a")).to_contain_text(
        "three.png: 28 x 28 as it came, as grey, 256 levels. Round trip"
    )
    assert (pixels(page, "#film li:first-child canvas")[0] == levels).all()
    choose(page, "b", "large.png", png(levels, (640, 480)))
    expect(page.locator("#about-b")).to_contain_text(
        "large.png: cropped to its middle 480 x 480, resized from 640 x 480 to 28 x 28"
    )
    page.locator("#invert-a").check()
    expect(page.locator("#about-a")).to_contain_text("light and dark swapped. Round trip")
    assert (pixels(page, "#film li:first-child canvas")[0] == 255 - levels).all()


WRONG = {
    "empty.png": (b"", "expected a picture, empty.png is empty"),
    "rows.csv": (b"1,2\n3,4\n", "rows.csv (text/csv) is none, or it is damaged"),
    "half.png": (png(np.zeros((28, 28)))[:40], "half.png (image/png) is none"),
}


def drop(page: Page, end: str, name: str, code: str) -> None:
    """Drop a file on an end; the code says what is in it."""
    page.evaluate(f"""() => {{
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([{code}], "{name}", {{ type: "image/png" }}));
      document.querySelector("#end-{end}").dispatchEvent(
        new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }}));
    }}""")


@AT_LENGTH
def test_a_file_may_be_dropped(server: RunningServer, page: Page) -> None:
    open_view(page, server, "digits-ffjord", "interpolate", frames=5)
    wait_for_film(page, 5)
    drop(page, "b", "huge.png", "new Uint8Array(21e6)")
    expect(page.locator("#file-b-message")).to_have_text(
        "expected a picture of at most 20 MB, huge.png has 21.0: save it smaller"
    )
    ramp = np.arange(64).reshape(8, 8) % 17 * 15
    drop(page, "b", "ramp.png", f"new Uint8Array({list(png(ramp))})")
    expect(page.locator("#about-b")).to_contain_text(
        "ramp.png: 8 x 8 as it came, as grey, 17 levels"
    )
    expect(page.locator("#file-b-message")).to_have_text("")
    levels = np.rint(ramp * 16 / 255)
    assert (pixels(page, "#film li:last-child canvas")[0] == np.rint(levels * 255 / 16)).all()


@AT_LENGTH
def test_wrong_files_get_a_message_beside_the_field(server: RunningServer, page: Page) -> None:
    open_view(page, server, "digits-glow", "interpolate", frames=5)
    wait_for_film(page, 5)
    for name, (body, message) in WRONG.items():
        choose(page, "b", name, body, "text/csv" if name.endswith("csv") else "image/png")
        expect(page.locator("#file-b-message")).to_contain_text(message)
    expect(page.locator("#file-b")).to_have_attribute("aria-invalid", "true")
    page.locator("#from-b").select_option("sample")
    expect(page.locator("#file-b-message")).to_have_text("")
    wait_for_film(page, 5)


@AT_LENGTH
def test_rows_as_json_and_what_is_wrong_with_them(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "interpolate", frames=5)
    wait_for_film(page, 5)
    page.locator("#from-a").select_option("json")
    for text, message in (
        ("[1, 2, 3]", "expected 2 numbers, got 3"),
        ('[1, "two"]', 'expected 2 numbers, got "two" among them'),
        ("[1,", "expected a row as JSON"),
    ):
        page.locator("#row-a").fill(text)
        page.locator("#use-a").click()
        expect(page.locator("#row-a-message")).to_contain_text(message)
    page.locator("#row-a").fill("[0.5, 0.25]")
    page.locator("#use-a").click()
    expect(page.locator("#film li").first).to_contain_text("(0.5, 0.25)")
    expect(page.locator("#row-a-message")).to_have_text("")

    page.locator("#model").select_option("magic")
    wait_for_film(page, 9)
    row = list(range(1, 11))
    page.locator("#from-a").select_option("json")
    page.locator("#row-a").fill(json.dumps(row))
    page.locator("#use-a").click()
    expect(page.locator("#about-a")).to_contain_text("Round trip")
    expect(page.locator("#by-feature [role=img]").first).to_have_attribute(
        "aria-label", re.compile("from 1 ")
    )

    page.locator("#model").select_option("digits-ffjord")  # rows of another shape
    expect(page.locator("#film canvas")).to_have_count(9)
    wait_for_film(page, 9)
    expect(page.locator("#from-a")).to_have_value("sample")
    assert pixels(page, "#film canvas").shape == (9, 8, 8)


@AT_LENGTH
def test_what_a_pen_draws_is_the_row_that_is_sent(server: RunningServer, page: Page) -> None:
    open_view(page, server, "digits-glow", "interpolate", frames=5)
    wait_for_film(page, 5)
    page.locator("#from-a").select_option("hand")
    expect(page.locator("#way")).to_have_text("A is not there yet: give it above.")
    box = page.locator("#hand-a").bounding_box()
    assert box is not None

    def is_encode(request: Request) -> bool:
        return "/encode?" in request.url

    with page.expect_request(is_encode) as sent:
        page.mouse.move(box["x"] + 40, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 40, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
    body = sent.value.post_data_buffer
    assert body is not None
    row = np.load(io.BytesIO(body))[0, 0]
    assert row[14, 7:20].min() == 255
    assert row[:10].max() == row[18:].max() == 0
    wait_for_film(page, 5)
    assert (pixels(page, "#film li:first-child canvas")[0] == row).all()
    before = page.evaluate("document.querySelector('#picture-a').toDataURL()")
    page.locator("#clear-a").click()
    until(page, f"document.querySelector('#picture-a').toDataURL() !== '{before}'")
    assert pixels(page, "#picture-a").max() == 0


@AT_LENGTH
def test_the_keyboard_alone_is_enough(server: RunningServer, page: Page) -> None:
    open_view(page, server, "digits-ffjord", "interpolate", frames=5)
    page.emulate_media(reduced_motion="reduce")
    wait_for_film(page, 5)
    page.locator("#frames").focus()
    page.keyboard.press("ArrowRight")
    wait_for_film(page, 6)
    assert "frames=6" in page.url
    page.locator("#t").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#t-shown")).to_contain_text(re.compile(r"^t 0\.6, log p -\d"))
    assert "t=0.6" in page.url
    page.locator("#between-play").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#t-shown")).to_contain_text("t 0.8, log p -")
    page.locator("#from-b").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#from-b")).to_have_value("hand")
    page.locator("#hand-b").focus()
    page.keyboard.press(" ")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    expect(page.locator("#hand-b")).to_have_attribute("aria-label", re.compile("pen down, 50 %"))
    hand = pixels(page, "#hand-b")[0]
    side = len(hand) // 8
    drawn = hand.reshape(8, side, 8, side).mean((1, 3))
    assert drawn[4:6, 3:5].max() > 100
    assert drawn[:, :2].max() == 0
    # Each key is followed by a film; it has 17 levels.
    wait_for_pixels(page, "#film li:last-child canvas", drawn, off=17)
    wait_for_film(page, 6)


@AT_LENGTH
def test_play_goes_on_by_itself_until_it_is_stopped(server: RunningServer, page: Page) -> None:
    open_view(page, server, "moons", "interpolate", t=0.25)
    wait_for_film(page, 9)
    page.locator("#between-play").click()
    until(page, "Number(t.value) > 0.35")
    expect(page.locator("#between-play")).to_have_text("Stop")
    page.locator("#between-play").click()
    expect(page.locator("#between-play")).to_have_text("Play")
    stopped = page.locator("#t").input_value()
    page.wait_for_timeout(150)
    assert page.locator("#t").input_value() == stopped
