"""Adaptive Runge-Kutta steps, every row on its own: no row's answer depends on its neighbours.

Each row has its own position, step size and error control. Steps are powers of two of the whole
interval and start at multiples of themselves, so a rounding error cannot change a step a little
(it either changes nothing or a whole factor of two, which is rare), every row lands exactly on the
end, and the times that occur are few and known beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from models.ode.call import SolveStatus

# dx/dt from t (B, 1), the state (B, M) and the context (B, ...) or None.
Field = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, slots=True)
class SolverSettings:
    """How exactly to solve, and when to give a row up.

    rtol, atol: the error estimate of a step is at most atol + rtol |y| in every component of a row;
        values below a few units of rounding count as that.
    max_evaluations: of the field, for one row.
    """

    rtol: float = 1e-6
    atol: float = 1e-6
    max_evaluations: int = 10_000


@dataclass(frozen=True, slots=True)
class Solution:
    """What a solve gave for each row.

    state: (B, M); NaN in rows that failed.
    status: (B,) of `SolveStatus`.
    evaluations: (B,) of the field.
    """

    state: Tensor
    status: Tensor
    evaluations: Tensor


# Dormand & Prince 1980, RK5(4)7M: nodes, stages, and the difference of the two results. The last
# stage is at the new point with the weights of the fifth-order result, so it starts the next step.
NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
STEP_ERROR = (
    35 / 384 - 5179 / 57600,
    0.0,
    500 / 1113 - 7571 / 16695,
    125 / 192 - 393 / 640,
    -2187 / 6784 + 92097 / 339200,
    11 / 84 - 187 / 2100,
    -1 / 40,
)
_ORDER = 5
EVALUATIONS_PER_STEP = len(NODES)

FIRST_STEP = 2.0**-3
_SAFETY = 0.9
# A step is multiplied by 2^n, n in this range.
_MOST_SHRINKING, _MOST_GROWTH = -4, 2
# Below this step, positions would no longer be exact in the dtype of the state.
_SMALLEST_STEP = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
# Tolerances below a few units of rounding would make steps out of noise.
_ROUNDING_UNITS = 4


def solve(
    field: Field,
    state: Tensor,
    context: Tensor | None,
    *,
    start: Tensor,
    end: Tensor,
    settings: SolverSettings,
) -> Solution:
    """Integrate every row from `start` to `end` by Dormand and Prince's method of order 5(4).

    The error of a step is measured in the max norm over the row's own components. Rows that are
    done leave the batch. Gradients flow through the steps taken (not through their choice).

    Args:
        field: dx/dt; called with the times, states and contexts of the rows still under way.
        state: (B, M) at `start`, float32 or float64.
        context: (B, ...) handed to the field row by row, or None.
        start: scalar tensor; `end` too, and it may lie before `start`.

    Raises:
        ValueError: if the state has another dtype.

    Reference: Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae"; Hairer, Norsett &
    Wanner 1993, "Solving Ordinary Differential Equations I", section II.4.
    """
    problem = _Problem(field, start, end - start, settings, like=state)
    first = field(start.expand(state.shape[0], 1), state, context)
    rows = _Rows(
        index=torch.arange(state.shape[0], device=state.device),
        state=state,
        slope=first,
        position=torch.zeros_like(state[:, :1]),
        step=torch.full_like(state[:, :1], FIRST_STEP),
        context=context,
    )
    finite = torch.isfinite(state).all(1) & torch.isfinite(first).all(1)
    evaluations = 1
    outcomes = [rows.finish(~finite, SolveStatus.NON_FINITE, evaluations)]
    rows = rows.select(finite)
    while len(rows.index):
        if evaluations + EVALUATIONS_PER_STEP > settings.max_evaluations:
            everyone = torch.ones_like(rows.index, dtype=torch.bool)
            outcomes.append(rows.finish(everyone, SolveStatus.BUDGET_SPENT, evaluations))
            break
        evaluations += EVALUATIONS_PER_STEP
        rows, error = problem.advance(rows)
        rows, ended = problem.sort_out(rows, error, evaluations)
        outcomes += ended
    return _collect(outcomes)


class StepRule:
    """Which steps are kept, and how long the next ones are.

    Args:
        settings: the tolerances.
        like: a tensor with the dtype and device of the state, float32 or float64.

    Raises:
        ValueError: if the state has another dtype.
    """

    def __init__(self, settings: SolverSettings, *, like: Tensor) -> None:
        if like.dtype not in _SMALLEST_STEP:
            raise ValueError(f"state: expected float32 or float64, got {like.dtype}")
        facts = torch.finfo(like.dtype)
        self._largest = facts.max
        self._smallest_step = _SMALLEST_STEP[like.dtype]
        self._rtol = max(settings.rtol, _ROUNDING_UNITS * facts.eps)
        self._atol = max(settings.atol, _ROUNDING_UNITS * facts.eps)
        # A step is multiplied by the largest factor that leaves the error of the next, which goes
        # with its fifth power, below 1 with some to spare.
        factors = [2.0**n for n in range(_MOST_GROWTH, _MOST_SHRINKING - 1, -1)]
        limits = [(_SAFETY / factor) ** _ORDER if factor != 1 else 1.0 for factor in factors[:-1]]
        drops = [[after - before] for before, after in pairwise(factors)]
        self._limits, self._drops = like.new_tensor(limits), like.new_tensor(drops)
        self._growth = factors[0]
        growths = factors[: factors.index(1.0)][::-1]
        self._shares = 1 / like.new_tensor(growths)
        self._rises = like.new_tensor([[growth / 2] for growth in growths])

    def error(self, difference: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The error of a step relative to the tolerance, in the max norm of the row.

        Shape: all (B, M) -> (B, 1); infinite where anything is not finite. Kept where <= 1.
        """
        size = torch.maximum(before.abs(), after.abs())
        error = difference.abs() / (self._atol + self._rtol * size)
        return torch.where(error <= self._largest, error, torch.inf).amax(1, keepdim=True)

    def next_step(self, position: Tensor, step: Tensor, error: Tensor) -> Tensor:
        """The step times a power of two; a larger one only at a multiple of itself.

        Sums of powers of two, all exact: only exact steps reach the end.

        Shape: all (B, 1); position is the new one, error that of the step just tried.
        """
        factor = self._growth + (error > self._limits).to(error.dtype) @ self._drops
        multiples = position / step * self._shares
        aligned = (multiples == multiples.floor()).to(error.dtype)
        return step * torch.minimum(factor, 1 + aligned @ self._rises)

    def is_too_small(self, step: Tensor) -> Tensor:
        """Whether positions would no longer be exact."""
        return step < self._smallest_step


def all_finite(values: Tensor) -> Tensor:
    """Whether a row has finite values only.   (B, M) -> (B, 1)."""
    is_finite = values.abs() <= torch.finfo(values.dtype).max
    return (~is_finite).to(values.dtype).amax(1, keepdim=True) == 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Rows that are done: where they stood in the batch, and how they ended."""

    index: Tensor
    state: Tensor
    status: SolveStatus
    evaluations: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows under way. position and step (B, 1) are fractions of the interval."""

    index: Tensor
    state: Tensor
    slope: Tensor
    position: Tensor
    step: Tensor
    context: Tensor | None

    def select(self, chosen: Tensor) -> "_Rows":
        return _Rows(
            index=self.index[chosen],
            state=self.state[chosen],
            slope=self.slope[chosen],
            position=self.position[chosen],
            step=self.step[chosen],
            context=None if self.context is None else self.context[chosen],
        )

    def finish(self, chosen: Tensor, status: SolveStatus, evaluations: int) -> _Outcome:
        state = self.state[chosen]
        if status is not SolveStatus.SOLVED:
            state = torch.full_like(state, torch.nan)
        return _Outcome(self.index[chosen], state, status, evaluations)


class _Problem:
    """A field, an interval, and the method's constants where the state is."""

    def __init__(
        self, field: Field, start: Tensor, span: Tensor, settings: SolverSettings, *, like: Tensor
    ) -> None:
        self.field = field
        self.start = start
        self.span = span
        self.rule = StepRule(settings, like=like)
        self.nodes = like.new_tensor(NODES)

    def advance(self, rows: _Rows) -> tuple[_Rows, Tensor]:
        """Try a step of every row, keep those that are accurate enough, choose the next steps.

        Returns:
            The rows, and the error of the step relative to the tolerance, (B, 1): kept where <= 1.
        """
        times = self.start + self.span * torch.addcmul(rows.position, rows.step, self.nodes)
        length = self.span * rows.step
        slopes = [rows.slope]
        state = rows.state
        for i, weights in enumerate(STAGES):
            state = torch.addcmul(rows.state, length, _combine(weights, slopes))
            slopes.append(self.field(times[:, i : i + 1], state, rows.context))
        with torch.no_grad():
            error = self.rule.error(length * _combine(STEP_ERROR, slopes), rows.state, state)
            accepted = error <= 1
            position = rows.position + torch.where(accepted, rows.step, 0)
            step = self.rule.next_step(position, rows.step, error)
        moved = _Rows(
            index=rows.index,
            state=torch.where(accepted, state, rows.state),
            slope=torch.where(accepted, slopes[-1], rows.slope),
            position=position,
            step=step,
            context=rows.context,
        )
        return moved, error

    def sort_out(
        self, rows: _Rows, error: Tensor, evaluations: int
    ) -> tuple[_Rows, list[_Outcome]]:
        """Take the rows that are done out of the batch."""
        solved = (rows.position == 1).squeeze(1)
        stuck = self.rule.is_too_small(rows.step).squeeze(1) & ~solved
        leaving = solved | stuck
        if not leaving.any():
            return rows, []
        infinite = torch.isinf(error).squeeze(1)
        outcomes = [
            rows.finish(solved, SolveStatus.SOLVED, evaluations),
            rows.finish(stuck & infinite, SolveStatus.NON_FINITE, evaluations),
            rows.finish(stuck & ~infinite, SolveStatus.STEP_UNDERFLOW, evaluations),
        ]
        return rows.select(~leaving), outcomes


def _combine(weights: Sequence[float], slopes: list[Tensor]) -> Tensor:
    """Weighted sum, element by element: the same bits whatever the number of rows."""
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=False):
        if weight:
            total = torch.add(total, slope, alpha=weight)
    return total


def _collect(outcomes: list[_Outcome]) -> Solution:
    """Put the rows back in their order."""
    order = torch.cat([outcome.index for outcome in outcomes]).argsort()

    def column(values: list[int]) -> Tensor:
        counts = [len(outcome.index) for outcome in outcomes]
        repeated = torch.tensor(values).repeat_interleave(torch.tensor(counts))
        return repeated.to(order.device)[order]

    return Solution(
        state=torch.cat([outcome.state for outcome in outcomes])[order],
        status=column([outcome.status for outcome in outcomes]),
        evaluations=column([outcome.evaluations for outcome in outcomes]),
    )
