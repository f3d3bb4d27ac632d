"""Activation normalisation: one scale and shift a channel, first set from data, then trained."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from models.transforms.elementwise import AffineForm
from models.transforms.transform import Transform, channel_log_det, per_channel

ScaleStorage = Literal["log", "direct"]

# What Glow's code adds to the standard deviation: a constant channel must not divide by zero.
MIN_STD = 1e-6


class ActNorm(Transform):
    """y = s x + t for every channel of (B, C) or (B, C, H, W), and its variants.

    `form`, in the direction data to latents:

    - scale_then_shift: y = x s + t
    - shift_then_scale: y = (x + t) s (Glow)
    - unshift_then_unscale: y = (x - t) / s

    `storage` says what is trained: `log`, s = exp(log_scale) > 0; `direct`, s itself, which may
    become negative (log_det takes |s|).

    The layer keeps no "initialised" flag: setting it from data is an act of training, done once by
    `models.training.initialisation` before the first step, and never happens on loading or serving.

    Attributes:
        takes_statistics: while it is true, `encode` first sets the layer from its input.

    Reference: Kingma & Dhariwal 2018, section 3.1 (arXiv 1807.03039).
    """

    def __init__(
        self,
        channels: int,
        form: AffineForm = "shift_then_scale",
        storage: ScaleStorage = "log",
    ) -> None:
        super().__init__()
        if form not in get_args(AffineForm):
            raise ValueError(f"form: expected one of {get_args(AffineForm)}, got {form!r}")
        if storage not in get_args(ScaleStorage):
            raise ValueError(f"storage: expected one of {get_args(ScaleStorage)}, got {storage!r}")
        self.form = form
        self.storage = storage
        self.shift = nn.Parameter(torch.zeros(channels))
        if storage == "log":
            self.log_scale = nn.Parameter(torch.zeros(channels))
        else:
            self.scale = nn.Parameter(torch.ones(channels))
        self.takes_statistics = False

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.takes_statistics:
            self.initialise(x)
        shift, scale, log_det = self._constants(x)
        if self.form == "scale_then_shift":
            return x * scale + shift, log_det
        if self.form == "shift_then_scale":
            return (x + shift) * scale, log_det
        return (x - shift) / scale, -log_det

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, scale, log_det = self._constants(y)
        if self.form == "scale_then_shift":
            return (y - shift) / scale, -log_det
        if self.form == "shift_then_scale":
            return y / scale - shift, -log_det
        return y * scale + shift, log_det

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set shift and scale so that `encode(x)` has zero mean and unit variance a channel.

        Raises:
            ValueError: if x has fewer than two values a channel.
        """
        values = x.transpose(0, 1).flatten(1)
        if values.shape[1] < 2:
            raise ValueError("actnorm: expected at least 2 values a channel, got 1; use more rows")
        mean, std = values.mean(1), values.std(1, correction=0) + MIN_STD
        scale = std if self.form == "unshift_then_unscale" else 1 / std
        shift = {
            "scale_then_shift": -mean / std,
            "shift_then_scale": -mean,
            "unshift_then_unscale": mean,
        }[self.form]
        self.shift.copy_(shift)
        if self.storage == "log":
            self.log_scale.copy_(scale.log())
        else:
            self.scale.copy_(scale)

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shift and scale, lined up with `like`, and the log-det of multiplying by the scale."""
        shift = per_channel(self.shift, like)
        if self.storage == "log":
            scale = per_channel(self.log_scale.exp(), like)
            return shift, scale, channel_log_det(self.log_scale, like)
        log_det = channel_log_det(self.scale.abs().log(), like)
        return shift, per_channel(self.scale, like), log_det
