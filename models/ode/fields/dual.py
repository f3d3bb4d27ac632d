"""Forward-mode derivatives: a value and its derivatives along K directions, pushed on together."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.row_sum import row_sum


class Dual(NamedTuple):
    """A dual number for every direction.

    value: (B, ...).
    tangents: (B, K, ...), or None where no derivative is asked for.

    Reference: Griewank & Walther 2008, "Evaluating Derivatives", section 3.1.
    """

    value: Tensor
    tangents: Tensor | None = None

    def plus(self, other: "Dual") -> "Dual":
        """The sum of both."""
        if self.tangents is None or other.tangents is None:
            return Dual(self.value + other.value)
        return Dual(self.value + other.value, self.tangents + other.tangents)


def join_channels(first: Dual, second: Dual) -> Dual:
    """Both, one behind the other along the channels."""
    value = torch.cat([first.value, second.value], 1)
    if first.tangents is None or second.tangents is None:
        return Dual(value)
    return Dual(value, torch.cat([first.tangents, second.tangents], 2))


def map_linear(function: Callable[[Tensor], Tensor], h: Dual) -> Dual:
    """Apply a function of batches that is linear in every row."""
    return Dual(function(h.value), _each_direction(function, h.tangents))


def convolve(layer: nn.Conv2d, h: Dual) -> Dual:
    """Apply a convolution: its bias has no derivative."""

    def linear(tangents: Tensor) -> Tensor:
        return F.conv2d(tangents, layer.weight, None, layer.stride, layer.padding)

    return Dual(layer(h.value), _each_direction(linear, h.tangents))


def silu(h: Dual) -> Dual:
    """Apply x sigmoid(x)."""
    gate = torch.sigmoid(h.value)
    value = h.value * gate
    if h.tangents is None:
        return Dual(value)
    slope = gate + value * (1 - gate)
    return Dual(value, h.tangents * slope.unsqueeze(1))


def normalise_groups(layer: nn.GroupNorm, h: Dual) -> Dual:
    """Apply a group norm.

    Reference: Wu & He 2018, Group Normalization (arXiv 1803.08494), equations 1 to 7.
    """
    rows, channels, *size = h.value.shape
    # Said in full: a batch of no rows, which a graph is recorded with, leaves -1 undetermined.
    count = channels // layer.num_groups * math.prod(size)
    groups = h.value.reshape(rows, layer.num_groups, count)
    variance, mean = torch.var_mean(groups, 2, correction=0, keepdim=True)
    precision = torch.rsqrt(variance + layer.eps)
    scaled = (groups - mean) * precision
    weight, bias = (part.view(channels, *[1] * len(size)) for part in (layer.weight, layer.bias))
    value = scaled.view(h.value.shape) * weight + bias
    if h.tangents is None:
        return Dual(value)
    moving = h.tangents.reshape(rows, h.tangents.shape[1], layer.num_groups, count)
    around = scaled.unsqueeze(1)
    shift = row_sum(moving, 3).unsqueeze(3) / count
    stretch = row_sum(moving * around, 3).unsqueeze(3) / count
    tangents = (moving - shift - around * stretch) * precision.unsqueeze(1)
    return Dual(value, tangents.view(h.tangents.shape) * weight)


def multiply(left: Dual, right: Dual) -> Dual:
    """The product of two stacks of matrices."""
    value = left.value @ right.value
    if left.tangents is None or right.tangents is None:
        return Dual(value)
    tangents = left.tangents @ right.value.unsqueeze(1) + left.value.unsqueeze(1) @ right.tangents
    return Dual(value, tangents)


def transpose(h: Dual) -> Dual:
    """Exchange the last two axes."""
    return Dual(h.value.mT, None if h.tangents is None else h.tangents.mT)


def softmax(h: Dual) -> Dual:
    """Apply the softmax along the last axis."""
    value = torch.softmax(h.value, -1)
    if h.tangents is None:
        return Dual(value)
    weighted = value.unsqueeze(1) * h.tangents
    total = row_sum(weighted).unsqueeze(-1)
    return Dual(value, weighted - value.unsqueeze(1) * total)


def _each_direction(function: Callable[[Tensor], Tensor], tangents: Tensor | None) -> Tensor | None:
    if tangents is None:
        return None
    pushed = function(tangents.flatten(0, 1))
    return pushed.reshape(*tangents.shape[:2], *pushed.shape[1:])
