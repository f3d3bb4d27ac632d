"""Monotone polynomials: sums of squares, integrated, and Bernstein polynomials."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.monotone.solver import Monotone
from models.transforms.elementwise import MIN_SCALE
from models.transforms.exact import ExactConstants

# Where zuko's Bernstein map goes over into a line: this share of its width from either end.
_BORDER = 1e-6
# Slopes of a Bernstein map that are 1 at its ends, and how many of them: one at each end and the
# next, so that the curvature is 0 there too.
_FIXED_ENDS = 2


class Quadrature(ExactConstants):
    """Gauss-Legendre on [0, 1]: exact for polynomials of degree 2 n - 1."""

    nodes: Tensor
    weights: Tensor

    def __init__(self, count: int) -> None:
        nodes, weights = np.polynomial.legendre.leggauss(count)
        super().__init__(nodes=((nodes + 1) / 2).tolist(), weights=(weights / 2).tolist())

    def points(self, x: Tensor) -> Tensor:
        """The places on [0, x].   (...) -> (..., n)."""
        return x[..., None] * self.nodes.to(x.dtype)

    def integral(self, x: Tensor, values: Tensor) -> Tensor:
        """Of a function over [0, x], from its values (..., n) at `points`."""
        return x * (values * self.weights.to(values.dtype)).sum(-1)


class SumOfSquares(Monotone):
    """y = c + integral_0^x g(u) du with g(u) = mean_k (1 + sum_j a_kj (u / scale)^j)^2 + slope.

    The parameters are K rows of degree + 1 coefficients a, then c.

    Args:
        degree: L of the polynomials that are squared.
        polynomials: K.
        min_slope: the least slope.
        scale: of the argument.

    Reference: Jaini et al. 2019, SOS flows, section 3 (arXiv 1905.02325); zuko's SOSPF.
    """

    def __init__(
        self,
        degree: int = 4,
        polynomials: int = 3,
        *,
        min_slope: float = MIN_SCALE,
        scale: float = 10.0,
    ) -> None:
        super().__init__()
        self.degree = degree
        self.polynomials = polynomials
        self.num_params = polynomials * (degree + 1) + 1
        self.min_slope = min_slope
        self.scale = scale
        self.quadrature = Quadrature(degree + 1)

    def value_and_slope(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        coefficients = params[..., :-1].unflatten(-1, (self.polynomials, self.degree + 1))
        densities = self._density(self.quadrature.points(x), coefficients[..., None, :, :])
        value = params[..., -1] + self.quadrature.integral(x, densities)
        return value, self._density(x, coefficients)

    def _density(self, u: Tensor, coefficients: Tensor) -> Tensor:
        """g.   u (...), coefficients (..., K, L + 1) -> (...)."""
        t = (u / self.scale)[..., None]
        total = coefficients[..., -1]
        for power in reversed(range(self.degree)):
            total = total * t + coefficients[..., power]
        return (1 + total).square().sum(-1) / self.polynomials + self.min_slope


class Bernstein(Monotone):
    """y = a Bernstein polynomial with increasing coefficients on [-B, B], a line outside.

    Of the raw parameters, n in number, the softmax says how the coefficients rise between -B and B,
    with fixed steps 2 B / (n + 4) at the ends, so that slope 1 is met: its order is n + 4. As in
    zuko the line begins a share of 1e-6 before the border and is shifted by 1e-5 B / 5.

    Args:
        degree: n - 1.
        bound: B.

    Reference: Ramasinghe et al. 2021 (arXiv 2102.03509); zuko's BPF, transforms.py.
    """

    def __init__(self, degree: int = 16, *, bound: float = 5.0) -> None:
        super().__init__()
        self.num_params = degree + 1
        self.bound = bound
        self.order = self.num_params + 2 * _FIXED_ENDS
        self.binomials = ExactConstants(
            value=[float(math.comb(self.order, i)) for i in range(self.order + 1)],
            slope=[float(math.comb(self.order - 1, i)) for i in range(self.order)],
        )

    def value_and_slope(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        width = 2 * self.bound
        t = (x + self.bound) / width
        is_inside = (t > _BORDER) & (t < 1 - _BORDER)
        safe = torch.where(is_inside, t, 0.5)
        steps = self._steps(params)
        start = torch.full_like(steps[..., :1], -self.bound)
        coefficients = torch.cat((start, steps.cumsum(-1) - self.bound), -1)
        value = (coefficients * _basis(safe, self.binomials.get_buffer("value"))).sum(-1)
        slope = (
            self.order * (steps * _basis(safe, self.binomials.get_buffer("slope"))).sum(-1) / width
        )
        shift = torch.where(t < 0.5, -_BORDER * width, _BORDER * width)
        return torch.where(is_inside, value, x + shift), torch.where(is_inside, slope, 1.0)

    def _steps(self, params: Tensor) -> Tensor:
        """Differences of the coefficients.   (..., n) -> (..., n + 4), all positive."""
        width = 2 * self.bound
        fixed = width / self.order
        inner = F.softmax(params, -1) * (width - 2 * _FIXED_ENDS * fixed)
        return F.pad(inner, (_FIXED_ENDS, _FIXED_ENDS), value=fixed)


def _basis(t: Tensor, binomials: Tensor) -> Tensor:
    """Bernstein polynomials of an order, all of them.   (...) -> (..., order + 1)."""
    powers, complements = [torch.ones_like(t)], [torch.ones_like(t)]
    for _ in range(len(binomials) - 1):
        powers.append(powers[-1] * t)
        complements.append(complements[-1] * (1 - t))
    products = [a * b for a, b in zip(powers, reversed(complements), strict=True)]
    return torch.stack(products, -1) * binomials.to(t.dtype)
