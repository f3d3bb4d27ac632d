"""Correctness of every engine against the flow in float64 on the CPU.

An engine may be as far off as certificates of graphs allow, or where float32 itself is further off,
for steep weights, some times as far as eager torch in float32 on the CPU: no device is to add to
what the precision costs.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import Subject
from models.ode.transform import is_continuous
from models.onnx.replay import ReplayAnswers, exact_answers, replay
from models.onnx.tolerance import CONTINUOUS, TOLERANCES
from service.contracts import SolverStats
from service.engines.engine import Engine
from service.engines.torch import TorchEngine

PART = "correctness"
# Other kernels round otherwise: by how much more than eager torch on a CPU.
_TIMES_CPU = 8.0

# The part of the rows that may take other steps than eager torch on a CPU does: where an error is
# at its limit, rounding decides.
_OTHER_EVALUATIONS = 0.1

# Of each kind of answer: the largest error in units of max(1, |exact|).
Errors = dict[str, float]


@torch.no_grad()
def answers_in_float64(subject: Subject) -> ReplayAnswers:
    """What the flow is, to rounding."""
    return exact_answers(subject.exact, subject.rows)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an engine should answer to the rows of a subject.

    exact: the answers in float64. allowed: what it may be off by.
    stats: how eager torch solves the rows on a CPU, of a continuous flow.
    """

    exact: ReplayAnswers
    allowed: Errors
    stats: SolverStats | None


def wanted_of(subject: Subject) -> Wanted:
    """Compute what is wanted, on the CPU."""
    exact = answers_in_float64(subject)
    eager = TorchEngine(copy.deepcopy(subject.flow).to("cpu"))
    return Wanted(exact, _allowed(subject, eager, exact), _solver_stats(subject, eager))


def _solver_stats(subject: Subject, engine: Engine) -> SolverStats | None:
    if not is_continuous(subject.flow):
        return None
    _, _, *stats = engine.encode(subject.rows.x, subject.rows.context)
    return stats[0] if stats else None


def _allowed(subject: Subject, eager: Engine, exact: ReplayAnswers) -> Errors:
    tolerance = CONTINUOUS if is_continuous(subject.flow) else TOLERANCES["float32"]
    base = {
        "log_prob": tolerance.log_prob,
        "encode": tolerance.x,
        "decode": tolerance.x,
        "samples": tolerance.x,
        "log_prob of samples": tolerance.sample_log_prob,
    }
    own = errors_of(subject, replay(eager, subject.rows), exact)
    return {what: max(base[what], _TIMES_CPU * own[what]) for what in base}


def errors_of(subject: Subject, got: ReplayAnswers, exact: ReplayAnswers) -> Errors:
    """How far answers are off; infinite where one is missing that there should be."""
    drawn = slice(len(subject.rows.x) - subject.samples, None)
    stored = slice(None, drawn.start)
    return {
        "log_prob": _worst(got.log_prob, exact.log_prob),
        "encode": _worst(got.z, exact.z),
        "decode": _worst(got.x[stored], exact.x[stored]),
        "samples": _worst(got.x[drawn], exact.x[drawn]),
        "log_prob of samples": _worst(got.sample_log_prob, exact.sample_log_prob),
    }


def check_engine(
    results: Results, subject: Subject, name: str, engine: Engine, wanted: Wanted
) -> None:
    """Check what an engine answers to the rows of a subject."""
    part, label = f"{PART}, {subject.group}", f"{subject.name}, {name}"
    errors = errors_of(subject, replay(engine, subject.rows), wanted.exact)
    for what, error in errors.items():
        results.check_error(part, label, what, error, wanted.allowed[what])
    stats = _solver_stats(subject, engine)
    if wanted.stats is not None and stats is not None:
        same = bool((stats.status == wanted.stats.status).all())
        results.check(part, label, "status of solves as on a CPU", same)
        other = int((stats.evaluations != wanted.stats.evaluations).sum())
        most = max(1, int(_OTHER_EVALUATIONS * len(stats.evaluations)))
        detail = f"{other} of {len(stats.evaluations)} rows, at most {most}"
        results.check(part, label, "evaluations as on a CPU", other <= most, detail)


def _worst(got: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    error = np.where(same, 0.0, np.abs(got - exact) / np.maximum(np.abs(exact), 1))
    return float(np.nan_to_num(error, nan=np.inf).max(initial=0.0))
