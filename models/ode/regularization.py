"""Regularization of continuous flows in training: long and bent paths take many steps.

A transform whose training settings have weights adds the cost of its path to `SolveCall.costs`:

    call = SolveCall()
    nats = -flow.log_prob(x, call=call)
    loss = sum(call.costs, nats).mean()
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.ode.fields.dynamics import Dynamics


@dataclass(frozen=True, slots=True)
class CostWeights:
    """Weights of the two costs of a path; both 0: nothing is computed.

    kinetic: of the integral of |f(t, x(t))|^2 dt, its kinetic energy: straight and short paths.
    jacobian: of the integral of |e^T df/dx|^2 dt with one Rademacher probe e a row, in expectation
        the squared Frobenius norm of the Jacobian: fields that are smooth along the way.

    Reference: Finlay et al. 2020, How to train your neural ODE, section 3 (arXiv 2002.02798), who
    take 0.01 for both.
    """

    kinetic: float = 0.0
    jacobian: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.kinetic or self.jacobian)


def cost_rate(
    weights: CostWeights,
    dynamics: Dynamics,
    point: tuple[Tensor, Tensor, Tensor, Tensor | None],
    probe: Tensor | None,
) -> Tensor:
    """The weighted cost of a path a unit of time.

    Args:
        point: t (B, 1), x and dx/dt (B, *event_shape) there, and the context.
        probe: e (B, *event_shape); needed where `jacobian` has a weight.

    Returns:
        (B, 1).
    """
    t, x, dx, context = point
    rate = weights.kinetic * dx.flatten(1).square().sum(1, keepdim=True)
    if probe is not None:
        product = _vector_jacobian(dynamics, t, x, probe, context)
        rate = rate + weights.jacobian * product.flatten(1).square().sum(1, keepdim=True)
    return rate


def _vector_jacobian(
    dynamics: Dynamics, t: Tensor, x: Tensor, probe: Tensor, context: Tensor | None
) -> Tensor:
    """e^T df/dx, which the adjoint's backward solve can differentiate again."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.clone()  # a view that was made without gradients cannot be asked for one
        x = x if x.requires_grad else x.requires_grad_()
        dx = dynamics.velocity(t, x, context)
        (product,) = torch.autograd.grad(dx, x, probe, create_graph=differentiable)
    return product
