"""A symmetric beta base on top of the standard normal one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.transforms.uniform import UniformToNormal

# From the start in `_log_share`, Newton's error after this many steps is rounding for every tail.
_NEWTON_STEPS = 6


class BetaToNormal(UniformToNormal):
    """z = Phi^-1(I((x - low) / (high - low))), I the distribution function of Beta(n, n).

    As `UniformToNormal`, which it is for n = 1: it makes the base of the chosen features a beta
    distribution on the box, exactly. For whole n,

        I(s) = s^n (1 - s)^(n-1) sum_k C(2 n - 1, n + k) (s / (1 - s))^k,  k = 0 .. n - 1,

    whose terms are positive, so that nothing cancels in either half.

    Args:
        exponent: n, both exponents.

    Raises:
        ValueError: if n is not a positive whole number, or the box is none.

    Reference: Abramowitz & Stegun, 26.5.6.
    """

    def __init__(
        self,
        features: int,
        chosen: Sequence[int],
        low: Sequence[float],
        high: Sequence[float],
        *,
        exponent: int = 1,
    ) -> None:
        super().__init__(features, chosen, low, high)
        if exponent < 1:
            raise ValueError(f"exponent: expected a positive whole number, got {exponent}")
        self.exponent = exponent
        self._terms = [float(math.comb(2 * exponent - 1, exponent + k)) for k in range(exponent)]
        self._log_norm = math.lgamma(2 * exponent) - 2 * math.lgamma(exponent)

    def _log_tail(self, log_share: Tensor) -> Tensor:
        return self._log_tail_and_slope(log_share)[0]

    def _log_density(self, log_share: Tensor) -> Tensor:
        log_both = log_share + torch.log1p(-log_share.exp())
        return self._log_norm + (self.exponent - 1) * log_both

    def _log_share(self, log_tail: Tensor) -> Tensor:
        """Newton's method in the logarithm of the share, where log I is concave."""
        with torch.no_grad():
            # Of the line that log I comes close to far out, and stays below.
            log_share = (log_tail - math.log(self._terms[0])) / self.exponent
            for _ in range(_NEWTON_STEPS):
                found, slope = self._log_tail_and_slope(log_share)
                log_share = log_share - (found - log_tail) / slope
            found, slope = self._log_tail_and_slope(log_share)
        # The last step is differentiable, as the inverse function is.
        return log_share - (found - log_tail) / slope

    def _log_tail_and_slope(self, log_share: Tensor) -> tuple[Tensor, Tensor]:
        """log I(s) and its derivative in log s, for s up to 1/2."""
        share = log_share.exp()
        log_rest = torch.log1p(-share)
        ratio = share / (1 - share)
        total = torch.full_like(ratio, self._terms[-1])
        for term in self._terms[-2::-1]:
            total = total * ratio + term
        log_tail = self.exponent * log_share + (self.exponent - 1) * log_rest + total.log()
        # s f(s) / I(s), in which all but the sum cancels.
        return log_tail, math.exp(self._log_norm) / total
