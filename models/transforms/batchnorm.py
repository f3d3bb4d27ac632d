"""Batch normalisation as a layer of a flow: an affine map of every channel."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from models.transforms.softplus import softplus
from models.transforms.transform import Transform, channel_log_det, per_channel

NormScale = Literal["exp", "softplus"]
NormStatistics = Literal["batch", "running"]


class BatchNorm(Transform):
    """y = s (x - m) / sqrt(v + eps) + b for every channel of (B, C) or (B, C, H, W).

    m and v are running statistics: in evaluation mode, and always in decode, this is a fixed affine
    map. `scale` says how the weight w makes s: "exp", s = e^w; "softplus", s = log(1 + e^w) + eps
    (nflows). Where a source adds eps to the variance before storing it, eps is 0 here.

    In train mode the running statistics follow those of the batch, and encode uses, by
    `statistics`: "batch", those of the batch itself, as constants in the log-det (RealNVP; rows
    then depend on each other); "running", the running ones as they were before (FFJORD).

    Args:
        channels: C.
        scale: how the weight is read.
        eps: added to the variance.
        momentum: weight of the new value in the running statistics; the variance is unbiased.
        statistics: what encode uses in train mode.

    Raises:
        ValueError: in train mode, if a channel has a single value.

    Reference: Dinh et al. 2017, section 3.7 (arXiv 1605.08803).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        scale: NormScale = "exp",
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        statistics: NormStatistics = "batch",
    ) -> None:
        super().__init__()
        if scale not in get_args(NormScale):
            raise ValueError(f"scale: expected one of {get_args(NormScale)}, got {scale!r}")
        if statistics not in get_args(NormStatistics):
            raise ValueError(
                f"statistics: expected one of {get_args(NormStatistics)}, got {statistics!r}"
            )
        self.scale = scale
        self.eps = eps
        self.momentum = momentum
        self.statistics = statistics
        # s = 1 to begin with.
        start = 0.0 if scale == "exp" else math.log(math.expm1(1 - eps))
        self.weight = nn.Parameter(torch.full((channels,), start))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, variance = self._follow(x) if self.training else (self.running_mean, self.running_var)
        log_scale = self._log_scale(variance)
        scale = per_channel(log_scale.exp(), x)
        y = (x - per_channel(mean, x)) * scale + per_channel(self.bias, x)
        return y, channel_log_det(log_scale, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale(self.running_var)
        scale = per_channel((-log_scale).exp(), y)
        x = (y - per_channel(self.bias, y)) * scale + per_channel(self.running_mean, y)
        return x, -channel_log_det(log_scale, y)

    def _log_scale(self, variance: Tensor) -> Tensor:
        """log(s / sqrt(v + eps)).   (C,) -> (C,)."""
        log_weight = (
            self.weight if self.scale == "exp" else torch.log(softplus(self.weight) + self.eps)
        )
        return log_weight - 0.5 * torch.log(variance + self.eps)

    def _follow(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Move the running statistics towards the batch's; return those that encode uses."""
        values = x.transpose(0, 1).flatten(1)
        if values.shape[1] < 2:
            raise ValueError("batch norm: expected 2 or more values a channel to train on, got 1")
        variance, mean = torch.var_mean(values, 1)
        used = self.running_mean.clone(), self.running_var.clone()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return (mean, variance) if self.statistics == "batch" else used
