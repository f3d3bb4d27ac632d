"""Pointwise functions inside kernels, by name.

They are made of exp, log and erf alone, which devices and Triton's interpreter both have.
"""

import math

import triton
import triton.language as tl

from models.transforms.elementwise import MIN_SCALE

_SELU_ALPHA = tl.constexpr(1.6732632423543772)
_SELU_SCALE = tl.constexpr(1.0507009873554805)
_ROOT_HALF = tl.constexpr(math.sqrt(0.5))
_MIN_SCALE = tl.constexpr(MIN_SCALE)
_LOG_MIN_SCALE = tl.constexpr(math.log(MIN_SCALE))


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x < 0, small, 1.0) / (1.0 + small)


@triton.jit
def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def tanh(x):
    """The hyperbolic tangent; its absolute error is that of rounding."""
    small = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0, -size, size)


@triton.jit
def activation(x, NAME: tl.constexpr, SLOPE):
    """A nonlinearity of `models.conditioners.activations` or `models.ode.fields.activations`.

    SLOPE is that of leaky_relu for x < 0, and the beta of swish.
    """
    if NAME == "relu":
        x = tl.where(x > 0, x, 0.0)
    elif NAME == "leaky_relu":
        x = tl.where(x > 0, x, SLOPE * x)
    elif NAME == "elu":
        x = tl.where(x > 0, x, tl.exp(tl.minimum(x, 0.0)) - 1.0)
    elif NAME == "selu":
        below = _SELU_ALPHA * (tl.exp(tl.minimum(x, 0.0)) - 1.0)
        x = _SELU_SCALE * tl.where(x > 0, x, below)
    elif NAME == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * _ROOT_HALF))
    elif NAME == "silu":
        x = x * sigmoid(x)
    elif NAME == "softplus":
        x = softplus(x)
    elif NAME == "sigmoid":
        x = sigmoid(x)
    elif NAME == "tanh":
        x = tanh(x)
    elif NAME == "square":
        x = x * x
    elif NAME == "swish":
        x = x * sigmoid(SLOPE * x)
    return x


@triton.jit
def slope_of(x, y, NAME: tl.constexpr, beta):
    """The slope at x, where y is the value there, as `models.ode.fields.activations` has it."""
    slope = x * 0.0 + 1.0
    if NAME == "tanh":
        slope = 1.0 - y * y
    elif NAME == "relu":
        slope = tl.where(x > 0, 1.0, 0.0)
    elif NAME == "softplus":
        slope = sigmoid(x)
    elif NAME == "elu":
        slope = tl.minimum(y, 0.0) + 1.0
    elif NAME == "selu":
        slope = tl.where(x > 0, _SELU_SCALE, y + _SELU_SCALE * _SELU_ALPHA)
    elif NAME == "square":
        slope = 2.0 * x
    elif NAME == "swish":
        gate = sigmoid(beta * x)
        slope = gate + beta * y * (1.0 - gate)
    return slope


@triton.jit
def log_scale(raw, NAME: tl.constexpr):
    """log s from a network's output: LOG_SCALES of `models.transforms.elementwise`."""
    if NAME == "sigmoid":
        raw = -softplus(-raw)
    elif NAME == "floored_sigmoid":
        raw = tl.log(sigmoid(raw) + _MIN_SCALE)
    elif NAME == "floored_softplus":
        raw = tl.log(softplus(raw) + _MIN_SCALE)
    elif NAME == "soft_clamp":
        raw = raw / (1.0 + tl.abs(raw / _LOG_MIN_SCALE))
    elif NAME == "tanh":
        raw = tanh(raw)
    return raw
