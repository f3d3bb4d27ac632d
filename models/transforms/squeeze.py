"""Moving pixels: between space and channels, and from images to vectors."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from models.transforms.transform import Transform, constant_log_det

SqueezeOrder = Literal["channel", "checkerboard"]

# RealNVP's order of the four pixels of a 2x2 block, each as 2 row + column: the two that a
# checkerboard keeps come first, so halving the channels halves the image along a checkerboard.
_DIAGONALS_FIRST = (0, 3, 1, 2)


class Squeeze(Transform):
    """(C, H, W) -> (4 C, H/2, W/2): every 2x2 block of pixels becomes four channels.

    The pixel (row, column) of a block of channel c goes to channel

    - order="channel": 4 c + 2 row + column (Glow);
    - order="checkerboard": C k + c, with k the place of the pixel in (0,0), (1,1), (0,1), (1,0)
      (RealNVP's factoring out).

    Reference: Dinh et al. 2017, section 3.6 (arXiv 1605.08803).
    """

    def __init__(self, order: SqueezeOrder = "channel") -> None:
        super().__init__()
        if order not in get_args(SqueezeOrder):
            raise ValueError(f"order: expected one of {get_args(SqueezeOrder)}, got {order!r}")
        self.order = order

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _squeeze(x, self.order), constant_log_det(0, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _unsqueeze(y, self.order), constant_log_det(0, y)


class Unsqueeze(Squeeze):
    """(4 C, H, W) -> (C, 2 H, 2 W): what `Squeeze` of the same order decodes to."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().decode(x, context)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().encode(y, context)


class Flatten(Transform):
    """(B, *event_shape) -> (B, D) in row-major order, so images go channel, row, column."""

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.reshape(-1, math.prod(self.event_shape)), constant_log_det(0, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y.reshape(-1, *self.event_shape), constant_log_det(0, y)


def _squeeze(x: Tensor, order: SqueezeOrder) -> Tensor:
    channels, height, width = x.shape[1:]
    blocks = x.reshape(-1, channels, height // 2, 2, width // 2, 2)
    blocks = blocks.permute(0, 1, 3, 5, 2, 4)
    if order == "checkerboard":
        blocks = blocks.reshape(-1, channels, 4, height // 2, width // 2)
        blocks = torch.stack([blocks[:, :, pixel] for pixel in _DIAGONALS_FIRST], 1)
    return blocks.reshape(-1, 4 * channels, height // 2, width // 2)


def _unsqueeze(y: Tensor, order: SqueezeOrder) -> Tensor:
    channels, height, width = y.shape[1] // 4, y.shape[2], y.shape[3]
    if order == "checkerboard":
        blocks = y.reshape(-1, 4, channels, height, width)
        places = [_DIAGONALS_FIRST.index(pixel) for pixel in range(4)]
        y = torch.stack([blocks[:, place] for place in places], 2)
    blocks = y.reshape(-1, channels, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(-1, channels, 2 * height, 2 * width)
