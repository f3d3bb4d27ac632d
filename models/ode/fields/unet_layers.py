"""The parts of a U-Net: residual blocks, attention, halving and doubling of the image."""

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ode.fields.dual import (
    Dual,
    convolve,
    map_linear,
    multiply,
    normalise_groups,
    silu,
    softmax,
    transpose,
)

Resampling = Literal["halve", "double"]


class Embedding(NamedTuple):
    """What the time and the class say to every residual block.

    features: length of the embedding.
    scale_shift: whether it scales and shifts what is normalised, or is added before.
    """

    features: int
    scale_shift: bool


class UNetPart(nn.Module, ABC):
    """One module of a stage."""

    @abstractmethod
    def forward(self, h: Dual, embedding: Tensor) -> Dual:
        """Apply it.   h (B, C, H, W), embedding (B, E) after its nonlinearity."""


def halve(x: Tensor) -> Tensor:
    """Average squares of 2x2 pixels.   (B, C, H, W) -> (B, C, H / 2, W / 2)."""
    rows = x[:, :, ::2] + x[:, :, 1::2]
    return (rows[..., ::2] + rows[..., 1::2]) * 0.25


def double(x: Tensor) -> Tensor:
    """Repeat every pixel in a square of 2x2.   (B, C, H, W) -> (B, C, 2 H, 2 W)."""
    rows, channels, height, width = x.shape
    wide = x[:, :, :, None, :, None].expand(rows, channels, height, 2, width, 2)
    return wide.reshape(rows, channels, 2 * height, 2 * width)


_RESAMPLE = {"halve": halve, "double": double}


class Resample(UNetPart):
    """Halve the image or double it.

    Args:
        channels: of what comes and goes.
        resampling: which of the two.
        learned: by a convolution: 3x3 of stride 2, or 3x3 behind the doubling.
    """

    def __init__(self, channels: int, resampling: Resampling, *, learned: bool) -> None:
        super().__init__()
        self.resampling = resampling
        stride = 2 if resampling == "halve" else 1
        convolution = nn.Conv2d(channels, channels, 3, stride, padding=1) if learned else None
        self.convolution = convolution

    def forward(self, h: Dual, embedding: Tensor) -> Dual:
        """Apply it.   (B, C, H, W) -> (B, C, H', W')."""
        if self.convolution is None or self.resampling == "double":
            h = map_linear(_RESAMPLE[self.resampling], h)
        return h if self.convolution is None else convolve(self.convolution, h)


class ResidualBlock(UNetPart):
    """x + conv(silu(norm(conv(silu(norm(x))) + W e))), with e the embedding of time and class.

    With `scale_shift` the embedding enters by norm(h) (1 + s) + t instead. The first convolution
    may come behind a halving or doubling, which x is then given too.

    Args:
        in_channels, out_channels: where they differ, x goes through a 1x1 convolution.
        embedding: see `Embedding`.
        num_groups: of the group norms.
        resampling: see `Resample`.

    Reference: Dhariwal & Nichol 2021, appendix A (arXiv 2105.05233).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: Embedding,
        num_groups: int,
        *,
        resampling: Resampling | None = None,
    ) -> None:
        super().__init__()
        self.resampling = resampling
        self.scale_shift = embedding.scale_shift
        self.norm_in = nn.GroupNorm(num_groups, in_channels)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        entering = 2 * out_channels if embedding.scale_shift else out_channels
        self.embed = nn.Linear(embedding.features, entering)
        self.norm_out = nn.GroupNorm(num_groups, out_channels)
        self.conv_out = _zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.skip = None if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Dual, embedding: Tensor) -> Dual:
        """Apply it.   x (B, C, H, W), embedding (B, E) -> (B, C', H', W')."""
        h = silu(normalise_groups(self.norm_in, x))
        if self.resampling is not None:
            h, x = (map_linear(_RESAMPLE[self.resampling], part) for part in (h, x))
        h = convolve(self.conv_in, h)
        entering = self.embed(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = entering.chunk(2, 1)
            h = normalise_groups(self.norm_out, h)
            factor = 1 + scale
            tangents = None if h.tangents is None else h.tangents * factor.unsqueeze(1)
            h = Dual(h.value * factor + shift, tangents)
        else:
            h = normalise_groups(self.norm_out, Dual(h.value + entering, h.tangents))
        h = convolve(self.conv_out, silu(h))
        return h.plus(x if self.skip is None else convolve(self.skip, x))


class Attention(UNetPart):
    """x + W softmax(q^T k / sqrt(C / heads)) v, every pixel a position; q, k, v of norm(x).

    The channels of `qkv` are q, k and v of the first head, then of the next.

    Args:
        channels: of what comes and goes.
        num_heads: must divide them.
        num_groups: of the group norm.

    Reference: Vaswani et al. 2017 (arXiv 1706.03762), equation 1; Dhariwal & Nichol 2021.
    """

    def __init__(self, channels: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(num_groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Dual, embedding: Tensor) -> Dual:
        """Apply it.   (B, C, H, W) -> (B, C, H, W)."""
        channels, height, width = x.value.shape[1:]
        head = channels // self.num_heads
        mixed = convolve(self.qkv, normalise_groups(self.norm, x))
        query, key, value = self._heads(mixed, head)
        # As the public code scales, for the same rounding: each of the two by the fourth root.
        scale = 1 / math.sqrt(math.sqrt(head))
        query, key = (map_linear(lambda part: part * scale, part) for part in (query, key))
        weights = softmax(multiply(transpose(query), key))
        mean = multiply(value, transpose(weights))

        def as_image(part: Tensor) -> Tensor:
            return part.reshape(len(part), channels, height, width)

        return x.plus(convolve(self.project, map_linear(as_image, mean)))

    def _heads(self, mixed: Dual, head: int) -> list[Dual]:
        """q, k and v, (B, heads, C / heads, H W) each."""
        size = (self.num_heads, 3 * head, math.prod(mixed.value.shape[2:]))
        values = mixed.value.reshape(len(mixed.value), *size)
        parts = values.split(head, 2)
        if mixed.tangents is None:
            return [Dual(part) for part in parts]
        rows, count = mixed.tangents.shape[:2]
        tangents = mixed.tangents.reshape(rows, count, *size)
        return [Dual(*both) for both in zip(parts, tangents.split(head, 3), strict=True)]


class TimeEmbedding(nn.Module):
    """W2 silu(W1 [cos(w t), sin(w t)]): the time as features, on a scale of their own each.

    Args:
        features: of the cosines and sines together; where the number is odd, one more is 0.
        width: of the embedding.

    Reference: Vaswani et al. 2017, section 3.5; Ho et al. 2020 (arXiv 2006.11239), appendix B.
    """

    frequencies: Tensor

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("frequencies", frequencies(features).to(torch.get_default_dtype()))
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        """The embedding.   (B, 1) -> (B, width)."""
        angles = t * self.frequencies
        inputs = torch.cat([angles.cos(), angles.sin()], 1)
        if self.features % 2:
            inputs = F.pad(inputs, (0, 1))
        embedding: Tensor = self.second(F.silu(self.first(inputs)))
        return embedding


def frequencies(features: int) -> Tensor:
    """10000^(-i / n) for i < n = features // 2, rounded as the public code has them: in float32."""
    half = features // 2
    steps = torch.arange(half, dtype=torch.float32)
    return torch.exp(-math.log(10000) * steps / half)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution that begins at 0: the block around it begins as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
