"""Adaptive Runge-Kutta steps, every row on its own: no row's answer depends on its neighbours.

Each row has its own position, step size and error control. Steps are powers of two of the whole
interval and start at multiples of themselves, so a rounding error cannot change a step a little
(it either changes nothing or a whole factor of two, which is rare), every row lands exactly on the
end, and the times that occur are few and known beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.ode.call import SolveStatus
from models.ode.steps import (
    EVALUATIONS_PER_STEP,
    FIRST_STEP,
    STAGES,
    STEP_ERROR,
    StepRule,
)

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
    rule = StepRule(settings.rtol, settings.atol, like=state)
    problem = RowProblem(field, start, end - start, rule)
    first = field(start.expand(state.shape[0], 1), state, context)
    rows = RowsUnderWay(
        index=torch.arange(state.shape[0], device=state.device),
        state=state,
        slope=first,
        position=torch.zeros_like(state[:, :1]),
        step=torch.full_like(state[:, :1], FIRST_STEP),
        context=context,
    )
    finite = torch.isfinite(state).all(1) & torch.isfinite(first).all(1)
    evaluations = 1
    ended_rows = [rows.finish(~finite, SolveStatus.NON_FINITE, evaluations)]
    rows = rows.select(finite)
    while len(rows.index):
        if evaluations + EVALUATIONS_PER_STEP > settings.max_evaluations:
            everyone = torch.ones_like(rows.index, dtype=torch.bool)
            ended_rows.append(rows.finish(everyone, SolveStatus.BUDGET_SPENT, evaluations))
            break
        evaluations += EVALUATIONS_PER_STEP
        rows, error = problem.advance(rows)
        rows, ended = problem.sort_out(rows, error, evaluations)
        ended_rows += ended
    return _collect(ended_rows)


@dataclass(frozen=True, slots=True)
class _EndedRows:
    """Rows that are done: where they stood in the batch, and how they ended."""

    index: Tensor
    state: Tensor
    status: SolveStatus
    evaluations: int


@dataclass(frozen=True, slots=True)
class RowsUnderWay:
    """Rows under way. position and step (B, 1) are fractions of the interval."""

    index: Tensor
    state: Tensor
    slope: Tensor
    position: Tensor
    step: Tensor
    context: Tensor | None

    def select(self, chosen: Tensor) -> "RowsUnderWay":
        return RowsUnderWay(
            index=self.index[chosen],
            state=self.state[chosen],
            slope=self.slope[chosen],
            position=self.position[chosen],
            step=self.step[chosen],
            context=None if self.context is None else self.context[chosen],
        )

    def finish(self, chosen: Tensor, status: SolveStatus, evaluations: int) -> _EndedRows:
        state = self.state[chosen]
        if status is not SolveStatus.SOLVED:
            state = torch.full_like(state, torch.nan)
        return _EndedRows(self.index[chosen], state, status, evaluations)


class RowProblem:
    """A field, an interval, and the method's constants where the state is."""

    def __init__(self, field: Field, start: Tensor, span: Tensor, rule: StepRule) -> None:
        self.field = field
        self.start = start
        self.span = span
        self.rule = rule

    def attempt(self, rows: RowsUnderWay) -> tuple[Tensor, Tensor, Tensor]:
        """Try a step of every row.

        Returns:
            The state and the slope at its end, and its error relative to the tolerance, (B, 1).
        """
        times = self.start + self.span * torch.addcmul(rows.position, rows.step, self.rule.nodes)
        length = self.span * rows.step
        slopes = [rows.slope]
        state = rows.state
        for i, weights in enumerate(STAGES):
            state = torch.addcmul(rows.state, length, _combine(weights, slopes))
            slopes.append(self.field(times[:, i : i + 1], state, rows.context))
        with torch.no_grad():
            error = self.rule.error(length * _combine(STEP_ERROR, slopes), rows.state, state)
        return state, slopes[-1], error

    def advance(self, rows: RowsUnderWay) -> tuple[RowsUnderWay, Tensor]:
        """Try a step of every row, keep those that are accurate enough, choose the next steps.

        Returns:
            The rows, and the error of the step relative to the tolerance, (B, 1): kept where <= 1.
        """
        state, slope, error = self.attempt(rows)
        with torch.no_grad():
            accepted = error <= 1
            position = rows.position + torch.where(accepted, rows.step, 0)
            step = self.rule.next_step(position, rows.step, error)
        moved = RowsUnderWay(
            index=rows.index,
            state=torch.where(accepted, state, rows.state),
            slope=torch.where(accepted, slope, rows.slope),
            position=position,
            step=step,
            context=rows.context,
        )
        return moved, error

    def sort_out(
        self, rows: RowsUnderWay, error: Tensor, evaluations: int
    ) -> tuple[RowsUnderWay, list[_EndedRows]]:
        """Take the rows that are done out of the batch."""
        solved = (rows.position == 1).squeeze(1)
        stuck = self.rule.is_too_small(rows.step).squeeze(1) & ~solved
        leaving = solved | stuck
        if not leaving.any():
            return rows, []
        infinite = torch.isinf(error).squeeze(1)
        ended_rows = [
            rows.finish(solved, SolveStatus.SOLVED, evaluations),
            rows.finish(stuck & infinite, SolveStatus.NON_FINITE, evaluations),
            rows.finish(stuck & ~infinite, SolveStatus.STEP_UNDERFLOW, evaluations),
        ]
        return rows.select(~leaving), ended_rows


def _combine(weights: Sequence[float], slopes: list[Tensor]) -> Tensor:
    """Weighted sum, element by element: the same bits whatever the number of rows."""
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=False):
        if weight:
            total = torch.add(total, slope, alpha=weight)
    return total


def _collect(ended_rows: list[_EndedRows]) -> Solution:
    """Put the rows back in their order."""
    order = torch.cat([rows.index for rows in ended_rows]).argsort()

    def column(values: list[int]) -> Tensor:
        counts = [len(rows.index) for rows in ended_rows]
        repeated = torch.tensor(values).repeat_interleave(torch.tensor(counts))
        return repeated.to(order.device)[order]

    return Solution(
        state=torch.cat([rows.state for rows in ended_rows])[order],
        status=column([rows.status for rows in ended_rows]),
        evaluations=column([rows.evaluations for rows in ended_rows]),
    )
