"""Conditional flow matching: training a continuous flow without solving its equation."""

import torch
from torch import Tensor

from models.flow import Flow
from models.ode.transform import ContinuousTransform
from models.training.options import TrainingError
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform


class FlowMatching:
    """Mean of |f(t, x_t) - u|^2 along straight lines between data and base noise.

    Every row y meets a latent z ~ N(0, I) and a time s ~ U(0, 1): x_t = (1 - s) y + s z, and the
    field is to be u = z - y there, at t = s T and divided by T; data at the end of the time run the
    other way. What minimises it carries the base to the data; the likelihood is not looked at.

    Args:
        flow: preprocessing without parameters, then one continuous transform and nothing else but
            `Flatten` with them.

    Raises:
        TrainingError: if the flow is another one.

    Reference: Lipman et al. 2023 (arXiv 2210.02747); Tong et al. 2024, "independent coupling",
    with sigma = 0 (arXiv 2302.00482).
    """

    def __init__(self, flow: Flow) -> None:
        chain: list[Transform] = [part for part in flow.chain if not isinstance(part, Flatten)]
        last = chain[-1] if chain else None
        if not isinstance(last, ContinuousTransform):
            kind = type(last).__name__
            raise TrainingError(f"flow matching: expected a continuous flow at the end, got {kind}")
        if isinstance(last.sqrt_end_time, torch.nn.Parameter):
            raise TrainingError("flow matching: expected learn_end_time = false, got true")
        if last.training_settings.costs:
            raise TrainingError(
                "flow matching: expected training.kinetic = 0 and training.jacobian = 0: it solves "
                "no path that could have a cost"
            )
        for part in chain[:-1]:
            if isinstance(part, ContinuousTransform) or any(True for _ in part.parameters()):
                kind = type(part).__name__
                raise TrainingError(
                    f"flow matching: expected one block behind preprocessing without parameters, "
                    f"got {kind} (num_blocks = 1 and batch_norm = false)"
                )
        self._embedding: torch.nn.Module | None = flow.context_embedding
        self._before: list[Transform] = flow.chain[: flow.chain.index(last)]
        self._continuous: ContinuousTransform = last

    def loss(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The loss of a batch, a number a dimension.   x (B, *event_shape) -> ()."""
        y = x
        if self._embedding is not None:
            context = self._embedding(context)
        with torch.no_grad():
            for part in self._before:
                y, _ = part.encode(y, context)
        block = self._continuous
        z = torch.randn_like(y)
        s = torch.rand_like(y.flatten(1)[:, :1])
        share = s.view(-1, *[1] * (y.dim() - 1))
        point, velocity = (1 - share) * y + share * z, z - y
        end = block.sqrt_end_time.square()
        t = s * end
        if block.data_time == "end":
            t, velocity = end - t, -velocity
        found = block.dynamics.velocity(t, point, context)
        error: Tensor = end * found - velocity
        return error.square().mean()
