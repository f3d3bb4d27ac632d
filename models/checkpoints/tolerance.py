"""The tolerance at which a continuous flow keeps its promise, found by measuring."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from models.checkpoints.golden import Inputs, relative_errors
from models.checkpoints.promise import PROMISE
from models.checkpoints.reference import continuous_parts, tighter
from models.flow import Flow
from models.ode.solver import SolverSettings

# Rows to measure on. They are solved together, so many cost little more than few.
ROWS = 32

# Other rows are off by somewhat more than the worst of those measured: with kinks, whose errors
# are those of a few large jumps, by ten times.
_ENOUGH = PROMISE / 3
_ENOUGH_TIGHTENED = PROMISE / 10
# In float64: what float32 resolves (4 units of rounding, 5e-7) is the default tolerance already.
TIGHTER_TOLERANCES = (1e-7, 1e-8, 1e-9, 1e-10)
# Every jump of the field's slope on a row's path takes tens of small steps.
_MOST_EVALUATIONS = 100_000


@dataclass(frozen=True, slots=True)
class Kept:
    """How a flow is to be solved, and what was measured.

    solver, dtype: what to serve it with.
    error: the largest of log_prob on the rows, in units of max(1, |log_prob|) nats.
    error_before: the same with what it had.
    """

    solver: SolverSettings
    dtype: torch.dtype
    error: float
    error_before: float

    @property
    def is_kept(self) -> bool:
        """Whether log_prob is within the promise."""
        return self.error <= PROMISE

    @property
    def is_tightened(self) -> bool:
        """Whether another tolerance than the flow's own was needed."""
        return self.error < self.error_before

    def describe(self) -> str:
        """Say in one sentence what was found and done; "" where nothing is to be said."""
        if not self.is_kept:
            return (
                f"log_prob is off by up to {self.error:.1e} nats (in units of |log_prob| where "
                f"that is larger), and {PROMISE:.0e} is promised: no tolerance down to "
                f"{TIGHTER_TOLERANCES[-1]:.0e} in float64 holds it"
            )
        if not self.is_tightened:
            return ""
        return (
            f"solved to {self.solver.rtol:.0e} in float64: as it was, log_prob was off by up to "
            f"{self.error_before:.1e} nats, now by {self.error:.1e}; {PROMISE:.0e} is promised. "
            "A smooth nonlinearity (tanh, softplus, swish) takes far fewer evaluations"
        )


def keep_promise(flow: Flow, rows: Inputs, dtype: torch.dtype = torch.float32) -> Kept:
    """Find the cheapest of some tolerances at which log_prob is right on these rows.

    The flow's own comes first, in `dtype`, compared with a solve 100 times tighter; then tighter
    ones, in float64, each against the next, whose own error is a tenth.

    Args:
        flow: a continuous one, with its weights as they are stored; it is not changed.
        rows: data, such as held-out rows or samples.
        dtype: what it would be served in.

    Returns:
        What to serve it with; its own solver and dtype where these do, or nothing tighter does.

    Raises:
        ValueError: if the flow solves no equations.
    """
    parts = continuous_parts(flow)
    if not parts:
        raise ValueError("flow: expected a continuous one, got one that solves no equations")
    answers = _Answers(flow, rows)
    own = Kept(parts[0].solver, dtype, math.nan, math.nan)
    candidates = _tighter_solvers(own.solver)
    before = answers.error(own.solver, dtype, _reference_solver(own.solver, candidates))
    own = replace(own, error=before, error_before=before)
    if before <= _ENOUGH:
        return own
    for solver, exact in pairwise((*candidates, tighter(candidates[-1]))) if candidates else ():
        error = answers.error(solver, torch.float64, exact)
        if error <= _ENOUGH_TIGHTENED:
            return Kept(solver, torch.float64, error, before)
    return own


def use_solver(flow: Flow, solver: SolverSettings) -> None:
    """Let a continuous flow made by `models.build` solve its equations so, and its config say so.

    Args:
        flow: is changed.
        solver: the new tolerances.
    """
    for part in continuous_parts(flow):
        part.solver = solver
    flow.config = {**flow.config, "solver": asdict(solver)}


def _tighter_solvers(own: SolverSettings) -> list[SolverSettings]:
    most = max(own.max_evaluations, _MOST_EVALUATIONS)
    below = [tolerance for tolerance in TIGHTER_TOLERANCES if tolerance < max(own.rtol, own.atol)]
    return [SolverSettings(tolerance, tolerance, most) for tolerance in below]


def _reference_solver(own: SolverSettings, candidates: Sequence[SolverSettings]) -> SolverSettings:
    """A tolerance 100 times tighter: one of the candidates, where it is there."""
    wanted = tighter(own)
    same = (
        solver
        for solver in candidates
        if math.isclose(solver.rtol, wanted.rtol) and math.isclose(solver.atol, wanted.atol)
    )
    return next(same, wanted)


class _Answers:
    """The log_prob of the same rows at several tolerances; in float64 each is computed once."""

    def __init__(self, flow: Flow, rows: Inputs) -> None:
        self._flow = flow
        self._rows = rows
        self._found: dict[SolverSettings, Tensor] = {}

    def error(self, solver: SolverSettings, dtype: torch.dtype, exact: SolverSettings) -> float:
        """The largest error against a tighter solve, `exact`, in units of max(1, |log_prob|).

        Rows that no solve finishes are left out. Where what is known shows it to be too large
        already, nothing tighter is solved.
        """
        got = self._exact(solver) if dtype == torch.float64 else self._solve(solver, dtype)
        known = min(self._found, key=lambda other: other.rtol, default=solver)
        if known.rtol < solver.rtol:
            error = _largest_error(got, self._found[known])
            if error > PROMISE:
                return error
        return _largest_error(got, self._exact(exact))

    def _exact(self, solver: SolverSettings) -> Tensor:
        if solver not in self._found:
            self._found[solver] = self._solve(solver, torch.float64)
        return self._found[solver]

    @torch.no_grad()
    def _solve(self, solver: SolverSettings, dtype: torch.dtype) -> Tensor:
        flow = copy.deepcopy(self._flow).to("cpu", dtype).eval()
        for part in continuous_parts(flow):
            part.solver = solver
        context = None if self._rows.context is None else self._rows.context.to("cpu", dtype)
        return flow.log_prob(self._rows.x.to("cpu", dtype), context).double()


def _largest_error(got: Tensor, exact: Tensor) -> float:
    solved = exact.isfinite()
    error = relative_errors(got, exact)
    return float(error[solved].nan_to_num(math.inf, posinf=math.inf).max()) if solved.any() else 0.0
