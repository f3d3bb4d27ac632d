"""What the error of a flow is measured against: itself in float64, its equations solved tighter.

A solve in float64 at the model's own tolerance shows rounding alone: of a field whose slope jumps
(relu, selu, elu), it is off by as much as the solve that is served.
"""

import copy
from dataclasses import replace

import torch

from models.checkpoints import golden
from models.checkpoints.promise import LOG_PROB_ERRORS, PROMISE
from models.flow import Flow
from models.ode.solver import SolverSettings
from models.ode.transform import ContinuousTransform

# The reference is solved this many times tighter than the flow. Kinks take seven times the
# evaluations then, smooth fields two and a half.
_TIGHTER = 100
_MORE = 10
# Below this, float64 rounds as much as the solver errs.
_TIGHTEST = 1e-12


def continuous_parts(flow: Flow) -> list[ContinuousTransform]:
    """The transforms of a flow that solve equations; none of a discrete one."""
    return [part for part in flow.modules() if isinstance(part, ContinuousTransform)]


def tighter(settings: SolverSettings) -> SolverSettings:
    """Tolerances 100 times tighter, with the budget that they take."""
    return replace(
        settings,
        rtol=max(settings.rtol / _TIGHTER, _TIGHTEST),
        atol=max(settings.atol / _TIGHTER, _TIGHTEST),
        max_evaluations=settings.max_evaluations * _MORE,
    )


def reference(flow: Flow) -> Flow:
    """Copy a flow, in float64 on the CPU, to measure its error against; a continuous one tighter.

    Args:
        flow: is left as it is; best with its weights as they are stored.

    Returns:
        The copy, in evaluation mode.
    """
    exact = copy.deepcopy(flow).to("cpu", torch.float64).eval()
    for part in continuous_parts(exact):
        part.solver = tighter(part.solver)
    return exact


@torch.no_grad()
def log_prob_errors(flow: Flow, exact: Flow, record: golden.Record) -> dict[str, float]:
    """How far a continuous flow is from its reference on golden rows, beside what is promised.

    Args:
        flow: as it is served.
        exact: the same, with its weights as they are stored.
        record: golden rows.

    Returns:
        log_prob_max_abs_error in nats, log_prob_max_relative_error in units of max(1, |log_prob|),
        and log_prob_promised_relative_error; nothing for a flow that solves no equations.
    """
    if not continuous_parts(flow):
        return {}
    x, context = record["x"], record.get("context")
    given = None if context is None else context.to(flow.device, flow.dtype)
    got = flow.log_prob(x.to(flow.device, flow.dtype), given).double().cpu()
    wanted = reference(exact).log_prob(x, context)
    largest = float((got - wanted).abs().max())
    relative = float(golden.relative_errors(got, wanted).max())
    return dict(zip(LOG_PROB_ERRORS, (largest, relative, PROMISE), strict=True))
