"""Solves whose rows keep their places in the batch: every step is a function of one fixed shape.

`models.ode.solver` takes rows that are done out of its batch. That saves work, but the sizes of its
matrices then depend on the neighbours of a row, and with them its last bits; and a graph of kernels
can be captured for one size alone. Here all rows stay to the end, each in its place: one that is
done keeps its state exactly, and one that only fills the batch up is done before the first step.

The steps themselves are those of the solver: the same tries, kept and followed by the same rule.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from models.ode.call import SolveCall, SolveReport, SolveStatus, join_reports
from models.ode.solver import Field, RowProblem, RowsUnderWay
from models.ode.steps import EVALUATIONS_PER_STEP, FIRST_STEP, StepRule, all_finite
from models.ode.while_loop import Body, Carry, keeping_places

# The state and the slope at the end of a step, and its error, from position, step, state, slope.
Attempt = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

# How often all rows are stepped before it is asked whether any goes on. Two, since one more step
# than needed is a twentieth of a solve, and an answer takes a device as long as some kernels.
STEPS_PER_LAUNCH = 2


def start_rows(
    state: Tensor,
    slope: Tensor,
    finite: Tensor,
    max_evaluations: int,
    *,
    first_step: float = FIRST_STEP,
) -> Carry:
    """What a solve carries before its first step; rows that are not finite have ended.

    Args:
        state: (B, M), with its slope there.
        finite: (B, 1), of state and slope.
        max_evaluations: of the field, for one row.
        first_step: as a fraction of the interval.
    """
    zero = torch.zeros_like(state[:, :1])
    return (
        finite & (zero + 1 <= max_evaluations - EVALUATIONS_PER_STEP),
        # 0 in every row, and known only from the rows: in a graph a constant would be one row.
        torch.where(finite, zero, zero),
        torch.where(finite, zero + first_step, zero),
        state,
        slope,
        torch.where(finite, zero, zero + torch.inf),
        zero + 1,
    )


def step_rows(carry: Carry, attempt: Attempt, rule: StepRule, max_evaluations: int) -> Carry:
    """Try a step of every row under way; leave the others as they are, to the bit."""
    active, position, step, state, slope, last_error, evaluations = carry
    new_state, new_slope, error = attempt(position, step, state, slope)
    accepted = (error <= 1) & active
    position = torch.where(accepted, position + step, position)
    step = torch.where(active, rule.next_step(position, step, error), step)
    evaluations = torch.where(active, evaluations + EVALUATIONS_PER_STEP, evaluations)
    has_budget = evaluations <= max_evaluations - EVALUATIONS_PER_STEP
    return (
        (position < 1) & ~rule.is_too_small(step) & has_budget,
        position,
        step,
        torch.where(accepted, new_state, state),
        torch.where(accepted, new_slope, slope),
        torch.where(active, error, last_error),
        evaluations,
    )


def ended_status(solved: Tensor, error: Tensor, is_too_small: Tensor) -> Tensor:
    """How each row ended, (B,) of `SolveStatus`.

    Args:
        solved: (B, 1), as the others: whether it reached the end.
        error: of its last step.
        is_too_small: whether its next step would be.
    """
    code = torch.where(is_too_small, SolveStatus.STEP_UNDERFLOW, SolveStatus.BUDGET_SPENT)
    code = torch.where(is_too_small & (error == torch.inf), SolveStatus.NON_FINITE, code)
    return torch.where(solved, SolveStatus.SOLVED, code)[:, 0]


class FixedSolve:
    """The body of a loop over the rows of a batch, and what its end means.

    Nothing of a call is kept here: all that a step needs of it is carried or given.

    Args:
        field: dx/dt.
        rule: of the steps.
        max_evaluations: of the field, for one row.
    """

    def __init__(self, field: Field, rule: StepRule, max_evaluations: int) -> None:
        self._field = field
        self._rule = rule
        self._max_evaluations = max_evaluations

    def start(self, state: Tensor, context: Tensor | None, interval: Tensor) -> tuple[Carry, Carry]:
        """Begin with states (B, M) at the first end of an interval (2,).

        Returns:
            What is carried before the first step, and what is given to all of them.
        """
        start, end = (edge.expand(state.shape[0], 1) for edge in interval)
        slope = self._field(start, state, context)
        finite = all_finite(state) & all_finite(slope)
        carry = start_rows(state, slope, finite, self._max_evaluations)
        given = (start, end - start)
        return carry, given if context is None else (*given, context)

    def body(self, carry: Carry, given: Carry) -> Carry:
        """One step of every row under way: a `models.ode.while_loop.Body`."""
        start, span, *context = given
        problem = RowProblem(self._field, start, span, self._rule)

        def attempt(
            position: Tensor, step: Tensor, state: Tensor, slope: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            rows = RowsUnderWay(carry[0], state, slope, position, step, next(iter(context), None))
            return problem.attempt(rows)

        return step_rows(carry, attempt, self._rule, self._max_evaluations)

    def finish(self, ended: Carry) -> tuple[Tensor, Tensor, Tensor]:
        """The states (B, M), NaN where a row failed, its status (B,) and its evaluations (B,)."""
        _, position, step, state, _, error, evaluations = ended
        solved = position == 1
        status = ended_status(solved, error, self._rule.is_too_small(step))
        return torch.where(solved, state, torch.nan), status, evaluations[:, 0].long()


def repeat_in_place(body: Body, carry: Carry, given: Carry) -> Carry:
    """Apply `body` to all rows until none goes on: a `models.ode.while_loop.Loop`."""
    while bool(carry[0].any()):
        carry = repeat_steps(body, carry, given)
    return carry


def repeat_steps(body: Body, carry: Carry, given: Carry) -> Carry:
    """The steps between two looks at who goes on."""
    for _ in range(STEPS_PER_LAUNCH):
        carry = body(carry, given)
    return carry


class FlowCall(Protocol):
    """`Flow.encode` or `Flow.decode`."""

    def __call__(
        self, value: Tensor, context: Tensor | None, /, *, call: SolveCall | None
    ) -> tuple[Tensor, Tensor]: ...


class FixedBatch(NamedTuple):
    """A batch of fixed size.

    value: (B, ...). context: (B, ...) or None. is_row: (B, 1) bool, False where a row only fills
    the batch up.
    """

    value: Tensor
    context: Tensor | None
    is_row: Tensor


class BatchOutputs(NamedTuple):
    """What a call gave: the value, the rest (B,), as `SolveReport` has it."""

    value: Tensor
    log_det: Tensor
    status: Tensor
    evaluations: Tensor
    log_det_error: Tensor


@dataclass(frozen=True, slots=True)
class OpenSolve:
    """A solve that was reached: what its loop carries at first, and what a step of it does."""

    body: Body
    carry: Carry
    given: Carry


class _Reached(Exception):  # no error: it leaves the flow's code where a loop begins
    def __init__(self, solve: OpenSolve) -> None:
        super().__init__()
        self.solve = solve


class FixedBatchCall:
    """A call of a flow, cut at its solves into pure functions of tensors of fixed shapes.

    The call runs from its start to the first solve, from the end of that to the next, and so to the
    end. Each of these runs begins at the start of the flow and takes the solves before it as given:
    what it so computes again is one evaluation of a field for each, of a hundred and more.

    Args:
        operation: `encode` or `decode` of a flow in evaluation mode.
        wants_log_det: see `SolveCall`.
    """

    def __init__(self, operation: FlowCall, *, wants_log_det: bool = True) -> None:
        self._operation = operation
        self._wants_log_det = wants_log_det

    def proceed(self, inputs: FixedBatch, ended: Sequence[Carry] = ()) -> OpenSolve | BatchOutputs:
        """Compute up to the next solve, or to the end.

        Args:
            inputs: the batch.
            ended: what the loops of the solves so far carried at last.

        Raises:
            ValueError: the flow solves nothing.
        """
        before = iter(ended)

        def loop(body: Body, carry: Carry, given: Carry) -> Carry:
            known = next(before, None)
            if known is not None:
                return known
            raise _Reached(OpenSolve(body, _without_padding(carry, inputs.is_row), given))

        call = SolveCall(wants_log_det=self._wants_log_det)
        try:
            with keeping_places(loop):
                value, log_det = self._operation(inputs.value, inputs.context, call=call)
        except _Reached as reached:
            return reached.solve
        report = join_reports(call.reports)
        if report is None:
            raise ValueError("flow: expected one that solves equations")
        return _outputs(value, log_det, report)

    def run(self, inputs: FixedBatch) -> BatchOutputs:
        """Compute all of it, with Python's own loop."""
        ended: list[Carry] = []
        while isinstance(found := self.proceed(inputs, ended), OpenSolve):
            ended.append(repeat_in_place(found.body, found.carry, found.given))
        return found


def _without_padding(carry: Carry, is_row: Tensor) -> Carry:
    """End the rows that only fill the batch up: no step is so small that it is taken."""
    active, position, step, *others = carry
    return (active & is_row, position, torch.where(is_row, step, 0), *others)


def _outputs(value: Tensor, log_det: Tensor, report: SolveReport) -> BatchOutputs:
    return BatchOutputs(value, log_det, report.status, report.evaluations, report.log_det_error)
