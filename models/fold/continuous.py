"""Continuous flows for inference: a loop of Runge-Kutta steps with few, large operations.

It takes the steps of `models.ode.solver`, every row its own, in a form that can be recorded as a
graph. Two things make a step fast: what depends on the time alone is computed for all stages at
once; and so are the traces, since no stage needs them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.fold.field import FoldedField, Modulation, Tape
from models.ode.call import SolveCall, SolveReport
from models.ode.fields.dense import DenseDynamics
from models.ode.fields.dense_layers import Modulated
from models.ode.fixed_batch import ended_status, start_rows, step_rows
from models.ode.steps import (
    EVALUATIONS_PER_STEP,
    FIRST_STEP,
    NODES,
    STAGES,
    STEP_ERROR,
    StepRule,
    StepRules,
    all_finite,
)
from models.ode.transform import ContinuousTransform, ODETransform
from models.ode.while_loop import Carry, repeat_while_any
from models.transforms.transform import Transform

# The slopes that the result or its error depend on: the second only helps to find the third.
_TRACED = [0, 2, 3, 4, 5, 6]


def fold_continuous(transform: ContinuousTransform) -> Transform:
    """The inference form where there is one: dense fields with an exact trace; else itself."""
    dynamics = transform.dynamics
    if transform.probes is not None or not isinstance(dynamics, DenseDynamics):
        return transform
    is_modulated = all(isinstance(layer, Modulated) for layer in dynamics.layers)
    if not is_modulated or not len(dynamics.activations):
        return transform
    return FoldedContinuous(transform, dynamics)


class _Course(NamedTuple):
    """What all steps of a solve have in common.

    extra: what the context adds, see `FoldedField.from_context`. traced: whether the state ends in
    the log-det.
    """

    rule: StepRule
    extra: Tensor | None
    start: float
    span: float
    traced: bool


class FoldedContinuous(ODETransform):
    """y = x + integral of f, log_det = integral of tr df/dx, as `ContinuousTransform`.

    Args:
        transform: is left as it is.
        dynamics: its field.

    Attributes:
        fixed_steps: how many equal steps every row takes, without a loop; None for steps of its
            own. A row on which one of them is not accurate enough counts as not solved.
    """

    def __init__(self, transform: ContinuousTransform, dynamics: DenseDynamics) -> None:
        super().__init__()
        self.fixed_steps: int | None = None
        self.field = FoldedField(dynamics)
        self.data_time = transform.data_time
        self.solver = transform.solver
        self._rules = StepRules(self.solver.rtol, self.solver.atol)
        self.end_time = float(transform.sqrt_end_time.detach().double().square())
        self.register_buffer("nodes", torch.tensor(NODES, dtype=torch.float64))
        eye = torch.eye(self.field.features, dtype=torch.float64)
        self.mixers = nn.ParameterList(_mixer(weights, eye) for weights in (*STAGES, STEP_ERROR))
        closing = torch.tensor([(*STAGES[-1], 0.0), STEP_ERROR], dtype=torch.float64).T
        self.register_buffer("closing", closing[_TRACED].contiguous())

    nodes: Tensor
    closing: Tensor

    def _integrate(
        self, x: Tensor, context: Tensor | None, call: SolveCall | None, *, towards_end: bool
    ) -> tuple[Tensor, Tensor]:
        course = _Course(
            self._rules.of(x),
            self.field.from_context(context),
            start=0.0 if towards_end else self.end_time,
            span=self.end_time if towards_end else -self.end_time,
            traced=call is None or call.wants_log_det,
        )
        zero = torch.zeros_like(x[:, :1])
        carry = self._start(x, zero, course)

        def body(carry: Carry, given: Carry) -> Carry:
            return self._step(carry, course._replace(extra=given[0] if given else None))

        if self.fixed_steps is None:
            given = () if course.extra is None else (course.extra,)
            ended = repeat_while_any(body, carry, given)
        else:
            ended = self._on_grid(self.fixed_steps, carry, course)
        _, position, step, state, _, error, evaluations = ended
        solved = position == 1
        status = ended_status(solved, error, course.rule.is_too_small(step))
        state = torch.where(solved, state, zero + torch.nan)
        y = state[:, : x.shape[1]]
        log_det = state[:, x.shape[1]] if course.traced else zero[:, 0] + torch.nan
        if call is not None:
            call.reports.append(SolveReport(status, evaluations[:, 0].long(), zero[:, 0]))
        return y, log_det

    def _start(self, x: Tensor, zero: Tensor, course: _Course) -> Carry:
        """What is carried before the first step."""
        slope = self._first_slope(x, course)
        return start_rows(
            torch.cat([x, zero], 1) if course.traced else x,
            slope,
            all_finite(x) & all_finite(slope),
            self.solver.max_evaluations,
            first_step=FIRST_STEP if self.fixed_steps is None else 1 / self.fixed_steps,
        )

    def _first_slope(self, x: Tensor, course: _Course) -> Tensor:
        modulation = self.field.modulation(torch.zeros_like(x[:, :1]) + course.start)
        dx, tape = self.field.velocity(x, modulation.at(0), course.extra)
        if not course.traced:
            return dx
        trace = self.field.trace(tape, modulation.gates(), once=True)
        return torch.cat([dx, trace], 1)

    def _step(self, carry: Carry, course: _Course) -> Carry:
        """Try a step of every row under way; leave the others as they are."""

        def attempt(
            position: Tensor, step: Tensor, state: Tensor, slope: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            return self._try(position, step, state, slope, course)

        return step_rows(carry, attempt, course.rule, self.solver.max_evaluations)

    def _on_grid(self, steps: int, carry: Carry, course: _Course) -> Carry:
        """Take the same steps with every row, and keep the largest error of each."""
        active, start, step, state, slope, worst, evaluations = carry
        for index in range(steps):
            position = start + index / steps
            state, slope, error = self._try(position, step, state, slope, course)
            worst = torch.maximum(worst, error)
        position = torch.where(worst <= 1, 1, start)
        step = torch.where(worst == torch.inf, 0, step)
        evaluations = evaluations + steps * EVALUATIONS_PER_STEP
        return active, position, step, state, slope, worst, evaluations

    def _try(
        self, position: Tensor, step: Tensor, state: Tensor, slope: Tensor, course: _Course
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step from a state with its slope.

        Returns:
            state, slope, error (B, 1) of the step.
        """
        features = self.field.features
        length = step * course.span
        times = (position + step * self.nodes) * course.span + course.start
        modulation = self.field.modulation(times)
        x, moves, tapes = state[:, :features], [length * slope[:, :features]], []
        for stage in range(len(NODES)):
            moved = torch.addmm(x, torch.cat(moves, 1), self.mixers[stage])
            dx, tape = self.field.velocity(moved, modulation.at(stage), course.extra)
            moves.append(length * dx)
            tapes.append(tape)
        new_state, difference = moved, torch.cat(moves, 1) @ self.mixers[-1]
        if course.traced:
            traces = self._traces(tapes, modulation, slope[:, features:])
            sums = length * (traces @ self.closing)
            dx = torch.cat([dx, traces[:, -1:]], 1)
            new_state = torch.cat([moved, state[:, features:] + sums[:, :1]], 1)
            difference = torch.cat([difference, sums[:, 1:]], 1)
        return new_state, dx, course.rule.error(difference, state, new_state)

    def _traces(self, tapes: list[Tape], modulation: Modulation, first: Tensor) -> Tensor:
        """The traces of the slopes _TRACED, the known one of the first in front.

        Returns:
            (B, 6).
        """
        # The first slope is known, the second has no weight: see _TRACED.
        traces = self.field.trace(Tape.joined(tapes[1:]), modulation.gates(1))
        return torch.cat([first, traces.reshape(-1, len(_TRACED) - 1)], 1)


def _mixer(weights: Sequence[float], eye: Tensor) -> nn.Parameter:
    """The matrix that sums slopes side by side, (k D, D)."""
    matrix = torch.cat([weight * eye for weight in weights])
    return nn.Parameter(matrix, requires_grad=False)
