"""Gaussianization: a mixture's distribution function, then the quantile of the normal one."""

import math

import torch
from torch import Tensor

from models.monotone.solver import solve_increasing
from models.ode.while_loop import Carry
from models.row_sum import row_sum
from models.transforms.elementwise import Elementwise
from models.transforms.normal import (
    log_normal_cdfs,
    log_normal_density,
    normal_quantile,
    sign_of,
)

# Where zuko's bisection ends, and what it gives for latents that no x has.
_BOUND = 10.0
# How far apart components begin, as a share of standard deviations.
_FIRST_SPREAD = 0.3
# Between components far apart they hardly rise: a step of the solver is taken as if the slope
# of the log-odds were this, or rounding would throw it out of the gap.
_LEAST_LOG_SLOPE = -30.0


class Gaussianization(Elementwise):
    """y = Phi^-1(mean_k Phi(exp(a_k) x + b_k)): a mixture of K normals becomes one.

    The parameters are (K shifts b, K log scales a). Probabilities are taken from the nearer end and
    as logarithms, so y and its slope keep their digits however far out x is. The way back is
    searched for, where the mixture's log-odds are those of y.

    Args:
        components: K.
        margin: the probability u is squeezed to margin / 2 + (1 - margin) u, as zuko does with
            1e-6: |y| then stays below 4.9. No x has latents beyond; decode gives 10 or -10 there,
            as zuko does.

    Reference: Meng et al. 2020, Gaussianization flows, section 3 (arXiv 2003.01941); Chen &
    Gopinath 2000.
    """

    def __init__(self, components: int = 8, *, margin: float = 0.0) -> None:
        super().__init__()
        self.components = components
        self.num_params = 2 * components
        self.margin = margin

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        below, above, log_density = self._mixture(x, params)
        tail = torch.minimum(below, above)
        if self.margin:
            tail = (0.5 * self.margin + (1 - self.margin) * tail.exp()).log()
            log_density = log_density + math.log1p(-self.margin)
        size = normal_quantile(tail)
        y = torch.where(below < above, -size, size)
        return y, log_density - log_normal_density(size)

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        wide = params.double().expand(*y.shape, -1)
        below, above = log_normal_cdfs(y.double())
        if self.margin:
            share = (torch.minimum(below, above).exp() - 0.5 * self.margin) / (1 - self.margin)
            has_x = share > 0
            safe = torch.where(has_x, share, 0.25)
            near, far, is_low = safe.log(), torch.log1p(-safe), below < above
            below, above = torch.where(is_low, near, far), torch.where(is_low, far, near)
        x = solve_increasing(self._log_odds, below - above, (wide,))
        if self.margin:
            x = torch.where(has_x, x, _BOUND * sign_of(y.double()))
        _, log_slope = self.encode(x, wide)
        return x.to(y.dtype), -log_slope.to(y.dtype)

    def _mixture(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logs of the mixture's probability below x and above it, and of its density."""
        shift, log_scale = params.split(self.components, -1)
        t = x[..., None] * log_scale.exp() + shift
        below, above = (_log_mean_exp(tail) for tail in log_normal_cdfs(t))
        return below, above, _log_mean_exp(log_scale + log_normal_density(t))

    def _log_odds(self, x: Tensor, given: Carry) -> tuple[Tensor, Tensor]:
        below, above, log_density = self._mixture(x, given[0])
        slope = (log_density - below - above).clamp(min=_LEAST_LOG_SLOPE).exp()
        return below - above, slope

    def first_params(self) -> list[float]:
        # Side by side, of mean 0 and variance 1 together, and nearly as wide as that: the slope far
        # out is one over the width, and maps follow each other.
        places = (torch.arange(self.components, dtype=torch.float64) + 0.5) / self.components
        means = _FIRST_SPREAD * torch.special.ndtri(places)
        width = (1 - means.square().mean()).sqrt()
        return [*(-means / width).tolist(), *[-math.log(width)] * self.components]


def _log_mean_exp(values: Tensor) -> Tensor:
    """Log of the mean of exp over the last axis, without overflow."""
    largest = values.amax(-1).clamp(min=torch.finfo(values.dtype).min)
    total = row_sum((values - largest[..., None]).exp())
    return largest + total.log() - math.log(values.shape[-1])
