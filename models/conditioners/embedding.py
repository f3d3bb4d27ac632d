"""Networks over contexts: what a conditional flow sees in place of the context itself."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.conditioners.activations import Activation, pointwise


class StandardiseContext(nn.Module):
    """(context - mean) / std, with one mean and std a number of the context; never trained.

    Both come with a checkpoint; until then they are 0 and 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def forward(self, context: Tensor) -> Tensor:
        """Context (B, C) -> (B, C)."""
        return (context - self.mean) / self.std


class PointwiseActivation(nn.Module):
    """A nonlinearity by name, as a module of a sequence."""

    def __init__(self, name: Activation, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.function: Callable[[Tensor], Tensor] = pointwise(name, negative_slope)

    def forward(self, value: Tensor) -> Tensor:
        """Value (B, n) -> (B, n)."""
        return self.function(value)


class LayerNorm(nn.Module):
    """weight (h - mean) / sqrt(variance + eps) + bias, with mean and variance over each row.

    Reference: Ba et al. 2016, eq. 4 (arXiv 1607.06450).
    """

    def __init__(self, features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden (B, ..., n) -> the same shape."""
        variance, mean = torch.var_mean(hidden, dim=-1, keepdim=True, correction=0)
        return (hidden - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias


class ContextEmbedding(nn.Sequential):
    """Modules in a row over contexts: (B, C) -> (B, E).

    It is computed once a call, before the first transform, and has no log-det: a change of the
    variable that a density is conditioned on does not change the density.
    """

    def __init__(self, steps: Sequence[nn.Module]) -> None:
        super().__init__(*steps)
