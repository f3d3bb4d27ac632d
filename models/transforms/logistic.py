"""A logistic base on top of the standard normal one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.noise import LOG_TWO_PI
from models.transforms.softplus import softplus
from models.transforms.transform import Transform, sum_event

_LOG_SQRT_TWO_PI = 0.5 * LOG_TWO_PI
# Slope of z = Phi^-1(sigmoid(x)) at 0: sigmoid'(0) / phi(0).
_SLOPE_AT_ZERO = 0.25 * math.sqrt(2 * math.pi)
# From the start below, Newton's error after this many steps is rounding for every x in float64.
_NEWTON_STEPS = 5

# Cody 1969, "Rational Chebyshev approximations for the error function", Math. Comp. 23, 631-637
# (netlib specfun/erf): erfcx(y) = N(y) / D(y) for 0.46875 <= y <= 4, and
# (1/sqrt(pi) - N(y^-2) / D(y^-2) / y^2) / y for y > 4; highest power first; errors below 1e-16.
_SMALL_Y = 0.46875
_LARGE_Y = 4.0
_MIDDLE_NUMERATOR = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_MIDDLE_DENOMINATOR = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)
_TAIL_NUMERATOR = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
_TAIL_DENOMINATOR = (
    1.0,
    2.56852019228982242e0,
    1.87295284992346725e0,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)


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
        sign = _sign(y)
        x = sign * _logit_of_cdf(sign * y)[0]
        return x, sum_event(_log_slope(y, x))


def _log_slope(z: Tensor, x: Tensor) -> Tensor:
    """log dx/dz = log phi(z) - log sigmoid'(x)."""
    return softplus(x) + softplus(-x) - 0.5 * z.square() - _LOG_SQRT_TWO_PI


def _normal_from_logistic(x: Tensor) -> Tensor:
    """Solve logit(Phi(z)) = x by Newton's method; the function is convex for z > 0."""
    sign = _sign(x)
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


def _sign(x: Tensor) -> Tensor:
    """1 or -1, never 0: an exact 0 keeps its gradient."""
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def _logit_of_cdf(z: Tensor) -> tuple[Tensor, Tensor]:
    """logit(Phi(z)) and its slope for z >= 0, from erfcx: the tail q = Phi(-z) never underflows."""
    scaled_tail = 0.5 * _erfcx(z * math.sqrt(0.5))
    log_tail = scaled_tail.log() - 0.5 * z.square()
    tail = log_tail.exp()
    hazard = math.exp(-_LOG_SQRT_TWO_PI) / scaled_tail
    return torch.log1p(-tail) - log_tail, hazard / (1 - tail)


def _erfcx(y: Tensor) -> Tensor:
    """exp(y^2) erfc(y) for y >= 0."""
    small, middle, large = y.clamp(max=_SMALL_Y), y.clamp(_SMALL_Y, _LARGE_Y), y.clamp(min=_LARGE_Y)
    near = small.square().exp() * (1 - torch.erf(small))
    between = _polynomial(_MIDDLE_NUMERATOR, middle) / _polynomial(_MIDDLE_DENOMINATOR, middle)
    flat = large.square().reciprocal()
    ratio = _polynomial(_TAIL_NUMERATOR, flat) / _polynomial(_TAIL_DENOMINATOR, flat)
    far = (1 / math.sqrt(math.pi) - flat * ratio) / large
    return torch.where(y < _SMALL_Y, near, torch.where(y < _LARGE_Y, between, far))


def _polynomial(coefficients: Sequence[float], y: Tensor) -> Tensor:
    """Horner's rule, highest power first."""
    value = torch.full_like(y, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * y + coefficient
    return value
