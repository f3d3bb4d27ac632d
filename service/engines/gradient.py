"""The gradient of log p with respect to the pixels, by torch."""

from typing import TYPE_CHECKING

from service.contracts import Array
from service.engines.flow_on_demand import FlowOnDemand

if TYPE_CHECKING:
    from models.flow import Flow


class PixelGradient:
    """d log p / d x of the rows of one model, in nats per unit of x.

    Args:
        flow: of the model.
    """

    def __init__(self, flow: FlowOnDemand) -> None:
        self._flow = flow

    @property
    def refusal(self) -> str:
        """Why there is none, as far as is known without reading the model; else empty."""
        return self._flow.refusal("gradients")

    def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        """Compute the gradient of each row: (B, *event_shape), and its log p (B,).

        Continuous flows are solved row by row as for any answer, and differentiated through.

        Raises:
            FlowUnavailable, EngineOutOfMemory, EngineLost: as `FlowOnDemand.run`.
        """
        return self._flow.run(lambda flow: self._compute(flow, x, context))

    def _compute(self, flow: "Flow", x: Array, context: Array | None) -> tuple[Array, Array]:
        import torch

        from models.noise import base_log_prob_torch

        with torch.enable_grad():
            rows = torch.from_numpy(x).to(self._flow.device).requires_grad_(True)
            condition = None if context is None else torch.from_numpy(context).to(self._flow.device)
            z, log_det = flow.encode(rows, condition)
            log_prob = base_log_prob_torch(z) + log_det
            # Rows do not see each other: the gradient of the sum holds that of each row.
            (gradient,) = torch.autograd.grad(log_prob.sum(), rows)
        return gradient.cpu().numpy(), log_prob.detach().cpu().numpy()
