"""Radial maps: space is drawn towards a point, or pushed away from it."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.row_sum import row_sum
from models.transforms.softplus import softplus
from models.transforms.transform import Transform

# Of the first reach and pull, which standardised data fill.
_REACH = 1.0
_SPREAD = 0.1


class Centre(NamedTuple):
    """What a radial map is at one time.

    point is (D,); reach a >= 0 and pull s > 0 are (1,).
    """

    point: Tensor
    reach: Tensor
    pull: Tensor


class RadialMap(Transform, ABC):
    """y = c + (x - c) (s + r) / (a + r), with r = |x - c|.

    That is x + beta (x - c) / (a + r) with beta = s - a > -a. A distance r becomes
    R = r (s + r) / (a + r), which grows with r, so the inverse is the root of the quadratic
    r^2 + (s - R) r - a R = 0 that is not negative. log_det = (D - 1) log(R / r) + log(dR / dr).

    Reference: Rezende & Mohamed 2015, eqs. 13-14 and appendix A.2 (arXiv 1505.05770).
    """

    @abstractmethod
    def centre(self) -> Centre:
        """c, a and s."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        point, reach, pull = self.centre()
        offset = x - point
        radius = _length(offset)
        growth = (pull + radius) / (reach + radius)
        return point + offset * growth, _log_det(radius, x.shape[1], reach, pull)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        point, reach, pull = self.centre()
        offset = y - point
        distance = _length(offset)
        # The two forms of the root: neither takes nearly equal numbers from each other.
        half = 0.5 * (distance - pull)
        product = reach * distance
        # Of numbers near 1: squares of large ones overflow.
        large = half.detach().abs().clamp(min=1)
        root = large * ((half / large).square() + product / large / large).sqrt()
        is_far = half >= 0
        divisor = torch.where(is_far, 1.0, root - half)
        radius = torch.where(is_far, half + root, product / divisor)
        shrink = (reach + radius) / (pull + radius)
        return point + offset * shrink, -_log_det(radius, y.shape[1], reach, pull)


class Radial(RadialMap):
    """A radial map that is trained: a = |alpha|, s = softplus(beta). It starts near the identity.

    Args:
        features: D.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.randn(features))
        self.alpha = nn.Parameter(torch.full((1,), _REACH))
        identity = torch.full((1,), _REACH).expm1().log()
        self.beta = nn.Parameter(identity + _SPREAD * torch.randn(1))

    def centre(self) -> Centre:
        return Centre(self.point, self.alpha.abs(), softplus(self.beta))


def _length(offset: Tensor) -> Tensor:
    """|offset|, with a gradient of zero where it is zero.   (B, D) -> (B, 1)."""
    large = offset.detach().abs().amax(1, keepdim=True).clamp(min=1)
    square = row_sum((offset / large).square())[:, None]
    return large * square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()


def _log_det(radius: Tensor, features: int, reach: Tensor, pull: Tensor) -> Tensor:
    """Of encode, from r (B, 1).   -> (B,)."""
    radius = radius.clamp(min=torch.finfo(radius.dtype).tiny ** 0.5)
    stretch = (pull + radius) / (reach + radius)
    # Both are dR/dr: the one keeps its digits near the centre, the other does not overflow far out.
    near = torch.minimum(radius, reach + 1)
    inner = (near * (near + 2 * reach) + reach * pull) / (reach + near).square()
    outer = 1 + reach / (reach + radius) * ((pull - reach) / (reach + radius))
    slope = torch.where(radius > reach + 1, outer, inner)
    return ((features - 1) * stretch.log() + slope.log())[:, 0]
