"""The view between two rows of a model with classes: a latent in every class, and a direction."""

import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect

import models
from benchmarks.process import RunningServer, serving
from tests.cases import perturb
from tests.e2e.page.browsing import AT_LENGTH, MARKS, open_view
from tests.e2e.page.strips import (
    Array,
    ask,
    choose,
    log_probs,
    path,
    pixels,
    png,
    sample,
    wait_for_film,
)

pytestmark = MARKS

GLYPHS = {
    "event_shape": [1, 8, 8],
    "num_levels": 2,
    "num_steps": 2,
    "hidden_channels": 8,
    "num_classes": 3,
    "preprocessing": [
        {"kind": "dequantise", "levels": 17},
        {"kind": "shift_scale", "scale": 1 / 17, "shift": -0.5},
    ],
}
OWN, FIRST, SECOND = 1, 2, 0  # the class of the row, and those of the direction


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One model of three classes, on 17 levels."""
    folder = tmp_path_factory.mktemp("classes")
    torch.manual_seed(0)
    flow = perturb(models.build("glow", GLYPHS).double(), 0.2).eval()
    models.save(flow, folder / "models" / "glyphs", dtype=torch.float32)
    with serving(folder / "server.log", str(folder / "models"), "--engine", "torch") as server:
        yield server


def levels(rows: Array) -> Array:
    return rows.round().clip(0, 16)


def grey(rows: Array) -> Array:
    """As a picture has them."""
    return np.rint(levels(rows[:, 0]) * (255 / 16))


def one_level_off(shown: Array, rows: Array) -> bool:
    """Whether a frame differs by more than the rounding of one level, or many do by that."""
    off = np.abs(shown - grey(rows))
    return bool(off.max() > 17 or (off > 1).mean() > 0.01)


def latents(server: RunningServer, **fields: int) -> Array:
    """Draw rows of a class and encode them as the row's."""
    rows = ask(server, "sample", None, model="glyphs", **{"num_samples": 1, **fields})
    return ask(server, "encode", levels(rows), model="glyphs", context=OWN)


@AT_LENGTH
def test_a_film_within_a_class(server: RunningServer, page: Page) -> None:
    open_view(page, server, "glyphs", "interpolate", frames=5, **{"class": OWN})
    texts = wait_for_film(page, 5)
    ends = levels(np.concatenate([sample(server, "glyphs", seed, context=OWN) for seed in (1, 2)]))
    rows, scores = path(server, "glyphs", ends, np.linspace(0, 1, 5), context=OWN)
    assert not one_level_off(pixels(page, "#film canvas"), rows)
    assert log_probs(texts) == pytest.approx(scores, abs=0.06)


@AT_LENGTH
def test_a_latent_in_every_class(server: RunningServer, page: Page) -> None:
    open_view(page, server, "glyphs", "interpolate", row=4, **{"class": OWN})
    expect(page.locator("#by-class li")).to_have_count(3)
    texts = page.locator("#by-class li").all_inner_texts()
    z = latents(server, seed=4, context=OWN)
    rows = ask(server, "decode", z.repeat(3, 0), model="glyphs", context="[0, 1, 2]")
    assert not one_level_off(pixels(page, "#by-class canvas"), rows)
    assert len(np.unique(rows[:, 0].round(), axis=0)) == 3
    scores = ask(server, "log_prob", rows, model="glyphs", context="[0, 1, 2]")
    assert log_probs(texts) == pytest.approx(scores, abs=0.06)
    assert [text.split("\n")[0] for text in texts] == ["0", "1 (its own)", "2"]

    picture = np.arange(64).reshape(8, 8) % 17
    choose(page, "row", "ramp.png", png(picture * 15))
    expect(page.locator("#about-row")).to_contain_text("ramp.png: 8 x 8 as it came")
    kept = np.rint(np.rint(picture * 15 * 16 / 255) * (255 / 16))
    expect(page.locator("#about-row")).to_contain_text("Round trip")
    assert (pixels(page, "#by-class canvas")[OWN] == kept).all()


@AT_LENGTH
def test_a_direction_from_class_to_class(server: RunningServer, page: Page) -> None:
    state = {"class": OWN, "from": FIRST, "to": SECOND, "strength": 3}
    open_view(page, server, "glyphs", "interpolate", row=4, **state)
    expect(page.locator("#direction li")).to_have_count(7)
    first, second = (
        latents(server, seed=0, num_samples=64, context=label) for label in (FIRST, SECOND)
    )
    step = (second - first).mean(0)
    chance = np.sqrt((second - first).var(0, ddof=1).sum() / 64)
    length, ratio = re.findall(r"length (\S+), (\S+) times", page.inner_text("#direction-said"))[0]
    assert float(length) == pytest.approx(np.linalg.norm(step), rel=0.01)
    assert float(ratio) == pytest.approx(np.linalg.norm(step) / chance, rel=0.01)

    z = latents(server, seed=4, context=OWN)
    along = (z + np.linspace(0, 3, 7)[:, None] * step).astype(np.float32)
    rows = ask(server, "decode", along, model="glyphs", context=OWN)
    assert not one_level_off(pixels(page, "#direction canvas"), rows)
    own, of_first, of_second = (
        ask(server, "log_prob", rows, model="glyphs", context=label)
        for label in (OWN, FIRST, SECOND)
    )
    lines = [text.split("\n") for text in page.locator("#direction li").all_inner_texts()]
    assert [float(line[1]) for line in lines] == pytest.approx(own, abs=0.06)
    evidence = [float(line[2].removeprefix("0: ")) for line in lines]
    assert evidence == pytest.approx(of_second - of_first, abs=0.06)

    page.locator("#strength").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#direction li").last).to_contain_text("s 3.25")
    assert "strength=3.25" in page.url
