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
        logits = _centred(params)
        mass = logits.exp()
        scaled = x.double() * self.num_params
        level = scaled.floor().clamp(0, self.num_params - 1)
        share = (scaled - level).clamp(0, 1)
        bins, here = self._bins(x), level.unsqueeze(-1)
        below, above = _of(bins < here, mass), _of(bins > here, mass)
        logit = _of(bins == here, logits)
        own = logit.exp()
        total = below + own + above
        lower, upper = below + own * share, above + own * (1 - share)
        tail = (torch.minimum(lower, upper) / total).clamp(min=_LEAST_TAIL)
        z = sign_of(lower - upper) * normal_quantile(tail.log())
        log_slope = logit - total.log() + math.log(self.num_params) - log_normal_density(z)
        log_slope = torch.where((x < 0) | (x > 1), -math.inf, log_slope)
        return z.to(x.dtype), log_slope.to(x.dtype)

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        z, logits = y.double(), _centred(params)
        mass = logits.exp()
        total = row_sum(mass)
        is_lower = z < 0
        # Bins are counted from the side of the tail.
        from_side = torch.where(is_lower.unsqueeze(-1), mass, _backwards(mass))
        filled = from_side.cumsum(-1)
        tail = log_normal_tail(z.abs()).exp() * total
        # Where the tail ends: in the first bin that it does not fill.
        is_filled = filled <= tail.unsqueeze(-1)
        count = row_sum(is_filled.to(z.dtype)).clamp(max=self.num_params - 1)
        level = torch.where(is_lower, count, self.num_params - 1 - count)
        bins = self._bins(y)
        start = _of(bins == count.unsqueeze(-1) - 1, filled)
        logit = _of(bins == level.unsqueeze(-1), logits)
        share = (tail - start) / logit.exp().clamp(min=_LEAST_TAIL)
        share = torch.where(is_lower, share, 1 - share).clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        log_slope = log_normal_density(z) - logit + total.log() - math.log(self.num_params)
        return ((level + share) / self.num_params).to(y.dtype), log_slope.to(y.dtype)

    def _bins(self, like: Tensor) -> Tensor:
        return torch.arange(self.num_params, dtype=torch.float64, device=like.device)


def _centred(logits: Tensor) -> Tensor:
    """Logits of which the largest is 0, in float64.   (..., L) -> same."""
    return logits.double() - logits.amax(-1, keepdim=True)


def _backwards(values: Tensor) -> Tensor:
    """The last bin first.   (..., L) -> same."""
    order = torch.arange(values.shape[-1] - 1, -1, -1, device=values.device)
    return values.index_select(-1, order)


def _of(chosen: Tensor, values: Tensor) -> Tensor:
    """The sum over the chosen bins.   (..., L) -> (...)."""
    return row_sum(torch.where(chosen, values, 0.0))
