"""The coefficients of affine maps that do not depend on the row."""

from functools import singledispatch

import torch
from torch import Tensor, nn

from models.transforms.actnorm import ActNorm
from models.transforms.affine import Scale
from models.transforms.batchnorm import BatchNorm
from models.transforms.preprocess import Dequantise, ShiftScale, Standardise
from models.transforms.softplus import softplus
from models.transforms.split import GaussianPrior

Coefficients = tuple[Tensor, Tensor]


class EvaluatedBatchNorm(nn.Module):
    """y = w (x - m) / sqrt(v + eps) + b, as nn.BatchNorm1d and 2d in evaluation mode.

    A module of its own because torch's does something else for an empty batch, and the export runs
    a flow on one.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("batch norm: expected running statistics, got none")
        self.register_buffer("weight", norm.weight.detach().clone())
        self.register_buffer("bias", norm.bias.detach().clone())
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("variance", norm.running_var)
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, ...) -> the same shape."""
        statistics = (self.mean, self.variance, False, 0.0, self.eps)
        y: Tensor = torch.native_batch_norm(x, self.weight, self.bias, *statistics)[0]
        return y


# What may stand behind a layer inside a network and is affine when evaluated.
Norm = EvaluatedBatchNorm | ActNorm


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
    width = module.width
    if not isinstance(width, Tensor):
        width = torch.tensor([width], dtype=torch.float64)
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
    weight = module.weight.exp() if is_exp else softplus(module.weight) + module.eps
    scale = weight * (module.running_var + module.eps).rsqrt()
    return scale, module.bias - module.running_mean * scale


@scale_and_shift.register
def _(module: EvaluatedBatchNorm) -> Coefficients:
    scale = module.weight * (module.variance + module.eps).rsqrt()
    return scale, module.bias - module.mean * scale


@scale_and_shift.register
def _(module: GaussianPrior) -> Coefficients:
    scale = (-module.log_std).exp()
    return scale, -module.mean * scale
