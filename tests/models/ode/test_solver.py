"""The per-row solver: accuracy, where steps fall, independence of rows, and rows that fail."""

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from models.ode.call import SolveStatus
from models.ode.fields import DenseDynamics
from models.ode.solver import Field, Solution, SolverSettings, solve
from models.ode.steps import StepRule

TIGHT = SolverSettings(rtol=1e-10, atol=1e-10)


def run(
    field: Field,
    state: Tensor,
    settings: SolverSettings = TIGHT,
    *,
    start: float = 0.0,
    end: float = 1.0,
    context: Tensor | None = None,
) -> Solution:
    ends = state.new_tensor([start, end])
    return solve(field, state, context, start=ends[0], end=ends[1], settings=settings)


def net_field(dtype: torch.dtype = torch.float64) -> Field:
    torch.manual_seed(0)
    net = DenseDynamics(3, (16, 16)).to(dtype)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 2

    def field(t: Tensor, state: Tensor, context: Tensor | None) -> Tensor:
        dx, trace = net.velocity_and_trace(t, state[:, :3], context)
        return torch.cat([dx, trace.unsqueeze(1)], 1)

    return field


def net_states(rows: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.cat([3 * x, torch.zeros(rows, 1)], 1).to(dtype)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (1.5, -0.5)], ids=["onwards", "backwards"])
def test_agrees_with_torchdiffeq(interval: tuple[float, float]) -> None:
    field, state = net_field(), net_states()
    solution = run(field, state, start=interval[0], end=interval[1])
    times = torch.tensor(interval, dtype=torch.float64)
    path = odeint(
        lambda t, y: field(t.expand(len(y), 1), y, None),
        state,
        times,
        rtol=1e-11,
        atol=1e-11,
        method="dopri8",
    )
    torch.testing.assert_close(solution.state, path[-1], rtol=0, atol=1e-7)
    assert solution.status.tolist() == [SolveStatus.SOLVED] * 6


def test_the_method_is_of_fifth_order() -> None:
    """Polynomials of degree 4 are integrated exactly by a single step."""
    powers = torch.arange(5, dtype=torch.float64)
    solution = run(lambda t, y, c: (powers + 1) * t**powers, torch.zeros(1, 5).double(), end=2.0)
    torch.testing.assert_close(solution.state[0], 2.0 ** (powers + 1), rtol=1e-13, atol=0)


@pytest.mark.parametrize("end", [1.0, 0.7], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_steps_are_dyadic_and_land_on_the_end(dtype: torch.dtype, end: float) -> None:
    """Every stage at node 1 is at a multiple of 2^-k of the interval; the last is the end."""
    times: list[Tensor] = []

    def field(t: Tensor, y: Tensor, context: Tensor | None) -> Tensor:
        times.append(t.clone())
        return torch.cos(40 * t) * y

    state = torch.ones(1, 1, dtype=dtype)
    solution = run(field, state, SolverSettings(rtol=1e-5, atol=1e-5), end=end)
    assert solution.status.item() == SolveStatus.SOLVED
    last = torch.tensor(end, dtype=dtype)
    assert times[-1].item() == last
    assert max(times).item() == last
    fractions = torch.cat(times[6::6]).squeeze(1).double() / last.double()
    levels = fractions * 2**12
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
    exact = torch.exp(torch.sin(40 * last.double()) / 40)
    torch.testing.assert_close(solution.state.double()[0, 0], exact, rtol=1e-4, atol=0)


def test_easy_rows_take_few_steps_and_hard_rows_many() -> None:
    rates = torch.tensor([[0.0], [1.0], [30.0]], dtype=torch.float64)
    solution = run(
        lambda t, y, rate: rate * torch.cos(rate * t) * y,
        torch.ones(3, 1).double(),
        SolverSettings(rtol=1e-6, atol=1e-6),
        context=rates,
    )
    easy, middle, hard = solution.evaluations.tolist()
    assert easy == 1 + 4 * 6  # eighths until a larger step is aligned: 1/8, 1/8, 1/4, 1/2
    assert easy < middle < hard
    torch.testing.assert_close(solution.state, torch.exp(torch.sin(rates)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_a_hard_row_does_not_feel_easy_neighbours(batch: int) -> None:
    """Float32, default tolerances; the contract's bound is 2e-5 nats."""
    field = net_field(torch.float32)
    hard = 3 * net_states(1, torch.float32)
    easy = 0.1 * net_states(batch - 1, torch.float32)
    alone = run(field, hard, SolverSettings()).state
    among = run(field, torch.cat([easy, hard]), SolverSettings()).state
    torch.testing.assert_close(among[-1:], alone, rtol=0, atol=2e-5)
    for row in range(min(3, batch - 1)):
        by_itself = run(field, easy[row : row + 1], SolverSettings()).state
        torch.testing.assert_close(among[row : row + 1], by_itself, rtol=0, atol=2e-5)


def test_rows_keep_their_order_and_their_context() -> None:
    rates = torch.tensor([[25.0], [0.0], [50.0], [1.0]], dtype=torch.float64)
    solution = run(lambda t, y, c: c * torch.cos(c * t), torch.zeros(4, 1).double(), context=rates)
    torch.testing.assert_close(solution.state, torch.sin(rates), rtol=1e-8, atol=1e-8)


def hostile(t: Tensor, y: Tensor, kind: Tensor | None) -> Tensor:
    """Row by row, by its kind: 0 harmless, 1 blows up at t = 1/2, 2 stiff, 3 NaN after t = 1/4."""
    assert kind is not None
    late = torch.where(t > 0.25, torch.nan, y)
    options = torch.stack([torch.cos(t) + 0 * y, 2 * y * y, -1e7 * (y - t.cos()), late])
    return options.gather(0, kind.long().unsqueeze(0).expand(1, -1, y.shape[1])).squeeze(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rows_that_fail_leave_their_neighbours_alone(dtype: torch.dtype) -> None:
    kinds = torch.tensor([[0.0], [1.0], [0.0], [2.0], [3.0], [0.0]])
    state = torch.ones(6, 2, dtype=dtype)
    state[5] = torch.inf
    settings = SolverSettings(max_evaluations=2000)
    solution = run(hostile, state, settings, context=kinds)
    harmless = run(hostile, state[[0, 2]], settings, context=kinds[[0, 2]])
    assert torch.equal(solution.state[[0, 2]], harmless.state)
    assert torch.equal(solution.evaluations[[0, 2]], harmless.evaluations)
    blown_up, stiff, late, infinite = solution.status[[1, 3, 4, 5]].tolist()
    assert blown_up != SolveStatus.SOLVED
    assert stiff == SolveStatus.BUDGET_SPENT
    assert late == SolveStatus.NON_FINITE
    assert infinite == SolveStatus.NON_FINITE
    assert solution.state[[1, 3, 4, 5]].isnan().all()
    assert solution.evaluations[5] == 1
    assert solution.evaluations.max() <= 2000


def test_a_discontinuous_field_is_solved() -> None:
    """The divergence of a field with kinks jumps; the steps find the place."""
    solution = run(
        lambda t, y, c: (y > 0.3).to(y.dtype) + 1,
        torch.zeros(1, 1).double(),
        SolverSettings(rtol=1e-9, atol=1e-9),
    )
    assert solution.status.item() == SolveStatus.SOLVED
    torch.testing.assert_close(solution.state.item(), 0.3 + 2 * 0.7, rtol=0, atol=1e-7)


def test_tolerances_below_rounding_are_raised_to_it() -> None:
    field, state = net_field(torch.float32), net_states(4, torch.float32)
    solution = run(field, state, SolverSettings(rtol=1e-14, atol=1e-14))
    assert solution.status.tolist() == [SolveStatus.SOLVED] * 4
    exact = run(net_field(), state.double()).state
    torch.testing.assert_close(solution.state.double(), exact, rtol=3e-6, atol=3e-6)


def test_gradients_are_those_of_the_solution() -> None:
    field, state = net_field(), net_states(3)
    ends = torch.tensor([0.0, 0.8], dtype=torch.float64, requires_grad=True)
    state.requires_grad_()

    def final(ends: Tensor, state: Tensor) -> Tensor:
        settings = SolverSettings(rtol=1e-9, atol=1e-9)
        return solve(field, state, None, start=ends[0], end=ends[1], settings=settings).state.sum()

    final(ends, state).backward()
    assert ends.grad is not None
    assert state.grad is not None
    shift = 1e-5
    with torch.no_grad():
        for i in range(2):
            step = shift * torch.eye(2, dtype=torch.float64)[i]
            slope = (final(ends + step, state) - final(ends - step, state)) / (2 * shift)
            torch.testing.assert_close(ends.grad[i], slope, rtol=1e-5, atol=1e-5)
        step = torch.zeros_like(state)
        step[1, 2] = shift
        slope = (final(ends, state + step) - final(ends, state - step)) / (2 * shift)
        torch.testing.assert_close(state.grad[1, 2], slope, rtol=1e-5, atol=1e-5)


def test_no_rows_are_no_work() -> None:
    solution = run(net_field(), net_states(0))
    assert solution.state.shape == (0, 4)
    assert solution.status.shape == solution.evaluations.shape == (0,)


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match=r"state: expected float32 or float64, got torch\.float16"):
        run(lambda t, y, c: y, torch.ones(1, 1, dtype=torch.float16))


def test_a_state_that_is_infinite_from_the_start_is_not_solved() -> None:
    """Its slope may well be finite."""
    state = torch.tensor([[1.0], [torch.inf]], dtype=torch.float64)
    solution = run(lambda t, y, c: torch.zeros_like(y), state)
    assert solution.status.tolist() == [SolveStatus.SOLVED, SolveStatus.NON_FINITE]
    assert solution.evaluations.tolist()[1] == 1


def test_a_slope_that_is_infinite_from_the_start_is_tried_once() -> None:
    state = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    solution = run(lambda t, y, c: torch.where(y == 2, torch.inf, 0.0), state)
    assert solution.status.tolist() == [SolveStatus.SOLVED, SolveStatus.NON_FINITE]
    assert solution.evaluations.tolist()[1] == 1


def test_the_tolerance_of_a_step_is_that_of_its_larger_end() -> None:
    rule = StepRule(rtol=1e-3, atol=1e-6, like=torch.zeros(1).double())
    difference = torch.full((2, 1), 1e-2).double()
    ends = torch.tensor([[1.0], [100.0]]).double()
    error = rule.error(difference, ends, ends.flip(0))
    torch.testing.assert_close(error, torch.full_like(error, 1e-2 / (1e-6 + 1e-1)))
