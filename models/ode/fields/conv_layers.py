"""Convolutions that depend on the time: each is a part linear in its input, and the rest."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ConvLayerType = Literal[
    "ignore", "concat", "squash", "concatsquash", "blend", "hyper", "concatcoord"
]
Stride = Literal[1, 2, -2]

# Spread of a hypernetwork's first biases: FFJORD's code.
_HYPERNET_STD = 0.01


def kernel_size(stride: int) -> int:
    """Side of the kernel that goes with a stride: 3 for 1, 4 for halving and doubling."""
    return 3 if stride == 1 else 4


def _convolution(
    in_channels: int, out_channels: int, stride: int
) -> nn.Conv2d | nn.ConvTranspose2d:
    kind = nn.ConvTranspose2d if stride < 0 else nn.Conv2d
    return kind(in_channels, out_channels, kernel_size(stride), abs(stride), padding=1)


def _convolve(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Convolve without bias: 3x3 (stride 1), 4x4 halving (2), or 4x4 transposed, doubling (-2)."""
    if stride < 0:
        return F.conv_transpose2d(x, weight, stride=-stride, padding=1)
    return F.conv2d(x, weight, stride=stride, padding=1)


def _spatial(values: Tensor) -> Tensor:
    return values[..., None, None]


class ConvLayer(nn.Module, ABC):
    """A convolution whose weights may depend on the time: h -> linear(t, h) + offset(t).

    Args:
        stride: 1 keeps the size, 2 halves it, -2 doubles it.
    """

    def __init__(self, stride: Stride) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """linear(t, h) + offset(t).   t (B, 1), h (B, C, H, W) -> (B, C', H', W')."""
        return self.linear(t, h) + self.offset(t, h.shape[2:])

    @abstractmethod
    def linear(self, t: Tensor, h: Tensor) -> Tensor:
        """The part linear in h.   t (B, 1), h (B, C, H, W) -> (B, C', H', W')."""

    @abstractmethod
    def offset(self, t: Tensor, size: torch.Size) -> Tensor:
        """The rest.   t (B, 1), size (H, W) of h -> (B or 1, C', H' or 1, W' or 1)."""


class ModulatedConv(ConvLayer):
    """sigmoid(a t + c) * (W [h; extra] + b) + d t, with the parts that are switched on.

    `extra` names further input channels: "time" puts t before h; "coordinates" puts t, the row
    and the column of the pixel (as whole numbers) after it. `gated` adds the sigmoid, `shifted`
    the d t. Extra channels are padded with zeros like any other, so at the border they count less.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: Stride,
        *,
        extra: Literal["none", "time", "coordinates"] = "none",
        gated: bool = False,
        shifted: bool = False,
    ) -> None:
        super().__init__(stride)
        self.extra = extra
        before, after = {"none": (0, 0), "time": (1, 0), "coordinates": (0, 3)}[extra]
        self._sizes = (before, in_channels, after)
        self.conv = _convolution(before + in_channels + after, out_channels, stride)
        self.gate = nn.Linear(1, out_channels) if gated else None
        self.shift = nn.Linear(1, out_channels, bias=False) if shifted else None

    def linear(self, t: Tensor, h: Tensor) -> Tensor:
        """The part linear in h.   t (B, 1), h (B, C, H, W) -> (B, C', H', W')."""
        product = _convolve(h, self._weights()[1], self.stride)
        return product if self.gate is None else product * _spatial(torch.sigmoid(self.gate(t)))

    def offset(self, t: Tensor, size: torch.Size) -> Tensor:
        """The rest.   t (B, 1), size (H, W) of h -> (B or 1, C', H' or 1, W' or 1)."""
        before, _, after = self._weights()
        bias = cast(Tensor, self.conv.bias)
        offset = _spatial(bias.unsqueeze(0))
        if self.extra != "none":
            weight = before if self.extra == "time" else after
            offset = offset + self._extra_channels(t, size, weight)
        if self.gate is not None:
            offset = offset * _spatial(torch.sigmoid(self.gate(t)))
        if self.shift is not None:
            offset = offset + _spatial(self.shift(t))
        return offset

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        axis = 0 if self.stride < 0 else 1
        before, inner, after = self.conv.weight.split(self._sizes, axis)
        return before, inner, after

    def _extra_channels(self, t: Tensor, size: torch.Size, weight: Tensor) -> Tensor:
        # The maps do not depend on the rows: one convolution of each, scaled by the rows' times.
        axis = 0 if self.stride < 0 else 1
        ones = t.new_ones(1, 1, *size)
        time = _convolve(ones, weight.narrow(axis, 0, 1), self.stride) * _spatial(t)
        if self.extra == "time":
            return time
        grids = torch.meshgrid(*(torch.arange(n).to(t) for n in size), indexing="ij")
        coordinates = torch.stack(grids).unsqueeze(0)
        return time + _convolve(coordinates, weight.narrow(axis, 1, 2), self.stride)


class DriftingConv(ConvLayer):
    """(W + t V) h + b + t v: weights that move at a constant rate."""

    def linear(self, t: Tensor, h: Tensor) -> Tensor:
        """The part linear in h.   t (B, 1), h (B, C, H, W) -> (B, C', H', W')."""
        weight, weight_rate, _, _ = self.numbers()
        both = torch.cat([weight, weight_rate], 1 if self.stride < 0 else 0)
        value, rate = _convolve(h, both, self.stride).chunk(2, 1)
        return torch.addcmul(value, _spatial(t), rate)

    def offset(self, t: Tensor, size: torch.Size) -> Tensor:
        """The rest.   t (B, 1), size (H, W) of h -> (B, C', 1, 1)."""
        _, _, bias, bias_rate = self.numbers()
        return _spatial(torch.addcmul(bias, t, bias_rate))

    @abstractmethod
    def numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W, V, b and v."""


class BlendConv(DriftingConv):
    """(1 - t) (W0 h + b0) + t (W1 h + b1)."""

    def __init__(self, in_channels: int, out_channels: int, stride: Stride) -> None:
        super().__init__(stride)
        self.start = _convolution(in_channels, out_channels, stride)
        self.end = _convolution(in_channels, out_channels, stride)

    def numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W, V, b and v."""
        weight, bias = self.start.weight, cast(Tensor, self.start.bias)
        return weight, self.end.weight - weight, bias, cast(Tensor, self.end.bias) - bias


class HyperConv(DriftingConv):
    """W(t) h + b(t), with the numbers of W an affine function of t.

    As in FFJORD's code b(t) has no numbers of its own: it is the first C' of W(t).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Stride) -> None:
        super().__init__(stride)
        channels = (in_channels, out_channels) if stride < 0 else (out_channels, in_channels)
        self.out_channels = out_channels
        self.weight_shape = (*channels, kernel_size(stride), kernel_size(stride))
        self.hypernet = nn.Linear(1, math.prod(self.weight_shape))
        nn.init.zeros_(self.hypernet.weight)
        nn.init.normal_(self.hypernet.bias, std=_HYPERNET_STD)

    def numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W, V, b and v."""
        start, rate = self.hypernet.bias, self.hypernet.weight[:, 0]
        out = self.out_channels
        return start.view(self.weight_shape), rate.view(self.weight_shape), start[:out], rate[:out]


_LAYERS: dict[ConvLayerType, Callable[[int, int, Stride], ConvLayer]] = {
    "ignore": ModulatedConv,
    "concat": partial(ModulatedConv, extra="time"),
    "concatcoord": partial(ModulatedConv, extra="coordinates"),
    "squash": partial(ModulatedConv, gated=True),
    "concatsquash": partial(ModulatedConv, gated=True, shifted=True),
    "blend": BlendConv,
    "hyper": HyperConv,
}


def conv_layer(
    kind: ConvLayerType, in_channels: int, out_channels: int, stride: Stride
) -> ConvLayer:
    """Make a layer of the named type; `ConvDynamics` says what each is."""
    return _LAYERS[kind](in_channels, out_channels, stride)
