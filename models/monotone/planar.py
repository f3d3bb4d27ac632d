"""Planar maps: space is moved along one direction, by a bend across one hyperplane."""

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.monotone.solver import solve_increasing
from models.ode.while_loop import Carry
from models.row_sum import row_sum
from models.transforms.softplus import softplus
from models.transforms.transform import Transform

PlanarActivation = Literal["tanh", "leaky_relu"]

# softplus of this is 1: a map with w u there is the identity.
_IDENTITY = math.log(math.e - 1)
# Spread of the first u around the identity, in units of 1 / |w|.
_SPREAD = 0.1


class Plane(NamedTuple):
    """What a planar map is at one time: y = x + u h(w x + b), with steepness = 1 + w u > 0.

    u, w are (D,), b and steepness (1,).
    """

    u: Tensor
    w: Tensor
    b: Tensor
    steepness: Tensor


class PlanarMap(Transform, ABC):
    """y = x + u h(w x + b), with h = tanh or a leaky ReLU.

    Along w the map is the scalar function f(t) = t + (w u) h(t) of t = w x + b, and it moves x by
    a multiple of u. f increases since w u > -1 and 0 <= h' <= 1, so there is one inverse: that of
    a leaky ReLU is read off the sign of f(t), that of tanh is solved for. log_det = log f'(t).

    Args:
        activation: h.
        negative_slope: of leaky_relu, left of zero.

    Reference: Rezende & Mohamed 2015, eqs. 10-12 and appendix A.1 (arXiv 1505.05770).
    """

    def __init__(self, activation: PlanarActivation, negative_slope: float) -> None:
        super().__init__()
        self.activation = activation
        self.negative_slope = negative_slope

    @abstractmethod
    def plane(self) -> Plane:
        """u, w, b and the steepness."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        plane = self.plane()
        t = row_sum(x * plane.w)[:, None] + plane.b
        if self.activation == "tanh":
            bent = t.tanh()
            slope = _tanh_slope(bent, plane.steepness)
        else:
            bent = F.leaky_relu(t, self.negative_slope)
            slope = self._leaky_slope(t, plane.steepness)
        return x + plane.u * bent, slope.log()[:, 0]

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        plane = self.plane()
        value = row_sum(y * plane.w)[:, None] + plane.b
        if self.activation == "tanh":
            bent = solve_tanh(value, plane.steepness).tanh().to(y.dtype)
            slope = _tanh_slope(bent, plane.steepness)
        else:
            # f keeps the sign, so the side of the bend is that of the image.
            slope = self._leaky_slope(value, plane.steepness)
            bent = F.leaky_relu(value, self.negative_slope) / slope
        return y - plane.u * bent, -slope.log()[:, 0]

    def _leaky_slope(self, t: Tensor, steepness: Tensor) -> Tensor:
        left = 1 - self.negative_slope + self.negative_slope * steepness
        return torch.where(t < 0, left, steepness)


class Planar(PlanarMap):
    """A planar map that is trained.

    What is trained instead of u is v: u = v + (softplus(w v) - 1 - w v) w / |w|^2, so that
    w u = softplus(w v) - 1 > -1. It starts near the identity.

    Args:
        features: D.
        activation: h.
        negative_slope: of leaky_relu.
    """

    def __init__(
        self,
        features: int,
        activation: PlanarActivation = "tanh",
        *,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__(activation, negative_slope)
        w = torch.randn(features) / math.sqrt(features)
        length = w.norm()
        self.w = nn.Parameter(w)
        self.v = nn.Parameter(
            _IDENTITY * w / length.square() + _SPREAD * torch.randn(features) / length
        )
        self.b = nn.Parameter(torch.randn(1))

    def plane(self) -> Plane:
        along = (self.w * self.v).sum()
        steepness = softplus(along)
        square = self.w.square().sum().clamp(min=torch.finfo(self.w.dtype).tiny)
        u = self.v + (steepness - 1 - along) * self.w / square
        return Plane(u, self.w, self.b, steepness[None])


def solve_tanh(value: Tensor, steepness: Tensor) -> Tensor:
    """Find t with t + (steepness - 1) tanh(t) = value, in float64.   (B, 1), (1,) -> (B, 1)."""

    def function(t: Tensor, given: Carry) -> tuple[Tensor, Tensor]:
        bent, slope_at_zero = t.tanh(), given[0]
        return t + (slope_at_zero - 1) * bent, _tanh_slope(bent, slope_at_zero)

    return solve_increasing(function, value, (steepness.double().expand(len(value), 1),))


def _tanh_slope(bent: Tensor, steepness: Tensor) -> Tensor:
    """1 + (w u) (1 - tanh^2), as a sum of numbers that are not negative."""
    square = bent.square()
    return square + steepness * (1 - square)
