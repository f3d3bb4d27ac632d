"""Operations in float64, made of others: onnxruntime has them in float32 alone.

Or it has them, and a row's bits depend on its place in the batch: see `models.onnx.pointwise`.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from models.onnx.graph import UnsupportedOperator
from models.transforms.normal import normal_distribution, polynomial

# Moshier's Cephes, atan.c: atan(x) = x + x^3 P(x^2) / Q(x^2) for |x| <= 0.66; highest power first.
_ATAN_NUMERATOR = (
    -8.750608600031904122785e-1,
    -1.615753718733365076637e1,
    -7.500855792314704667340e1,
    -1.228866684490136173410e2,
    -6.485021904942025371773e1,
)
_ATAN_DENOMINATOR = (
    1.0,
    2.485846490142306297962e1,
    1.650270098316988542046e2,
    4.328810604912902668951e2,
    4.853903996359136964868e2,
    1.945506571482613964425e2,
)
_SMALL_TANGENT, _LARGE_TANGENT = 0.66, 1 + 2**0.5


def _atan(x: Tensor) -> Tensor:
    size = x.abs()
    is_large, is_middle = size > _LARGE_TANGENT, size > _SMALL_TANGENT
    middle = (size - 1) / (size + 1)
    near = torch.where(is_large, -1 / size.clamp(min=1), torch.where(is_middle, middle, size))
    square = near * near
    ratio = polynomial(_ATAN_NUMERATOR, square) / polynomial(_ATAN_DENOMINATOR, square)
    right, half_right, zero = (torch.full_like(x, math.pi * part) for part in (1 / 2, 1 / 4, 0))
    start = torch.where(is_large, right, torch.where(is_middle, half_right, zero))
    angle = start + (near + near * square * ratio)
    return torch.where(x < 0, -angle, angle)


def _erf(x: Tensor) -> Tensor:
    return 2 * normal_distribution(x * 2**0.5) - 1


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate != "none":
        raise UnsupportedOperator(f"gelu approximated by {approximate}")
    return x * normal_distribution(x)


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    exp = (x - x.amax(dim, keepdim=True)).exp()
    return exp / exp.sum(dim, keepdim=True)


# By operation, what is traced in its place where it is asked for float64.
WIDE: dict[Any, Callable[..., Tensor]] = {
    torch.ops.aten.atan.default: _atan,
    torch.ops.aten.erf.default: _erf,
    torch.ops.aten.gelu.default: _gelu,
    torch.ops.aten._softmax.default: _softmax,
}
