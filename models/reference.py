"""The flow whose numbers count as exact, for every stated error."""

import copy
from dataclasses import replace

import torch

from models.flow import Flow
from models.transforms.ode import ContinuousTransform

# Of the tolerances that a continuous flow is served with; never looser than the second number.
_TIGHTER = 100.0
_LOOSEST = 1e-9
# Of the evaluations that a row may take: order 5 at tolerances 10^-3 apart needs 4 times as many.
_MORE = 10


def reference(flow: Flow) -> Flow:
    """A copy in float64 on the CPU, in evaluation mode, to hold a flow or its graphs to.

    The equations of continuous flows are solved 100 times tighter than they are served: what is
    stated is then how far a number is from the integral, not from itself in other rounding.
    """
    exact = copy.deepcopy(flow).to("cpu", torch.float64).eval()
    for part in exact.modules():
        if isinstance(part, ContinuousTransform):
            rtol, atol = (
                min(tolerance / _TIGHTER, _LOOSEST)
                for tolerance in (part.solver.rtol, part.solver.atol)
            )
            most = _MORE * part.solver.max_evaluations
            part.solver = replace(part.solver, rtol=rtol, atol=atol, max_evaluations=most)
    return exact
