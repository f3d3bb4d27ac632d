"""Correctness of every engine against the flow in float64 on the CPU.

An engine may be as far off as certificates of graphs allow, or where float32 itself is further off,
for steep weights, some times as far as eager torch in float32 on the CPU: no device is to add to
what the precision costs.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import Subject
from models.ode.transform import is_continuous
from models.onnx.replay import ReplayAnswers, exact_answers, replay
from models.onnx.tolerance import CONTINUOUS, TOLERANCES
from service.engines.engine import Engine
from service.engines.torch import TorchEngine

PART = "correctness"
# Other kernels round otherwise: by how much more than eager torch on a CPU.
_TIMES_CPU = 8.0

# Of each kind of answer: the largest error in units of max(1, |exact|).
Errors = dict[str, float]


@torch.no_grad()
def answers_in_float64(subject: Subject) -> ReplayAnswers:
    """What the flow is, to rounding."""
    return exact_answers(subject.exact, subject.rows)


def allowed_errors(subject: Subject, exact: ReplayAnswers) -> Errors:
    """What an engine may be off by."""
    tolerance = CONTINUOUS if is_continuous(subject.flow) else TOLERANCES["float32"]
    base = {
        "log_prob": tolerance.log_prob,
        "encode": tolerance.x,
        "decode": tolerance.x,
        "samples": tolerance.x,
        "log_prob of samples": tolerance.sample_log_prob,
    }
    eager = TorchEngine(copy.deepcopy(subject.flow).to("cpu"))
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
    results: Results,
    subject: Subject,
    name: str,
    engine: Engine,
    wanted: tuple[ReplayAnswers, Errors],
) -> None:
    """Check what an engine answers to the rows of a subject.

    Args:
        wanted: the exact answers, and what an engine may be off by.
    """
    exact, allowed = wanted
    label = f"{subject.name}, {name}"
    errors = errors_of(subject, replay(engine, subject.rows), exact)
    for what, error in errors.items():
        results.check_error(f"{PART}, {subject.group}", label, what, error, allowed[what])


def _worst(got: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    error = np.where(same, 0.0, np.abs(got - exact) / np.maximum(np.abs(exact), 1))
    return float(np.nan_to_num(error, nan=np.inf).max(initial=0.0))
