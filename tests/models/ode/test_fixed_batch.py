"""Solves in fixed batches: the solver's own steps, and bits that no neighbour changes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import models.zoo
from models.checkpoints.loading import load_checkpoint
from models.flow import Flow
from models.fold import fold
from models.ode.call import SolveCall, SolveReport, SolveStatus, join_reports
from models.ode.fields import DenseDynamics
from models.ode.fixed_batch import (
    BatchOutputs,
    FixedBatch,
    FixedBatchCall,
    OpenSolve,
    repeat_in_place,
    repeat_steps,
)
from models.ode.solver import SolverSettings
from models.ode.transform import ContinuousTransform
from models.registry import build
from tests.cases import CASES, make_flow, make_inputs, perturb
from tests.models.importers import golden

ZOO = Path(models.zoo.__file__).parent
# One of each kind: several solves with context, several scales, fields that do not fold.
FLOWS = ["ffjord_stack", "ffjord_fourier_context", "ffjord_image", "ffjord_blend"]
IMPORTED = ["ffjord_toy_a", "zuko_cnf_a"]
PLACES = (0, 3, 7)


def inputs(value: Tensor, context: Tensor | None = None, rows: int | None = None) -> FixedBatch:
    rows = len(value) if rows is None else rows
    return FixedBatch(value, context, torch.arange(len(value))[:, None] < rows)


def solved(flow: Flow, given: FixedBatch, operation: str) -> tuple[Tensor, Tensor, SolveReport]:
    call = SolveCall()
    value, log_det = getattr(flow, operation)(given.value, given.context, call=call)
    report = join_reports(call.reports)
    assert report is not None
    return value, log_det, report


def agree(flow: Flow, given: FixedBatch, operation: str = "encode") -> None:
    """Compare the flow as it is with batches that stay, as it is and folded."""
    _, log_det, report = solved(flow, given, operation)
    for form in (flow, fold(flow)):
        got = FixedBatchCall(getattr(form, operation)).run(given)
        assert got.status.tolist() == report.status.tolist()
        same = (got.evaluations == report.evaluations).double().mean()
        assert same >= 0.9
        torch.testing.assert_close(
            got.log_det.double(), log_det.double(), rtol=1e-5, atol=1e-4, equal_nan=True
        )


@pytest.mark.parametrize("operation", ["encode", "decode"])
@pytest.mark.parametrize("name", FLOWS)
@torch.inference_mode()
def test_fixed_batches_take_the_steps_of_the_solver(name: str, operation: str) -> None:
    case = CASES[name]
    flow = (
        perturb(build(case.family, {**case.config, "solver": {}}).double(), case.scale)
        .float()
        .eval()
    )
    given = make_inputs(name, flow, 6)
    value = given.x.float() if operation == "encode" else torch.randn(6, flow.features)
    context = None if given.context is None else given.context.float()
    agree(flow, inputs(value, context), operation)


@pytest.mark.parametrize("name", IMPORTED)
@torch.inference_mode()
def test_imported_flows_agree_in_float32(name: str) -> None:
    case = golden.load(name)
    x = case.arrays["x"][:10].float()
    agree(case.flow().float(), inputs(x))


@pytest.mark.parametrize(("name", "rows"), [("magic-ffjord", 48), ("digits-ffjord", 10)])
@torch.inference_mode()
def test_the_zoo_agrees_in_float32(name: str, rows: int) -> None:
    flow = load_checkpoint(ZOO / name, dtype=torch.float32).flow
    z = torch.randn(rows, flow.features, generator=torch.Generator().manual_seed(0))
    agree(flow, inputs(FixedBatchCall(flow.decode, wants_log_det=False).run(inputs(z)).value))


def stiff(hidden: tuple[int, ...] = (24, 24), max_evaluations: int = 10_000) -> Flow:
    """A flow whose rows take more and fewer steps, in float32."""
    torch.manual_seed(0)
    dynamics = DenseDynamics(3, hidden)
    with torch.no_grad():
        for parameter in dynamics.parameters():
            parameter *= 2.5
    settings = SolverSettings(max_evaluations=max_evaluations)
    return Flow([ContinuousTransform(dynamics, solver=settings)], (3,)).eval()


def draw(rows: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))


def row_of(outputs: BatchOutputs, place: int) -> list[Tensor]:
    return [column[place].clone() for column in outputs]


@pytest.mark.parametrize("form", ["eager", "folded"])
@torch.inference_mode()
def test_bits_depend_on_no_neighbour_and_no_place(form: str) -> None:
    flow = stiff() if form == "eager" else fold(stiff())
    call = FixedBatchCall(flow.encode)
    row = draw(1, 1.5)
    around = {
        "padding": (torch.zeros(8, 3), 0),
        "not a number": (torch.full((8, 3), torch.nan), 8),
        "easy": (draw(8, 0.01), 8),
        "stiff": (draw(8, 4.0), 8),
    }
    found = []
    for neighbours, rows in around.values():
        for place in PLACES:
            value = neighbours.clone()
            value[place] = row
            is_row = torch.full((8, 1), rows == 8)
            is_row[place] = True
            found.append(row_of(call.run(FixedBatch(value, None, is_row)), place))
    assert found[0][2] == SolveStatus.SOLVED
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


@torch.inference_mode()
def test_the_rows_of_that_test_end_at_different_times() -> None:
    evaluations = FixedBatchCall(stiff().encode).run(inputs(draw(8, 1.5))).evaluations
    assert evaluations.max() >= 1.5 * evaluations.min()


@torch.inference_mode()
def test_a_row_that_is_done_keeps_its_state_to_the_bit() -> None:
    value = draw(8)
    value[2] = torch.nan
    call = FixedBatchCall(stiff().encode)
    start = call.proceed(inputs(value, rows=6))
    assert isinstance(start, OpenSolve)
    assert start.carry[0][:, 0].tolist() == [True, True, False, True, True, True, False, False]
    once = repeat_in_place(start.body, start.carry, start.given)
    more = repeat_steps(start.body, once, start.given)
    for a, b in zip(once, more, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    outputs = call.proceed(inputs(value, rows=6), [more])
    assert isinstance(outputs, BatchOutputs)
    assert outputs.status[[0, 2]].tolist() == [SolveStatus.SOLVED, SolveStatus.NON_FINITE]
    assert outputs.evaluations[6:].tolist() == [1, 1]  # padding is done before the first step


@torch.inference_mode()
def test_a_spent_budget_is_told_as_the_solver_tells_it() -> None:
    flow = stiff(max_evaluations=50)
    given = inputs(draw(8, 1.5))
    _, _, report = solved(flow, given, "encode")
    assert sorted(set(report.status.tolist())) == [SolveStatus.SOLVED, SolveStatus.BUDGET_SPENT]
    agree(flow, given)


@torch.inference_mode()
def test_log_dets_can_be_left_out() -> None:
    flow = stiff()
    outputs = FixedBatchCall(flow.decode, wants_log_det=False).run(inputs(draw(4)))
    value, _ = flow.decode(draw(4))
    assert outputs.log_det.isnan().all()
    torch.testing.assert_close(outputs.value, value, rtol=0, atol=1e-4)


def test_a_flow_without_equations_is_refused() -> None:
    flow = make_flow("nice")
    with pytest.raises(ValueError, match="expected one that solves equations"):
        FixedBatchCall(flow.encode).run(inputs(make_inputs("nice", flow).x))
