"""Costs of paths: against closed forms, their gradients, and that training heeds them."""

import copy
from pathlib import Path

import pytest
import torch

import models
from models.datasets import load
from models.flow import Flow
from models.ode.call import SolveCall
from models.ode.transform import ContinuousTransform, TrainingSettings
from models.registry import build
from models.training import TrainingError, TrainingOptions, train
from models.training.flow_matching import FlowMatching
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)
from tests.models.ode.test_transform import draw, linear, log_prob, make, make_dynamics

RATES = [0.5, -1.0]
END_TIME = 0.81


@pytest.mark.parametrize("gradient", ["adjoint", "direct"])
@pytest.mark.parametrize("data_time", ["start", "end"])
def test_costs_of_a_linear_field_are_those_of_its_formula(data_time: str, gradient: str) -> None:
    """x(t) = x e^(r t): energy r x^2 (e^(2 r T) - 1) / 2; |e^T diag(r)|^2 = sum r^2 for signs e."""
    training = TrainingSettings(gradient, rtol=1e-9, atol=1e-9, kinetic=2.0, jacobian=3.0)
    options = {"end_time": END_TIME, "data_time": data_time, "training": training}
    x = draw(4, 2)
    call = SolveCall()
    linear(RATES, **options).train().encode(x, call=call)
    sign = 1 if data_time == "start" else -1
    rates = sign * torch.tensor(RATES, dtype=torch.float64)
    energy = (rates * x.square() * torch.expm1(2 * rates * END_TIME) / 2).sum(1)
    expected = 2 * energy + 3 * END_TIME * rates.square().sum()
    (cost,) = call.costs
    torch.testing.assert_close(cost, expected, rtol=1e-6, atol=0)


def test_without_weights_and_outside_training_there_are_none() -> None:
    x = draw(4, 2)
    weighted = linear(RATES, training=TrainingSettings(kinetic=1.0))
    call = SolveCall()
    linear(RATES).train().encode(x, call=call)
    weighted.eval().encode(x, call=call)
    assert call.costs == []


def test_the_adjoint_has_the_gradient_of_direct_back_propagation() -> None:
    dynamics, x = make_dynamics(2), draw(5, 2)
    found = []
    for gradient in ("adjoint", "direct"):
        training = TrainingSettings(gradient, rtol=1e-9, atol=1e-9, kinetic=0.5, jacobian=0.5)
        transform = make(copy.deepcopy(dynamics), learn_end_time=True, training=training).train()
        torch.manual_seed(3)
        call = SolveCall()
        nats = -log_prob(transform, x, call)
        sum(call.costs, nats).sum().backward()
        found.append([parameter.grad for parameter in transform.parameters()])
    for adjoint, direct in zip(*found, strict=True):
        torch.testing.assert_close(adjoint, direct, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cost", ["kinetic", "jacobian"])
def test_training_heeds_them(cost: str, free_speed: float, tmp_path: Path) -> None:
    """A field whose paths cost too much stays near zero."""
    assert speed_trained_with(tmp_path, {cost: 1e3}) < 0.5 * free_speed


# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("regularization")


@pytest.fixture(scope="module")
def free_speed(tmp_path_factory: pytest.TempPathFactory) -> float:
    return speed_trained_with(tmp_path_factory.mktemp("free"), {"kinetic": 0.0})


def speed_trained_with(folder: Path, weights: dict[str, float]) -> float:
    config = {"hidden_features": [16], "training": {"gradient": "direct", **weights}}
    options = TrainingOptions(epochs=8, batch_rows=64, learning_rate=0.02, warmup_steps=1)
    train(load("two_moons?rows=300"), "ffjord", config, folder / "model", options=options)
    return _change_of_speed(folder / "model")


def test_flow_matching_has_no_path_that_could_cost() -> None:
    flow = build("ffjord", {"event_shape": [2], "training": {"kinetic": 0.1}})
    with pytest.raises(TrainingError, match="kinetic = 0"):
        FlowMatching(flow)


def _change_of_speed(folder: Path) -> float:
    """How much the velocity varies over a grid: what both costs are against."""
    flow: Flow = models.load(folder)
    (block,) = (part for part in flow.chain if isinstance(part, ContinuousTransform))
    x = torch.cartesian_prod(*[torch.linspace(-2, 2, 9)] * 2)
    with torch.no_grad():
        velocity = block.dynamics.velocity(torch.full((len(x), 1), 0.5), x)
    return float(velocity.std())
