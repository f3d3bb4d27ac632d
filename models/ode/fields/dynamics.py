"""The interface of a vector field, and derivatives for those that have no formula of their own."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from models.row_sum import row_sum


class Dynamics(nn.Module, ABC):
    """dx/dt = f(t, x, context), where every row has its own time.

    t is (B, 1), x is (B, *event_shape). With probes e, the quadratic forms e^T (df/dx) e give the
    trace of the Jacobian: exactly where the probes are chosen for it (`exact_probes`), in
    expectation where they are random. A new field need only write `velocity`.

    Args:
        event_shape: shape of one x.

    Attributes:
        most_exact_probes: up to how many probes the trace is exact where nothing else is asked for.
    """

    most_exact_probes = 1024

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = event_shape

    @abstractmethod
    def velocity(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """dx/dt.   t (B, 1), x (B, *event_shape) -> (B, *event_shape)."""

    @property
    def width(self) -> int:
        """Numbers a row takes at the widest place of the field."""
        return math.prod(self.event_shape)

    @property
    def num_exact_probes(self) -> int:
        """How many probes the exact trace takes."""
        return math.prod(self.event_shape)

    def exact_probes(self, like: Tensor) -> Tensor:
        """Probes whose forms sum to the trace of any Jacobian this field can have.

        Here the D unit vectors.   -> (K, *event_shape) with the dtype and device of `like`.
        """
        features = math.prod(self.event_shape)
        eye = torch.eye(features, dtype=like.dtype, device=like.device)
        return eye.view(features, *self.event_shape)

    def velocity_and_forms(
        self, t: Tensor, x: Tensor, probes: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """dx/dt and e_k^T (df/dx) e_k.

        By vector-Jacobian products, batched over the probes.

        Args:
            probes: (K, *event_shape) for all rows, or (B, K, *event_shape).

        Returns:
            dx/dt (B, *event_shape) and the forms (B, K).
        """
        differentiable = torch.is_grad_enabled()
        # Tensors made in inference mode cannot be recorded by autograd: copies made outside can.
        with torch.inference_mode(mode=False), torch.enable_grad():
            t, x, probes = t.clone(), x.clone(), probes.clone()
            context = None if context is None else context.clone()
            x = x if x.requires_grad else x.requires_grad_()
            dx = self.velocity(t, x, context)
            each = probes if probes.dim() > x.dim() else probes.unsqueeze(0)
            vectors = each.expand(x.shape[0], *each.shape[1:]).transpose(0, 1)
            (products,) = torch.autograd.grad(
                dx, x, vectors, is_grads_batched=True, create_graph=differentiable
            )
            forms = row_sum((products * vectors).flatten(2), 2).T
        return (dx, forms) if differentiable else (dx.detach(), forms.detach())

    def velocity_and_trace(
        self, t: Tensor, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """dx/dt and the exact trace of df/dx.

        Returns:
            (B, *event_shape), (B,).
        """
        dx, forms = self.velocity_and_forms(t, x, self.exact_probes(x), context)
        return dx, row_sum(forms, 1)
