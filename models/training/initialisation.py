"""Data-dependent initialisation: layers that take their first values from a batch."""

import torch
from torch import Tensor

from models.flow import Flow
from models.transforms.actnorm import ActNorm
from models.transforms.transform import Transform


@torch.no_grad()
def initialise_actnorm(
    flow: Flow | Transform, batch: Tensor, context: Tensor | None = None
) -> None:
    """Encode `batch` once and set every `ActNorm` on the way from its own input.

    An explicit act of training. Layers inside conditioners are set too: each sees its input as
    the layers before it, already set, produce it.

    Args:
        flow: a `Flow` or `Transform`.
        batch: (B, *event_shape), enough rows for a mean and a variance.
        context: (B, *context_shape) for a conditional flow.

    Reference: Kingma & Dhariwal 2018, section 3.1; Salimans & Kingma 2016 (arXiv 1602.07868).
    """
    layers = [module for module in flow.modules() if isinstance(module, ActNorm)]
    if not layers:
        return
    for layer in layers:
        layer.takes_statistics = True
    try:
        flow.encode(batch, context)
    finally:
        for layer in layers:
            layer.takes_statistics = False
