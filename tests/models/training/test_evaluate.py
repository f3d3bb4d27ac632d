"""Scoring leaves a flow in the mode it is served in, and only scores data that it takes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.datasets import Dataset, DatasetError
from models.flow import Flow
from models.registry import build
from models.training.evaluate import check_fits, evaluate, log_probs
from models.transforms.preprocess import Dequantise
from tests.cases import perturb

RNG = np.random.default_rng(0)
PIXELS = [{"kind": "dequantise", "levels": 17}, {"kind": "shift_scale", "scale": 1 / 17}]
DATA = Dataset(name="pixels", x=RNG.integers(0, 17, (8, 3)).astype(np.uint8), num_levels=17)


def pixel_flow() -> Flow:
    config = {"event_shape": [3], "preprocessing": PIXELS, "batch_norm": {"kind": "batch_norm"}}
    return perturb(build("realnvp", {**config, "num_layers": 2}).double(), 0.2)


def test_a_flow_in_training_mode_is_scored_as_it_is_served() -> None:
    flow = pixel_flow()
    served = log_probs(flow.eval(), DATA)
    assert (log_probs(flow.train(), DATA) == served).all()
    assert (log_probs(flow.train(), DATA, batch_rows=3) == pytest.approx(served, abs=1e-12)) is True


def test_noise_ends_with_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = pixel_flow().eval()
    (layer,) = (module for module in flow.modules() if isinstance(module, Dequantise))

    def fail(*_: object) -> None:
        assert layer.training
        raise RuntimeError("out of memory")

    monkeypatch.setattr(flow, "log_prob", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        log_probs(flow, DATA, noise_seed=1)
    assert not layer.training
    assert not any(module.training for module in flow.modules())


def test_noise_is_uniform_and_seeded_and_nothing_else_trains() -> None:
    flow = pixel_flow().eval()
    once, again = (log_probs(flow, DATA, noise_seed=1) for _ in range(2))
    assert (once == again).all()
    assert (once != log_probs(flow, DATA)).all()
    assert (once != log_probs(flow, DATA, noise_seed=2)).all()


def test_pixels_of_more_levels_are_refused() -> None:
    flow = pixel_flow()
    check_fits(flow, DATA)
    check_fits(flow, replace(DATA, x=DATA.x % 2, num_levels=2))
    with pytest.raises(DatasetError, match="pixels have 256 levels, the model takes 17"):
        check_fits(flow, replace(DATA, num_levels=256))


@pytest.mark.parametrize(
    ("family", "config", "said"),
    [
        ("ffjord", {"hidden_features": [3]}, "exact"),
        (
            "ffjord",
            {
                "hidden_features": [3],
                "divergence": {"evaluation": "hutchinson", "num_probes": 3},
            },
            "Hutchinson's estimate with 3 probes",
        ),
        ("maf", {}, None),
    ],
    ids=["exact", "estimate", "discrete"],
)
def test_an_evaluation_says_what_the_trace_is(
    family: str, config: dict[str, Any], said: str | None
) -> None:
    flow = build(family, {"event_shape": [2], **config}).eval()
    rows = np.random.default_rng(0).normal(size=(3, 2))
    assert evaluate(flow, Dataset("rows", rows)).trace == said


def test_only_flows_of_many_passes_decode_fewer_rows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.evaluate.ROUND_TRIP_VALUES", 2 * 80)
    config = {"event_shape": [80], "num_layers": 1, "conditioner": {"kind": "mlp", "widths": [8]}}
    slow = evaluate(build("maf", config), Dataset("rows", RNG.standard_normal((8, 80))))
    fast = evaluate(build("realnvp", config), Dataset("rows", RNG.standard_normal((8, 80))))
    assert (slow.round_trip_rows, fast.round_trip_rows) == (2, 8)
