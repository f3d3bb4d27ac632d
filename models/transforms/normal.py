"""The normal distribution function, its logarithm and its inverse, to the last digits of float64.

Only elementary functions are used, which ONNX has: onnxruntime knows erf in float32 alone.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.noise import LOG_TWO_PI

_LOG_SQRT_TWO_PI = 0.5 * LOG_TWO_PI

# Cody 1969, "Rational Chebyshev approximations for the error function", Math. Comp. 23, 631-637
# (netlib specfun/erf): erf(y) = y N(y^2) / D(y^2) for y <= 0.46875, erfcx(y) = N(y) / D(y) for
# 0.46875 <= y <= 4, and (1/sqrt(pi) - N(y^-2) / D(y^-2) / y^2) / y for y > 4; highest power first;
# errors below 1e-16.
_SMALL_Y = 0.46875
_LARGE_Y = 4.0
_NEAR_NUMERATOR = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_NEAR_DENOMINATOR = (
    1.0,
    2.36012909523441209e1,
    2.44024637934444173e2,
    1.28261652607737228e3,
    2.84423683343917062e3,
)
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
# Abramowitz & Stegun, 26.2.23: the quantile from t = sqrt(-2 log tail) is
# t - N(t) / D(t), off by 4.5e-4 at most.
_START_NUMERATOR = (0.010328, 0.802853, 2.515517)
_START_DENOMINATOR = (0.001308, 0.189269, 1.432788, 1.0)


def erfcx(y: Tensor) -> Tensor:
    """exp(y^2) erfc(y) for y >= 0, and a little below."""
    small, middle, large = y.clamp(max=_SMALL_Y), y.clamp(_SMALL_Y, _LARGE_Y), y.clamp(min=_LARGE_Y)
    square = small.square()
    ratio = polynomial(_NEAR_NUMERATOR, square) / polynomial(_NEAR_DENOMINATOR, square)
    near = square.exp() * (1 - small * ratio)
    between = polynomial(_MIDDLE_NUMERATOR, middle) / polynomial(_MIDDLE_DENOMINATOR, middle)
    flat = large.square().reciprocal()
    ratio = polynomial(_TAIL_NUMERATOR, flat) / polynomial(_TAIL_DENOMINATOR, flat)
    far = (1 / math.sqrt(math.pi) - flat * ratio) / large
    return torch.where(y < _SMALL_Y, near, torch.where(y < _LARGE_Y, between, far))


def normal_distribution(z: Tensor) -> Tensor:
    """Phi(z); small ones keep their digits."""
    tail = 0.5 * erfcx(z.abs() * math.sqrt(0.5)) * (-0.5 * z.square()).exp()
    return torch.where(z < 0, tail, 1 - tail)


def log_normal_density(z: Tensor) -> Tensor:
    """log phi(z) of the standard normal density."""
    return -0.5 * z.square() - _LOG_SQRT_TWO_PI


def log_normal_tail(z: Tensor) -> Tensor:
    """log(1 - Phi(z)), exact far out too."""
    return log_normal_cdfs(z)[1]


def log_normal_cdfs(z: Tensor) -> tuple[Tensor, Tensor]:
    """log Phi(z) and log(1 - Phi(z)), both exact far out too."""
    far, _ = _log_tail_and_hazard(sign_of(z) * z)
    near = torch.log1p(-far.exp())
    return torch.where(z < 0, far, near), torch.where(z < 0, near, far)


def normal_quantile(log_tail: Tensor) -> Tensor:
    """z >= 0 with log(1 - Phi(z)) = log_tail, for log_tail <= log(1/2).

    What is so far out that its probability underflows still has its logarithm, and keeps its
    digits. The derivative is that of the inverse function.
    """
    # Further out the powers below overflow.
    furthest = 0.1 * torch.finfo(log_tail.dtype).max ** (1 / 3)
    log_tail = log_tail.clamp(min=-0.5 * furthest**2)
    with torch.no_grad():
        t = (-2 * log_tail).sqrt()
        z = t - polynomial(_START_NUMERATOR, t) / polynomial(_START_DENOMINATOR, t)
        # Halley's step leaves 1e-10, and the one below of Newton nothing.
        found, hazard = _log_tail_and_hazard(z)
        excess = log_tail - found
        z = z - 2 * excess / (2 * hazard - excess * (hazard - z))
        found, hazard = _log_tail_and_hazard(z)
    return z - (log_tail - found) / hazard


def sign_of(x: Tensor) -> Tensor:
    """1 or -1, never 0: an exact 0 keeps its gradient."""
    return torch.where(x < 0, -1.0, 1.0).to(x.dtype)


def _log_tail_and_hazard(z: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 - Phi(z)) and phi(z) / (1 - Phi(z)) for z >= 0: nothing underflows on the way."""
    scaled_tail = 0.5 * erfcx(z * math.sqrt(0.5))
    hazard = math.exp(-_LOG_SQRT_TWO_PI) / scaled_tail
    return scaled_tail.log() - 0.5 * z.square(), hazard


def polynomial(coefficients: Sequence[float], y: Tensor) -> Tensor:
    """Horner's rule, highest power first."""
    value = torch.full_like(y, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * y + coefficient
    return value
