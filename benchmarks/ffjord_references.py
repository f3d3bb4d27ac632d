"""Public continuous-flow code, re-created: its arithmetic over our weights, with torchdiffeq."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torchdiffeq import odeint

from models.flow import Flow
from models.noise import base_log_prob_torch
from models.ode.fields import DenseDynamics, Dynamics
from models.ode.transform import ContinuousTransform

# dx/dt (B, D) and an estimate of the trace (B, 1), from the time and x.
Augmented = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Solved = tuple[Tensor, Tensor]

# FFJORD's default, for rtol and atol.
TOLERANCE = 1e-5


def brute_force(dynamics: DenseDynamics) -> Augmented:
    """FFJORD's divergence_bf: one backward pass a dimension."""

    def field(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            dx = dynamics.velocity(t.expand(len(x), 1), x)
            trace = x.new_zeros(len(x))
            for index in range(x.shape[1]):
                (row,) = torch.autograd.grad(dx[:, index].sum(), x, create_graph=True)
                trace = trace + row[:, index]
        return dx.detach(), trace.detach().unsqueeze(1)

    return field


def one_probe(dynamics: DenseDynamics, x: Tensor) -> Augmented:
    """FFJORD's divergence_approx: Hutchinson's estimate with one Gaussian probe a call."""
    probe = torch.randn_like(x)

    def field(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            dx = dynamics.velocity(t.expand(len(x), 1), x)
            (product,) = torch.autograd.grad(dx, x, probe, create_graph=True)
        return dx.detach(), (product * probe).sum(1, keepdim=True).detach()

    return field


def batched_products(dynamics: DenseDynamics) -> Augmented:
    """zuko's exact trace: D vector-Jacobian products in one batched backward pass."""

    def field(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        times = t.expand(len(x), 1)
        probes = dynamics.exact_probes(x)
        dx, forms = Dynamics.velocity_and_forms(dynamics, times, x, probes)
        return dx, forms.sum(1, keepdim=True)

    return field


def closed_form(dynamics: DenseDynamics) -> Augmented:
    """Ours: the Jacobian pushed along in closed form."""

    def field(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        dx, trace = dynamics.velocity_and_trace(t.expand(len(x), 1), x)
        return dx, trace.unsqueeze(1)

    return field


def worst_row(state: tuple[Tensor, Tensor]) -> Tensor:
    """A norm for torchdiffeq: each row's largest component, and of these the largest."""
    return torch.stack([part.abs().max() for part in state]).max()


def solve(
    field: Augmented,
    x: Tensor,
    *,
    tolerance: float = TOLERANCE,
    decoding: bool = False,
    by_worst_row: bool = False,
) -> Solved:
    """The values at the other end and the integrals of the trace, by torchdiffeq's dopri5.

    All rows take the same steps, chosen by the RMS over the batch or, `by_worst_row`, the maximum.
    """
    ends = torch.tensor([1.0, 0.0] if decoding else [0.0, 1.0], dtype=x.dtype, device=x.device)
    options = {"norm": worst_row} if by_worst_row else {}
    with torch.no_grad():
        values, traces = odeint(
            lambda t, state: field(t, state[0]),
            (x, x.new_zeros(len(x), 1)),
            ends,
            rtol=tolerance,
            atol=tolerance,
            method="dopri5",
            options=options,
        )
    return values[-1], traces[-1, :, 0]


def log_prob(field: Augmented, x: Tensor, *, by_worst_row: bool = False) -> Tensor:
    """In nats, (B,), with one step for all rows."""
    z, log_det = solve(field, x, by_worst_row=by_worst_row)
    return base_log_prob_torch(z) + log_det


def dense(flow: Flow) -> DenseDynamics:
    """The dynamics of a flow of one continuous transform."""
    return cast(DenseDynamics, cast(ContinuousTransform, flow.chain[0]).dynamics)
