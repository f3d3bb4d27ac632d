"""What is stated as accuracy is the error, on the rows that are named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models
from models.checkpoints import golden
from models.checkpoints.accuracy import measure_accuracy
from models.checkpoints.golden import Inputs
from models.checkpoints.reference import reference
from models.flow import Flow
from models.ode.transform import ContinuousTransform
from tests.cases import make_flow
from tools.zoo.recipes import RECIPES

ZOO = Path(models.__file__).parent / "zoo"
HELD_OUT = 300


def exact(flow: Flow) -> Flow:
    return reference(flow)


@torch.no_grad()
def found(flow: Flow, held_out: Tensor | None = None) -> dict[str, float]:
    record = golden.record(exact(flow))
    rows = None if held_out is None else Inputs(held_out)
    return measure_accuracy(flow, record, held_out=rows, dtype=torch.float32)


@pytest.fixture(scope="module")
def flow() -> Flow:
    return models.load(ZOO / "moons", dtype=torch.float64)


@torch.no_grad()
def test_the_worst_held_out_row_is_stated(flow: Flow) -> None:
    torch.manual_seed(0)
    rows = flow.sample(HELD_OUT, seed=5)[0]
    rows[17] = torch.tensor([9.0, -7.0])  # far out: the largest error in nats, not the relative one
    narrow = models.load(ZOO / "moons")
    wanted = flow.log_prob(rows)
    nats = (narrow.log_prob(rows.float()).double() - wanted).abs()
    stated = found(flow, rows)
    assert stated["held_out_rows"] == HELD_OUT
    assert stated["log_prob_max_abs_error"] == pytest.approx(float(nats.max()))
    relative = float((nats / wanted.abs().clamp(min=1)).max())
    assert stated["log_prob_max_relative_error"] >= relative
    assert stated["log_prob_max_relative_error"] < stated["log_prob_max_abs_error"]
    without = found(flow)
    assert "held_out_rows" not in without
    assert without["log_prob_max_abs_error"] < stated["log_prob_max_abs_error"]


def test_odd_rows_are_stated_by_themselves(flow: Flow) -> None:
    stated = found(flow)
    assert stated["odd_rows"] == 5
    # Ten standard deviations out, log p is thousands of nats: more of them are lost, not digits.
    assert stated["odd_log_prob_max_abs_error"] > 10 * stated["log_prob_max_abs_error"]
    assert 0 < stated["odd_log_prob_max_relative_error"] < 1e-5


def test_a_flow_that_is_off_says_by_how_much(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Flow.encode

    def shifted(self: Flow, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = encode(self, x, context)
        return z, log_det + (0.25 if x.dtype == torch.float32 else 0.0)

    monkeypatch.setattr(Flow, "encode", shifted)
    stated = found(flow)
    assert stated["log_prob_max_abs_error"] == pytest.approx(0.25, rel=1e-3)
    assert 0.05 < stated["log_prob_max_relative_error"] <= 0.2501


def test_rows_that_float32_cannot_answer_are_counted(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Flow.encode

    def lost(self: Flow, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det = encode(self, x, context)
        if x.dtype == torch.float32 and len(x) == HELD_OUT + 8 + 64 + 5 - 256:
            log_det[3:5] = torch.nan
        return z, log_det

    monkeypatch.setattr(Flow, "encode", lost)
    stated = found(flow, flow.sample(HELD_OUT, seed=5)[0])
    assert stated["non_finite_rows"] == 2
    assert stated["log_prob_max_abs_error"] < 1e-3


@torch.no_grad()
def test_a_continuous_flow_is_held_to_its_integral() -> None:
    flow = make_flow("ffjord").eval()
    flow_solves = [part for part in flow.modules() if isinstance(part, ContinuousTransform)]
    solves = [part for part in exact(flow).modules() if isinstance(part, ContinuousTransform)]
    for part, sharp in zip(flow_solves, solves, strict=True):
        assert sharp.solver.rtol <= part.solver.rtol / 100
        assert sharp.solver.atol <= part.solver.atol / 100


def test_a_model_states_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    flow = make_flow("realnvp")
    models.save(flow, tmp_path / "m", dtype=torch.float32)
    written: dict[str, Any] = json.loads((tmp_path / "m" / "config.json").read_text())
    assert written["accuracy"]["sample_rows"] == 64
    assert models.load(tmp_path / "m").accuracy == pytest.approx(written["accuracy"])
    other = models.load(tmp_path / "m", dtype=torch.float64).accuracy
    assert set(other) == {
        "golden_rows", "log_prob_max_abs_error", "z_max_abs_error", "round_trip_max_abs_error"
    }  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_config_report_and_card_of_the_zoo_agree(name: str) -> None:
    config = json.loads((ZOO / name / "config.json").read_text())["accuracy"]
    report = json.loads((ZOO / name / "training.json").read_text())
    card = (ZOO / name / "README.md").read_text()
    assert config == report["accuracy"]
    assert config["held_out_rows"] == report["test"]["rows"]
    assert config["log_prob_max_relative_error"] <= config["log_prob_promised_relative_error"]
    assert f"({config['held_out_rows']:.0f} held-out, 64 sample, 8 golden)" in card
    assert f"| {config['log_prob_max_relative_error']:.1e} (promised: " in card
    assert f"| {config['log_prob_max_abs_error']:.1e} |" in card
