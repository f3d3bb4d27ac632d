"""Convolutional conditioners: Glow's three layers and RealNVP's residual network.

Each maps the kept part of an image (B, C, H, W) to parameters (B, C', H, W); the context is not
used: class-conditional image flows put it in their priors.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.transforms.actnorm import ActNorm, ScaleStorage
from models.transforms.elementwise import AffineForm

Normalisation = Literal["none", "actnorm", "batch_norm"]
Padding = Literal["zeros", "ones", "none"]
OutputPadding = Literal["zeros", "ones", "middle"]

# Standard deviation of the first weights of Glow's hidden convolutions.
_INITIAL_STD = 0.05


class ScaledConv2d(nn.Module):
    """h = (W * x + b) exp(k l), a 3x3 convolution that starts at zero.

    Args:
        log_scale_factor: k, which speeds up the learning of l; None leaves the factor out.
        padding: what surrounds the image: zeros, ones, or nothing (the image gets 2 smaller).

    Reference: Kingma & Dhariwal 2018, section 3.3 "zero initialization" (arXiv 1807.03039).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        log_scale_factor: float | None = 3.0,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        if padding not in get_args(Padding):
            raise ValueError(f"padding: expected one of {get_args(Padding)}, got {padding!r}")
        self.padding = padding
        self.log_scale_factor = log_scale_factor
        self.conv = nn.Conv2d(in_channels, out_channels, 3)
        nn.init.zeros_(self.conv.weight)
        _zero_bias(self.conv)
        if log_scale_factor is not None:
            self.log_scale = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Convolve and scale.   x (B, C, H, W) -> (B, C', H, W)."""
        if self.padding != "none":
            x = F.pad(x, (1, 1, 1, 1), value=float(self.padding == "ones"))
        h: Tensor = self.conv(x)
        if self.log_scale_factor is None:
            return h
        return h * (self.log_scale_factor * self.log_scale).exp()


class GlowNet(nn.Module):
    """Glow's conditioner: convolutions 3x3, 1x1, 3x3, the last a `ScaledConv2d`.

    `normalisation` names the order of the parts:

    - none: conv, relu, conv, relu, output; all convolutions have a bias;
    - actnorm: conv, actnorm, relu, conv, actnorm, relu, output; no bias before an actnorm (Glow);
    - batch_norm: norm, relu, conv, norm, relu, conv, norm, relu, output: pre-activation, running
      statistics when evaluated.

    Args:
        negative_slope: of the activation; 0 is the ReLU.
        actnorm_form, actnorm_storage: see `ActNorm`.
        output_padding: what the last convolution sees around the image: zeros; ones; or, with
            "middle", the zeros padded to the 1x1 convolution before it after they went through its
            normalisation and activation (one public implementation does this).
        log_scale_factor: see `ScaledConv2d`.

    Reference: Kingma & Dhariwal 2018, section 3.3 and appendix B (arXiv 1807.03039).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        *,
        normalisation: Normalisation = "actnorm",
        negative_slope: float = 0.0,
        actnorm_form: AffineForm = "shift_then_scale",
        actnorm_storage: ScaleStorage = "log",
        output_padding: OutputPadding = "zeros",
        log_scale_factor: float | None = 3.0,
    ) -> None:
        super().__init__()
        if output_padding not in get_args(OutputPadding):
            raise ValueError(
                f"output_padding: expected one of {get_args(OutputPadding)}, got {output_padding!r}"
            )
        if normalisation not in get_args(Normalisation):
            raise ValueError(
                f"normalisation: expected one of {get_args(Normalisation)}, got {normalisation!r}"
            )
        bias = normalisation == "none"
        pad_middle = output_padding == "middle"
        first = nn.Conv2d(in_channels, hidden_channels, 3, padding=1, bias=bias)
        middle = nn.Conv2d(hidden_channels, hidden_channels, 1, padding=int(pad_middle), bias=bias)
        for conv in (first, middle):
            nn.init.normal_(conv.weight, std=_INITIAL_STD)
            _zero_bias(conv)
        output = ScaledConv2d(
            hidden_channels,
            out_channels,
            log_scale_factor=log_scale_factor,
            padding="none" if output_padding == "middle" else output_padding,
        )

        norms: dict[Normalisation, Callable[[int], nn.Module]] = {
            "actnorm": partial(_ActNormLayer, form=actnorm_form, storage=actnorm_storage),
            "batch_norm": nn.BatchNorm2d,
        }

        def activated(channels: int) -> list[nn.Module]:
            norm = norms[normalisation](channels) if normalisation in norms else None
            activation = nn.LeakyReLU(negative_slope) if negative_slope else nn.ReLU()
            return [activation] if norm is None else [norm, activation]

        before_first = activated(in_channels) if normalisation == "batch_norm" else []
        self.layers = nn.Sequential(
            *before_first,
            first,
            *activated(hidden_channels),
            middle,
            *activated(hidden_channels),
            output,
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute parameters.   x (B, C, H, W) -> (B, C', H, W)."""
        h: Tensor = self.layers(x)
        return h


class WeightNormConv2d(nn.Module):
    """A convolution with W = g v / |v|, the norm taken over all axes but the first.

    Reference: Salimans & Kingma 2016, eq. 2 (arXiv 1602.07868).
    """

    def __init__(self, in_channels: int, out_channels: int, size: int, *, bias: bool) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, size)
        self.size = size
        self.direction = nn.Parameter(conv.weight.detach())
        self.gain = nn.Parameter(self._norm().detach())
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, keeping height and width.   x (B, C, H, W) -> (B, C', H, W)."""
        weight = self.gain * self.direction / self._norm()
        return F.conv2d(x, weight, self.bias, padding=self.size // 2)

    def _norm(self) -> Tensor:
        return self.direction.square().sum((1, 2, 3), keepdim=True).sqrt()


class _ResidualBlock(nn.Module):
    """h = x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            WeightNormConv2d(channels, channels, 3, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            WeightNormConv2d(channels, channels, 3, bias=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = x + self.layers(x)
        return h


class RealNVPResNet(nn.Module):
    """RealNVP's conditioner: residual blocks whose outputs are summed through 1x1 skips.

    The input is normalised, then x and -x go on together, so the first ReLU loses nothing. The
    output starts at zero.

    Args:
        double_input: doubles the normalised input, for checkerboard masks: half of what is seen
            there is zeros, which halves the variance.

    Reference: Dinh et al. 2017, section 4.1 and appendix (arXiv 1605.08803).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int,
        *,
        num_blocks: int = 8,
        double_input: bool = False,
    ) -> None:
        super().__init__()
        self.double_input = double_input
        self.input_norm = nn.BatchNorm2d(in_channels)
        self.input_conv = WeightNormConv2d(2 * in_channels, mid_channels, 3, bias=True)
        self.input_skip = WeightNormConv2d(mid_channels, mid_channels, 1, bias=True)
        self.blocks = nn.ModuleList(_ResidualBlock(mid_channels) for _ in range(num_blocks))
        self.skips = nn.ModuleList(
            WeightNormConv2d(mid_channels, mid_channels, 1, bias=True) for _ in range(num_blocks)
        )
        self.output_norm = nn.BatchNorm2d(mid_channels)
        self.output_conv = WeightNormConv2d(mid_channels, out_channels, 1, bias=True)
        nn.init.zeros_(self.output_conv.gain)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute parameters.   x (B, C, H, W) -> (B, C', H, W)."""
        x = self.input_norm(x)
        if self.double_input:
            x = 2 * x
        h = self.input_conv(F.relu(torch.cat((x, -x), 1)))
        total = self.input_skip(h)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            h = block(h)
            total = total + skip(h)
        result: Tensor = self.output_conv(F.relu(self.output_norm(total)))
        return result


class _ActNormLayer(ActNorm):
    """An `ActNorm` inside a network: its log_det is nobody's business there."""

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x)[0]


def _zero_bias(conv: nn.Conv2d) -> None:
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
