"""Preprocessing as part of the flow, so that its log_prob is the density of the data as given.

Every map here works element by element on events of any shape.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.transforms.softplus import softplus
from models.transforms.transform import (
    Transform,
    channel_log_det,
    constant_log_det,
    per_channel,
    sum_event,
)

PIXEL_BITS = 8

# Half a unit in the last place of float32, relative.
_FLOAT32_ROUNDING = 2.0**-24
# What the rounding of x may move y, in standard deviations: log_prob follows by about as many nats.
_MOST_ROUNDING = 1e-4


class Standardise(Transform):
    """y = (x - mean) / std, one mean and std a feature or channel (axis 1), or one for all.

    Both are buffers: data statistics, saved with the weights and never trained. In float64 where
    float32 has too few digits for such data, see `needs_float64`.

    Raises:
        ValueError: if the two differ in length or a std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(
                f"standardise: expected as many positive std as mean ({len(mean)}), got {list(std)}"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float64))
        if not self.needs_float64:
            self.to(torch.get_default_dtype())

    @property
    def needs_float64(self) -> bool:
        return bool((self.mean.abs() * _FLOAT32_ROUNDING > _MOST_ROUNDING * self.std).any())

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, std = per_channel(self.mean, x), per_channel(self.std, x)
        return (x - mean) / std, -channel_log_det(self.std.log(), x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, std = per_channel(self.mean, y), per_channel(self.std, y)
        return y * std + mean, channel_log_det(self.std.log(), y)


class Dequantise(Transform):
    """y = x + width u, with u ~ U[0, 1) while training and u = 1/2 otherwise; log_det = 0.

    Integer data fill their bins [x, x + width) and get a density. The evaluation form scores the
    midpoint of the bin, which needs no noise and so gives one answer.

    Args:
        width: of a bin: 1 for integers, 2^(8-n) after `ReduceBits(n)`. One for all values, or one
            a feature or channel: 0 where values are no integers and stay as they are.

    Reference: Theis et al. 2016, section 3.1 (arXiv 1511.01844).
    """

    width: float | Tensor

    def __init__(self, width: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        if isinstance(width, Sequence):
            self.register_buffer("width", torch.tensor(width), persistent=False)
        else:
            self.width = width

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        position = torch.rand_like(x) if self.training else 0.5
        return x + self._width_of(x) * position, constant_log_det(0, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y - self._width_of(y) / 2, constant_log_det(0, y)

    def _width_of(self, value: Tensor) -> float | Tensor:
        width = self.width
        return per_channel(width, value) if isinstance(width, Tensor) else width


class ReduceBits(Transform):
    """Integer pixels: y = 2^(8-n) floor(x / 2^(8-n)); every other value: y = x. log_det = 0.

    Values stay on the scale 0..255, so the flow's log_prob is the density of the reduced image on
    the pixel scale, and a bin is 2^(8-n) wide for the `Dequantise` that follows. Almost everywhere
    this is the identity: whatever `decode` returns is left alone by `encode`.

    Reference: Kingma & Dhariwal 2018, section 6, "5-bit" (arXiv 1807.03039).
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        if not 1 <= bits <= PIXEL_BITS:
            raise ValueError(f"bits: expected 1 .. {PIXEL_BITS}, got {bits}")
        self.bin_width = 2 ** (PIXEL_BITS - bits)

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        floored = torch.floor(x / self.bin_width) * self.bin_width
        return torch.where(x == x.floor(), floored, x), constant_log_det(0, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y, constant_log_det(0, y)


class ShiftScale(Transform):
    """y = x scale + shift, for example pixels / 256 - 0.5.

    Raises:
        ValueError: if scale is zero.
    """

    def __init__(self, shift: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        if scale == 0:
            raise ValueError("scale: expected a number other than zero")
        self.shift = shift
        self.scale = scale

    @property
    def needs_float64(self) -> bool:
        return abs(self.shift) * _FLOAT32_ROUNDING > _MOST_ROUNDING

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.scale + self.shift, self._log_det(x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (y - self.shift) / self.scale, -self._log_det(y)

    def _log_det(self, value: Tensor) -> Tensor:
        return constant_log_det(math.log(abs(self.scale)) * math.prod(value.shape[1:]), value)


class Logit(Transform):
    """y = log(s / (1 - s)) with s = alpha + (1 - 2 alpha) x.

    The density lives where 0 < s < 1: on (0, 1) for alpha = 0, and a little beyond [0, 1] for
    alpha > 0, because `decode` reaches all of it (see `low` and `high`). A row with any value
    outside gets log_det = -inf and finite y, so its log_prob is -inf and nothing raises.

    Args:
        alpha: 0 <= alpha < 1/2; keeps x = 0 and x = 1 away from the poles.

    Reference: Dinh et al. 2017, section 4.1 (arXiv 1605.08803).
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha: expected 0 <= alpha < 0.5, got {alpha}")
        self.alpha = alpha

    @property
    def low(self) -> float:
        """The infimum of the support."""
        return -self.alpha / (1 - 2 * self.alpha)

    @property
    def high(self) -> float:
        """The supremum of the support."""
        return (1 - self.alpha) / (1 - 2 * self.alpha)

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        s = self.alpha + (1 - 2 * self.alpha) * x
        inside = (s > 0) & (s < 1)
        # A harmless value in the place of the outsiders keeps NaN out of gradients too.
        s = torch.where(inside, s, 0.5)
        y = s.log() - torch.log1p(-s)
        return y, sum_event((-self._log_slope(y)).masked_fill(~inside, -math.inf))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = (torch.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)
        return x, sum_event(self._log_slope(y))

    def _log_slope(self, y: Tensor) -> Tensor:
        """log dx/dy; written with y, where log s and log(1 - s) keep their digits."""
        return -softplus(y) - softplus(-y) - math.log1p(-2 * self.alpha)
