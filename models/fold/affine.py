"""The coefficients of affine maps that do not depend on the row."""

from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.transforms.actnorm import ActNorm
from models.transforms.affine import Scale
from models.transforms.batchnorm import BatchNorm
from models.transforms.preprocess import Dequantise, ShiftScale, Standardise
from models.transforms.split import GaussianPrior

# What may stand behind a layer inside a network and is affine when evaluated.
Norm = nn.BatchNorm1d | nn.BatchNorm2d | ActNorm

Coefficients = tuple[Tensor, Tensor]


@singledispatch
def scale_and_shift(module: nn.Module) -> Coefficients:
    """(s, t) with module(x) = s x + t for every row: (C,), (1,), or the shape of an event.

    For transforms, the coefficients of encode.
    """
    raise TypeError(f"module: expected an affine map, got {type(module).__name__}")


@scale_and_shift.register
def _(module: Standardise) -> Coefficients:
    return 1 / module.std, -module.mean / module.std


@scale_and_shift.register
def _(module: Dequantise) -> Coefficients:
    width = torch.tensor([module.width], dtype=torch.float64)
    return torch.ones_like(width), width / 2


@scale_and_shift.register
def _(module: ShiftScale) -> Coefficients:
    scale, shift = torch.tensor([[module.scale], [module.shift]], dtype=torch.float64)
    return scale, shift


@scale_and_shift.register
def _(module: Scale) -> Coefficients:
    return module.log_scale.exp(), torch.zeros_like(module.log_scale)


@scale_and_shift.register
def _(module: ActNorm) -> Coefficients:
    scale = module.log_scale.exp() if module.storage == "log" else module.scale
    if module.form == "scale_then_shift":
        return scale, module.shift
    if module.form == "shift_then_scale":
        return scale, module.shift * scale
    return 1 / scale, -module.shift / scale


@scale_and_shift.register
def _(module: BatchNorm) -> Coefficients:
    is_exp = module.scale == "exp"
    weight = module.weight.exp() if is_exp else F.softplus(module.weight) + module.eps
    scale = weight * (module.running_var + module.eps).rsqrt()
    return scale, module.bias - module.running_mean * scale


@scale_and_shift.register(nn.BatchNorm1d)
@scale_and_shift.register(nn.BatchNorm2d)
def _(module: nn.BatchNorm1d | nn.BatchNorm2d) -> Coefficients:
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        raise ValueError("batch norm: expected running statistics, got none")
    scale = module.weight * (variance + module.eps).rsqrt()
    return scale, module.bias - mean * scale


@scale_and_shift.register
def _(module: GaussianPrior) -> Coefficients:
    scale = (-module.log_std).exp()
    return scale, -module.mean * scale
