"""Monotone maps of one variable by networks of their own: every feature has one.

A conditioner gives each feature a signal, which its network sees beside x. Weights are stacked,
(D, out, in), one network a feature.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.conditioners.activations import Activation, pointwise
from models.monotone.polynomial import Quadrature
from models.monotone.solver import Monotone

# Of zuko's UNAF: the logarithm of the integrand is bound to +-7, its integral has 32 points.
_LOG_BOUND = 7.0
_POINTS = 32


class StackedLinear(nn.Module):
    """W_d h_d + b_d for every feature d.   (B, D, ..., in) -> (B, D, ..., out)."""

    def __init__(self, features: int, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, after, before))
        self.bias = nn.Parameter(torch.zeros(features, after))
        nn.init.uniform_(self.weight, -(before**-0.5), before**-0.5)

    def forward(self, hidden: Tensor, *, positive: bool = False) -> Tensor:
        """Hidden (B, D, in) or (B, D, n, in) -> the same with `out` in the place of `in`.

        Args:
            positive: take the absolute values of the weights.
        """
        bias = self.bias.to(hidden.dtype)
        found = self.product(hidden, positive=positive)
        return found + (bias if hidden.dim() == 3 else bias[:, None])

    def product(self, hidden: Tensor, *, positive: bool = False) -> Tensor:
        """W_d h_d alone."""
        # Roots are found in float64, whatever the dtype of the flow.
        weight = self.weight.to(hidden.dtype)
        weight = weight.abs() if positive else weight
        # A product of batched matrices has no form in ONNX whose rows are those of the batch.
        pairs = zip(hidden.unbind(1), weight, strict=True)
        return torch.stack([F.linear(values, matrix) for values, matrix in pairs], 1)

    def keep(self, features: Sequence[int]) -> None:
        """Keep the layers of some of the features, in that order."""
        index = torch.as_tensor(features, device=self.weight.device)
        for name in ("weight", "bias"):
            kept = getattr(self, name).detach()[index]
            setattr(self, name, nn.Parameter(kept, requires_grad=self.weight.requires_grad))


class _StackedNetwork(Monotone):
    """Networks over [x, signal], one a feature.

    Args:
        features: D.
        signal: length of what the conditioner gives.
        widths: of the hidden layers.
    """

    def __init__(self, features: int, signal: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.signal = signal
        sizes = (1 + signal, *widths, 1)
        self.layers = nn.ModuleList(StackedLinear(features, *pair) for pair in pairwise(sizes))

    def only(self, features: Sequence[int]) -> Self:
        part = copy.deepcopy(self)
        for layer in part.stacked:
            layer.keep(features)
        return part

    @property
    def stacked(self) -> list[StackedLinear]:
        """The layers."""
        return cast(list[StackedLinear], list(self.layers))


class MonotoneNetwork(_StackedNetwork):
    """y = a network over [x, signal] whose weights are all positive.

    Hidden units are cut in two halves, elu(u) and -elu(-u), so that the map goes on in both
    directions; the last layer is linear.

    Reference: Huang et al. 2018, neural autoregressive flows (arXiv 1804.00779); zuko's NAF.
    """

    def __init__(self, features: int, signal: int = 16, widths: Sequence[int] = (64, 64)) -> None:
        super().__init__(features, signal, widths)
        self.num_params = signal

    def value_and_slope(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        first, *others = self.stacked
        signal = params.expand(*x.shape, -1)
        value = first(torch.cat((x[..., None], signal), -1), positive=True)
        slope = first.weight[..., 0].abs().to(x.dtype).expand_as(value)
        for layer in others:
            value, slope = _two_way_elu(value, slope)
            value = layer(value, positive=True)
            slope = layer.product(slope, positive=True)
        return value[..., 0], slope[..., 0]


class MonotoneIntegral(_StackedNetwork):
    """y = c + integral_0^x g(u) du, g = exp(a / (1 + |a / 7|)), a = network over [u, signal].

    The parameters are the signal, then c. The integral is Gauss-Legendre's with 32 points; its
    slope is taken to be g(x), from which far out it differs by the error of the quadrature.

    Reference: Wehenkel & Louppe 2019, UMNN (arXiv 1908.05164); zuko's UNAF.
    """

    def __init__(
        self,
        features: int,
        signal: int = 16,
        widths: Sequence[int] = (64, 64),
        activation: Activation = "elu",
    ) -> None:
        super().__init__(features, signal, widths)
        self.num_params = signal + 1
        self.activation = pointwise(activation)
        self.quadrature = Quadrature(_POINTS)

    def value_and_slope(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        signal = params[..., None, :-1]
        # The integrand at the points of the quadrature, and at x itself.
        places = torch.cat((self.quadrature.points(x), x[..., None]), -1)
        densities = self._density(places, signal.expand(*places.shape, -1))
        value = params[..., -1] + self.quadrature.integral(x, densities[..., :-1])
        return value, densities[..., -1]

    def _density(self, u: Tensor, signal: Tensor) -> Tensor:
        first, *others = self.stacked
        value = first(torch.cat((u[..., None], signal), -1))
        for layer in others:
            value = layer(self.activation(value))
        raw: Tensor = value[..., 0]
        return (raw / (1 + (raw / _LOG_BOUND).abs())).exp()


def _two_way_elu(value: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """elu(u) of the first half, -elu(-u) of the second, and the slopes behind them."""
    half = (value.shape[-1] + 1) // 2
    first, second = value[..., :half], value[..., half:]
    bent = torch.cat((F.elu(first), -F.elu(-second)), -1)
    # Where a unit is bent its slope is exp of minus its distance from 0.
    distance = torch.cat((-first, second), -1).clamp(min=0)
    return bent, slope * (-distance).exp()
