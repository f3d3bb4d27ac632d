"""Piecewise constant densities on [0, 1]: what an autoregressive model over levels is as a flow."""

import math

import torch
from torch import Tensor

from models.row_sum import row_sum
from models.transforms.elementwise import Elementwise
from models.transforms.normal import (
    log_normal_density,
    log_normal_tail,
    normal_quantile,
    sign_of,
)

# How near to an end of its bin a decoded value may lie, as a share of the bin: nearer, rounding
# to float32 would put it into the next.
_LEAST_SHARE = 2.0**-14
# A tail is this much at least: the quantile is finite.
_LEAST_TAIL = 1e-300


class Histogram(Elementwise):
    """z = Phi^-1(F(x)), F the distribution function of x in [0, 1] with L bins of equal width.

    The parameters of an element are the L logits of its bins. A value inside bin k has the density
    L p_k: with data in the middle of L levels, dequantised by uniform noise of one bin, the
    log-density is log p of the level itself plus log L. Sums from both ends keep the digits of
    small tails. Everything is computed in float64. Outside of [0, 1] the log-slope is -inf.

    Reference: van den Oord et al. 2016, PixelRNN, section 2.2 (arXiv 1601.06759), made a flow by
    dequantisation.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels: expected 2 or more, got {levels}")
        self.num_params = levels

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        log_p = _log_shares(params.double())
        below, above = _tails(log_p.exp())
        scaled = x.double() * self.num_params
        level = scaled.floor().clamp(0, self.num_params - 1)
        share = (scaled - level).clamp(0, 1)
        chosen = self._bins(x) == level.unsqueeze(-1)
        log_mass = _at(chosen, log_p)
        mass = log_mass.exp()
        lower = _at(chosen, below) + mass * share
        upper = _at(chosen, above) + mass * (1 - share)
        tail = torch.minimum(lower, upper).clamp(min=_LEAST_TAIL)
        z = sign_of(lower - upper) * normal_quantile(tail.log())
        log_slope = log_mass + math.log(self.num_params) - log_normal_density(z)
        log_slope = torch.where((x < 0) | (x > 1), -math.inf, log_slope)
        return z.to(x.dtype), log_slope.to(x.dtype)

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        z, log_p = y.double(), _log_shares(params.double())
        mass = log_p.exp()
        below, above = _tails(mass)
        tail = log_normal_tail(z.abs()).exp().unsqueeze(-1)
        is_lower = (z < 0).unsqueeze(-1)
        # Where the tail ends, counted from its own side: in the first bin that it does not fill.
        is_filled = torch.where(is_lower, below, above) + mass <= tail
        count = row_sum(is_filled.to(z.dtype)).clamp(max=self.num_params - 1)
        level = torch.where(z < 0, count, self.num_params - 1 - count)
        chosen = self._bins(y) == level.unsqueeze(-1)
        log_mass = _at(chosen, log_p)
        start = torch.where(z < 0, _at(chosen, below), _at(chosen, above))
        share = (tail.squeeze(-1) - start) / log_mass.exp().clamp(min=_LEAST_TAIL)
        share = torch.where(z < 0, share, 1 - share).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        log_slope = log_normal_density(z) - log_mass - math.log(self.num_params)
        return ((level + share) / self.num_params).to(y.dtype), log_slope.to(y.dtype)

    def _bins(self, like: Tensor) -> Tensor:
        return torch.arange(self.num_params, dtype=torch.float64, device=like.device)


def _log_shares(logits: Tensor) -> Tensor:
    """Logarithms of the softmax, of operations that ONNX has in float64.   (..., L) -> same."""
    centred = logits - logits.amax(-1, keepdim=True)
    return centred - row_sum(centred.exp())[..., None].log()


def _tails(mass: Tensor) -> tuple[Tensor, Tensor]:
    """What lies below each bin, and above it.   (..., L) -> two of (..., L)."""
    below = mass.cumsum(-1) - mass
    backwards = torch.arange(mass.shape[-1] - 1, -1, -1, device=mass.device)
    sums = mass.index_select(-1, backwards).cumsum(-1)
    above = sums.index_select(-1, backwards) - mass
    return below.clamp(min=0), above.clamp(min=0)


def _at(chosen: Tensor, values: Tensor) -> Tensor:
    """The value of the chosen bin.   (..., L) -> (...)."""
    return row_sum(torch.where(chosen, values, 0.0))
