"""Conditional flow matching: its target, its refusals, and that it learns a density."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.datasets import load
from models.flow import Flow
from models.ode.transform import ContinuousTransform
from models.registry import build
from models.training import TrainingError, TrainingOptions, train
from models.training.flow_matching import FlowMatching
from models.training.progress import ProgressBar
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)


def make(**config: Any) -> Flow:
    torch.manual_seed(0)
    config = {"event_shape": [2], "hidden_features": [32, 32], **config}
    return build("ffjord", config)


def field(flow: Flow) -> ContinuousTransform:
    return next(part for part in flow.chain if isinstance(part, ContinuousTransform))


@pytest.mark.parametrize("data_time", ["start", "end"])
@pytest.mark.parametrize("end_time", [1.0, 0.25])
def test_the_field_of_straight_lines_to_a_point_has_no_loss(
    data_time: str, end_time: float
) -> None:
    """All data at one point y: x_t = (1 - s) y + s z tells z, so the best field is known."""
    flow = make(data_time=data_time, end_time=end_time)
    block, y = field(flow), torch.tensor([1.0, -2.0])

    def best(t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        s = t / end_time if data_time == "start" else 1 - t / end_time
        velocity = (x - y) / s
        return (velocity if data_time == "start" else -velocity) / end_time

    block.dynamics.velocity = best
    loss = FlowMatching(flow).loss(y.expand(500, 2))
    assert loss < 1e-6


@pytest.mark.parametrize("data_time", ["start", "end"])
def test_it_learns_a_density(data_time: str) -> None:
    flow = make(
        data_time=data_time,
        preprocessing=[{"kind": "standardise", "mean": [3.0, -1.0], "std": [2.0, 0.5]}],
        layer_type="ignore",
        time_input="last",
    )
    generator = torch.Generator().manual_seed(1)
    scale = torch.tensor([[1.5, 0.0], [0.3, 0.3]])
    centre = torch.tensor([3.0, -1.0])

    def draw(rows: int) -> Tensor:
        return torch.randn(rows, 2, generator=generator) @ scale.T + centre

    truth = torch.distributions.MultivariateNormal(centre, scale_tril=scale)
    test = draw(200)
    objective = FlowMatching(flow)
    optimiser = torch.optim.Adam(flow.parameters(), lr=5e-3)
    with torch.no_grad():
        before = flow.eval().log_prob(test).mean()
    for _ in range(400):
        optimiser.zero_grad()
        objective.loss(draw(256)).backward()
        optimiser.step()
    with torch.no_grad():
        after = flow.eval().log_prob(test).mean()
    best = truth.log_prob(test).mean()
    assert best - before > 0.3
    assert best - after < 0.05


def test_a_conditional_field_sees_its_context() -> None:
    flow = make(context_features=3)
    x, context = torch.randn(4, 2), torch.randn(4, 3, requires_grad=True)
    FlowMatching(flow).loss(x, context).backward()
    assert context.grad is not None
    assert context.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("ffjord", {"num_blocks": 2}, "expected one block"),
        ("ffjord", {"batch_norm": True}, "at the end, got BatchNorm"),
        ("ffjord", {"learn_end_time": True}, "learn_end_time = false"),
        ("realnvp", {}, "expected a continuous flow"),
    ],
)
def test_refusals(family: str, config: dict[str, Any], message: str) -> None:
    flow = build(family, {"event_shape": [2], **config})
    with pytest.raises(ValueError, match=message):
        FlowMatching(flow)


def test_training_can_minimise_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = TrainingOptions(objective="flow_matching", epochs=8, batch_rows=128, warmup_steps=5)
    config = {"hidden_features": [32], "layer_type": "ignore", "time_input": "last"}
    data = load("two_moons?rows=600")
    bar = ProgressBar(options.objective)
    report = train(data, "ffjord", config, tmp_path / "model", options=options, listener=bar)
    nats = [epoch.validation_nats for epoch in report.history]
    assert nats[-1] < nats[0]
    shown = capsys.readouterr().out
    assert re.search(r"epoch +1 +train [0-9.]+ mean square +validation [0-9.]+ nats", shown)
    assert not re.search(r"train [0-9.]+ nats", shown)


def test_training_refuses_it_for_discrete_flows(tmp_path: Path) -> None:
    options = TrainingOptions(objective="flow_matching")
    with pytest.raises(TrainingError, match="expected a continuous flow"):
        train(load("two_moons?rows=600"), "realnvp", {}, tmp_path / "model", options=options)
