"""The inference form of continuous flows takes the same steps to the same numbers."""

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from models.fold import fold
from models.fold.continuous import FoldedContinuous, fold_continuous
from models.fold.jacobian_trace import fold_trace
from models.ode.call import SolveCall, SolveReport, SolveStatus
from models.ode.fields import ConvDynamics, DenseDynamics
from models.ode.solver import SolverSettings
from models.ode.transform import ContinuousTransform
from models.registry import build
from tests.cases import CASES, make_flow, make_inputs

FIELDS: dict[str, dict[str, Any]] = {
    "concatsquash": {},
    "concat": {"layer_type": "concat"},
    "squash_residual": {"layer_type": "squash", "residual": True},
    "zuko": {
        "layer_type": "ignore",
        "time_input": "fourier",
        "num_frequencies": 3,
        "nonlinearity": "elu",
    },
    "torchcfm": {"layer_type": "ignore", "time_input": "last", "nonlinearity": "selu"},
    "conditional_swish": {"context_features": 2, "nonlinearity": "swish"},
    "softplus": {"nonlinearity": "softplus"},
    "no_time": {"layer_type": "ignore", "nonlinearity": "relu"},
}

fields = pytest.mark.parametrize("name", FIELDS)
widths = pytest.mark.parametrize("hidden", [(8,), (8, 8), (9, 8, 7)], ids=str)


def make(
    hidden: tuple[int, ...] = (8, 8), solver: SolverSettings | None = None, **options: Any
) -> ContinuousTransform:
    torch.manual_seed(0)
    dynamics = DenseDynamics(3, hidden, **options)
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter *= 1.5
    solver = solver or SolverSettings(1e-8, 1e-8)
    return ContinuousTransform(dynamics, end_time=0.7, solver=solver).double().eval()


def folded(transform: ContinuousTransform) -> FoldedContinuous:
    found = fold_continuous(copy.deepcopy(transform))
    assert isinstance(found, FoldedContinuous)
    return found.double().eval()


def draw(rows: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, context = torch.randn(2, rows, 3, generator=generator, dtype=torch.float64)
    return x, context[:, :2]


@fields
@widths
@pytest.mark.parametrize("call", ["encode", "decode"])
@torch.no_grad()
def test_the_same_steps_to_the_same_numbers(name: str, hidden: tuple[int, ...], call: str) -> None:
    transform = make(hidden, **FIELDS[name])
    x, c = draw(5)
    x[1] *= 3
    context = c if transform.dynamics.context_features else None
    solves = SolveCall()
    expected = getattr(transform, call)(x, context, call=solves)
    got = getattr(folded(transform), call)(x, context, call=solves)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    same(solves.reports)


def same(reports: list[SolveReport]) -> None:
    first, second = reports
    assert first.status.tolist() == second.status.tolist()
    assert first.evaluations.tolist() == second.evaluations.tolist()
    assert second.log_det_error.tolist() == [0] * len(second.status)


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        ("nan", SolveStatus.NON_FINITE),
        ("infinite", SolveStatus.NON_FINITE),
        ("infinite with a finite slope", SolveStatus.NON_FINITE),
        ("budget", SolveStatus.BUDGET_SPENT),
    ],
)
@torch.no_grad()
def test_rows_that_fail_are_told_and_leave_others_alone(spoil: str, status: SolveStatus) -> None:
    # Far away the tanh is flat and few steps are taken.
    far, budget = (20, 43) if spoil == "budget" else (0, 10_000)
    transform = make(solver=SolverSettings(1e-8, 1e-8, budget))
    x = far + 0.01 * draw(4)[0]
    # The tanh of one infinite column is finite, that of several is not: they are added first.
    columns = slice(1) if spoil == "infinite with a finite slope" else slice(None)
    x[2, columns] = {"nan": torch.nan, "budget": 0.0}.get(spoil, math.inf)
    solves = SolveCall()
    expected = transform.encode(x, call=solves)
    got = folded(transform).encode(x, call=solves)
    alone = folded(transform).encode(x[[0, 1, 3]], call=solves)
    same(solves.reports[:2])
    assert solves.reports[1].status[2] == status
    assert got[0][2].isnan().all()
    assert got[1][2].isnan()
    for a, b, c in zip(got, expected, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)
        torch.testing.assert_close(a[[0, 1, 3]], c, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("budget", [1, 6, 7])
@torch.no_grad()
def test_a_budget_below_one_step_is_spent_at_once(budget: int) -> None:
    transform = make(solver=SolverSettings(1e-8, 1e-8, budget))
    solves = SolveCall()
    transform.encode(draw(2)[0], call=solves)
    folded(transform).encode(draw(2)[0], call=solves)
    same(solves.reports)
    assert solves.reports[1].status.tolist() == [SolveStatus.BUDGET_SPENT] * 2
    assert solves.reports[1].evaluations.tolist() == [1 if budget < 7 else 7] * 2


@pytest.mark.parametrize(
    "transform",
    [
        ContinuousTransform(ConvDynamics((1, 4, 4), (3,))),
        ContinuousTransform(DenseDynamics(3, (4,), layer_type="blend")),
        ContinuousTransform(DenseDynamics(3, ())),
        ContinuousTransform(DenseDynamics(2000, (4,))),
    ],
    ids=["convolutions", "blend", "affine", "hutchinson"],
)
def test_other_fields_stay_as_they_are(transform: ContinuousTransform) -> None:
    assert fold_continuous(transform) is transform


@pytest.mark.parametrize("name", [n for n, case in sorted(CASES.items()) if case.continuous])
@torch.no_grad()
def test_whole_flows(name: str) -> None:
    flow = make_flow(name)
    inputs = make_inputs(name, flow)
    expected = flow.encode(inputs.x, inputs.context)
    got = fold(flow).encode(inputs.x, inputs.context)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


def test_float32_solves_to_the_promise() -> None:
    """log_prob within 1e-4 nats of the exact integral, and rows alone as in a batch."""
    torch.manual_seed(0)
    config = {"event_shape": [6], "batch_norm": True, "num_blocks": 2}
    flow = build("ffjord", config).eval()
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "transforms" in name and "linear" in name:
                parameter *= 2
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
        served = fold(flow)
        exact = copy.deepcopy(flow).double()
        for module in exact.modules():
            if isinstance(module, ContinuousTransform):
                module.solver = SolverSettings(1e-10, 1e-10)
        log_prob = served.log_prob(x)
        assert (log_prob - exact.log_prob(x.double())).abs().max() < 1e-4
        for rows in (1, 7):
            torch.testing.assert_close(
                served.log_prob(x[:rows]), log_prob[:rows], rtol=0, atol=2e-5
            )


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("hidden", [(5,), (5, 6), (5, 6, 7), (5, 6, 7, 8), (600, 600, 600)])
def test_every_form_of_the_trace_is_that_of_the_product(
    hidden: tuple[int, ...], gated: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    features, rows = 3, 4

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    widths = (features, *hidden, features)
    weights = [normal(b, a) / a**0.5 for a, b in pairwise(widths)]
    slopes = [normal(rows, width) for width in hidden]
    gate = normal(rows, features) if gated else None
    wanted = []
    for row in range(rows):
        product = weights[0]
        for slope, weight in zip(slopes, weights[1:], strict=True):
            product = weight @ (slope[row, :, None] * product)
        wanted.append((product if gate is None else gate[row, :, None] * product).trace())
    got = fold_trace(weights, gated=gated)(slopes, gate)
    torch.testing.assert_close(got, torch.stack(wanted))


@fields
@torch.no_grad()
def test_values_alone_take_the_same_steps(name: str) -> None:
    transform = make(**FIELDS[name])
    z, c = draw(5)
    context = c if transform.dynamics.context_features else None
    solves = SolveCall(wants_log_det=False)
    expected, _ = transform.decode(z, context, call=solves)
    got, log_det = folded(transform).decode(z, context, call=solves)
    same(solves.reports)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert log_det.isnan().all()
