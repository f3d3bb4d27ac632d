"""The divergence of a vector field along a solve: exact, or estimated with given probes.

The rule that picks, `is_exact`: the trace is exact where that takes at most
`Dynamics.most_exact_probes` tangents (D for dense fields and U-Nets, a few dozen for convolutions:
see `Dynamics.num_exact_probes`), or where it is asked for. Otherwise it is Hutchinson's estimate
with probes that are part of the model, so that a row has one answer, whatever its neighbours and
however often it is asked.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from models.ode.fields.dynamics import Dynamics

Trace = Literal["auto", "exact", "hutchinson"]
Noise = Literal["rademacher", "gaussian"]


@dataclass(frozen=True, slots=True)
class DivergenceSettings:
    """How the trace of the Jacobian is had.

    evaluation: "exact", "hutchinson", or "auto" for what the rule says.
    training: the same, for training; there the estimate takes one probe a row, drawn afresh for
        every batch (for convolutions several times faster than the exact trace).
    num_probes, seed: of the estimate outside training.
    noise: what the probes are drawn from.
    """

    evaluation: Trace = "auto"
    training: Trace = "auto"
    num_probes: int = 16
    noise: Noise = "rademacher"
    seed: int = 0


def is_exact(trace: Trace, dynamics: Dynamics) -> bool:
    """Whether the trace of this field is exact: asked for, or cheap enough."""
    if trace == "auto":
        return dynamics.num_exact_probes <= dynamics.most_exact_probes
    return trace == "exact"


def seeded_probes(settings: DivergenceSettings, shape: tuple[int, ...]) -> Tensor:
    """Probes e with E[e e^T] = I, the same on every machine.

    Returns:
        (num_probes, *shape).
    """
    generator = np.random.Generator(np.random.Philox(settings.seed))
    size = (settings.num_probes, *shape)
    if settings.noise == "gaussian":
        probes = torch.from_numpy(generator.standard_normal(size))
    else:
        probes = 2.0 * torch.from_numpy(generator.integers(0, 2, size)) - 1
    return probes.to(torch.get_default_dtype())


def fresh_probes(settings: DivergenceSettings, like: Tensor) -> Tensor:
    """Draw one probe for every row of `like` (B, *shape), for training.

    Returns:
        (B, 1, *shape).
    """
    probes = torch.empty_like(like).unsqueeze(1)
    if settings.noise == "gaussian":
        return probes.normal_()
    return probes.bernoulli_().mul_(2).sub_(1)


def velocity_and_traces(
    dynamics: Dynamics,
    probes: Tensor | None,
    t: Tensor,
    x: Tensor,
    context: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """dx/dt and estimates of the trace, whose mean is the trace (or Hutchinson's estimate of it).

    Args:
        probes: of Hutchinson's estimate, (K, *event_shape) or (B, K, *event_shape); None for the
            exact trace.

    Returns:
        dx/dt (B, *event_shape) and (B, K); K = 1 for the exact trace.

    Reference: Grathwohl et al. 2019, FFJORD, eq. 8 (arXiv 1810.01367); Hutchinson 1989.
    """
    if probes is None:
        dx, trace = dynamics.velocity_and_trace(t, x, context)
        return dx, trace.unsqueeze(1)
    return dynamics.velocity_and_forms(t, x, probes, context)
