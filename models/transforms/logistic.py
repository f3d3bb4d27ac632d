"""A logistic base on top of the standard normal one."""

import math

import torch
from torch import Tensor

from models.noise import LOG_TWO_PI
from models.transforms.normal import erfcx, sign_of
from models.transforms.softplus import softplus
from models.transforms.transform import Transform, sum_event

_LOG_SQRT_TWO_PI = 0.5 * LOG_TWO_PI
# Slope of z = Phi^-1(sigmoid(x)) at 0: sigmoid'(0) / phi(0).
_SLOPE_AT_ZERO = 0.25 * math.sqrt(2 * math.pi)
# From the start below, Newton's error after this many steps is rounding for every x in float64.
_NEWTON_STEPS = 5


class LogisticToNormal(Transform):
    """z = Phi^-1(sigmoid(x)): a logistic x becomes a standard normal z.

    As the last map of a flow over N(0, I) it makes the base the logistic density
    sigmoid(x) (1 - sigmoid(x)) of NICE, exactly, and z stays standard normal. Nothing is a
    probability on the way, so the tails keep their digits: |x| up to 1e6 round-trips to 1e-13 in
    float64 and to 1e-6 in float32, both relative.

    Only elementary functions are used, which ONNX has.

    Reference: Dinh et al. 2014, NICE, section 3.4 (arXiv 1410.8516).
    """

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = _normal_from_logistic(x)
        return z, -sum_event(_log_slope(z, x))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sign = sign_of(y)
        x = sign * _logit_of_cdf(sign * y)[0]
        return x, sum_event(_log_slope(y, x))


def _log_slope(z: Tensor, x: Tensor) -> Tensor:
    """log dx/dz = log phi(z) - log sigmoid'(x)."""
    return softplus(x) + softplus(-x) - 0.5 * z.square() - _LOG_SQRT_TWO_PI


def _normal_from_logistic(x: Tensor) -> Tensor:
    """Solve logit(Phi(z)) = x by Newton's method; the function is convex for z > 0."""
    sign = sign_of(x)
    with torch.no_grad():
        size = sign * x
        linear = _SLOPE_AT_ZERO * size
        # Right to first order at 0, and sqrt(2 |x|) far out.
        z = linear / (1 + 0.5 * _SLOPE_AT_ZERO * linear).sqrt()
        for _ in range(_NEWTON_STEPS - 1):
            value, slope = _logit_of_cdf(z)
            z = z - (value - size) / slope
        value, slope = _logit_of_cdf(z)
    # The last step is differentiable: with z fixed, dz/dx = 1 / slope is the exact derivative.
    return sign * z - (sign * value - x) / slope


def _logit_of_cdf(z: Tensor) -> tuple[Tensor, Tensor]:
    """logit(Phi(z)) and its slope for z >= 0, from erfcx: the tail q = Phi(-z) never underflows."""
    scaled_tail = 0.5 * erfcx(z * math.sqrt(0.5))
    log_tail = scaled_tail.log() - 0.5 * z.square()
    tail = log_tail.exp()
    hazard = math.exp(-_LOG_SQRT_TWO_PI) / scaled_tail
    return torch.log1p(-tail) - log_tail, hazard / (1 - tail)
