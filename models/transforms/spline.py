"""Rational-quadratic splines: flexible monotone scalar maps with an exact way back."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from models.transforms.elementwise import MIN_SCALE, Elementwise
from models.transforms.softplus import softplus

SplineBounds = Literal["floor", "soft_clamp"]


@dataclass(frozen=True, slots=True)
class _Bin:
    """The piece of a spline that an element falls in: its corner, size and two slopes."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    slope_left: Tensor
    slope_right: Tensor

    def evaluate(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Height above the corner and log|dy/dx| at x + theta width (Durkan et al., eqs. 19-22)."""
        steepness = self.height / self.width
        blend = theta * (1 - theta)
        bend = self.slope_left + self.slope_right - 2 * steepness
        denominator = steepness + bend * blend
        rise = self.height * (steepness * theta.square() + self.slope_left * blend) / denominator
        slope = (
            self.slope_right * theta.square()
            + 2 * steepness * blend
            + self.slope_left * (1 - theta).square()
        )
        log_slope = 2 * steepness.log() + slope.log() - 2 * denominator.log()
        return rise, log_slope

    def solve(self, rise: Tensor) -> Tensor:
        """theta in [0, 1] at a height above the corner (Durkan et al., eqs. 25-29)."""
        steepness = self.height / self.width
        bend = rise * (self.slope_left + self.slope_right - 2 * steepness)
        a = self.height * (steepness - self.slope_left) + bend
        b = self.height * self.slope_left - bend
        c = -steepness * rise
        # Rounding may push the discriminant below zero where two roots meet; this form of the root
        # does not cancel.
        root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
        theta = (-2 * c / (b + root)).clamp(0, 1)
        # One Newton step: where a, b and c cancel, it brings encode(decode(y)) back to y.
        found, log_slope = self.evaluate(theta)
        return (theta - (found - rise) / (log_slope.exp() * self.width)).clamp(0, 1)


class RationalQuadratic(Elementwise):
    """y = the monotone rational-quadratic spline on [-B, B], the identity outside.

    The parameters are (K raw widths, K raw heights, K - 1 raw slopes at the inner knots); the slope
    at the two ends is 1, so that the map is continuously differentiable everywhere. `bounds` says
    what keeps bins and slopes away from zero:

    - floor: widths 2 B (m + (1 - K m) softmax(w / divisor)), slopes m + softplus(d) (nflows);
    - soft_clamp: widths 2 B softmax(w / (1 + |2 w / log m|)), slopes exp(d / (1 + |d / log m|))
      (zuko).

    No search and no gather: the bin is picked by comparisons and sums, as ONNX can.

    Args:
        num_bins: K, at least 2.
        bound: B.
        min_bin: m for widths and heights, both.
        min_slope: m for slopes.
        divisor: of raw widths and heights (nflows' couplings: the square root of the hidden width).

    Raises:
        ValueError: if K is 1, which is the identity, or if K bins of the smallest width do not fit.

    Reference: Durkan et al. 2019, section 3.1 and appendix A (arXiv 1906.04032).
    """

    def __init__(
        self,
        num_bins: int = 8,
        bound: float = 3.0,
        bounds: SplineBounds = "floor",
        *,
        min_bin: float = MIN_SCALE,
        min_slope: float = MIN_SCALE,
        divisor: float = 1.0,
    ) -> None:
        super().__init__()
        if bounds not in get_args(SplineBounds):
            raise ValueError(f"bounds: expected one of {get_args(SplineBounds)}, got {bounds!r}")
        if num_bins < 2:
            raise ValueError(f"num_bins: expected at least 2, got {num_bins}")
        if bounds == "floor" and num_bins * min_bin >= 1:
            raise ValueError(f"min_bin: expected less than 1 / {num_bins}, got {min_bin}")
        if bounds == "soft_clamp" and not (0 < min_bin < 1 and 0 < min_slope < 1):
            raise ValueError(
                f"min_bin, min_slope: expected numbers between 0 and 1 with soft_clamp, which "
                f"bounds their logarithms, got {min_bin} and {min_slope}"
            )
        self.num_bins = num_bins
        self.num_slopes = num_bins - 1
        self.num_params = 3 * num_bins - 1
        self.bound = bound
        self.bounds = bounds
        self.min_bin = min_bin
        self.min_slope = min_slope
        self.divisor = divisor

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside = x.abs() < self.bound
        # A harmless value in the place of outsiders keeps NaN out of gradients too.
        safe = torch.where(inside, x, 0.0)
        piece = self._pick(safe, params, by="x")
        rise, log_slope = piece.evaluate((safe - piece.x) / piece.width)
        return torch.where(inside, piece.y + rise, x), torch.where(inside, log_slope, 0.0)

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside = y.abs() < self.bound
        safe = torch.where(inside, y, 0.0)
        piece = self._pick(safe, params, by="y")
        theta = piece.solve(safe - piece.y)
        _, log_slope = piece.evaluate(theta)
        x = piece.x + theta * piece.width
        return torch.where(inside, x, y), torch.where(inside, -log_slope, 0.0)

    def _pick(self, value: Tensor, params: Tensor, by: Literal["x", "y"]) -> _Bin:
        """Find the bin of each value (...) in the splines of params (..., num_params)."""
        widths, heights, slopes = params.split((self.num_bins, self.num_bins, self.num_slopes), -1)
        x_knots, y_knots, slopes = self._knots(widths), self._knots(heights), self._slopes(slopes)
        knots = x_knots if by == "x" else y_knots
        reached = value[..., None] >= knots[..., 1:-1]
        first = torch.ones_like(value[..., None], dtype=torch.bool)
        # Reached the left knot and not the right one: true for exactly one bin.
        chosen = torch.cat((first, reached), -1) & ~torch.cat((reached, ~first), -1)

        def at(table: Tensor) -> Tensor:
            return torch.where(chosen, table, 0.0).sum(-1)

        return _Bin(
            x=at(x_knots[..., :-1]),
            y=at(y_knots[..., :-1]),
            width=at(x_knots.diff(dim=-1)),
            height=at(y_knots.diff(dim=-1)),
            slope_left=at(slopes[..., :-1]),
            slope_right=at(slopes[..., 1:]),
        )

    def _knots(self, raw: Tensor) -> Tensor:
        """Where the bins meet.   raw (..., K) -> (..., K + 1), from -B to B exactly."""
        inner = self.bound * (2 * self._shares(raw)[..., :-1].cumsum(-1) - 1)
        end = torch.full_like(raw[..., :1], self.bound)
        return torch.cat((-end, inner, end), -1)

    def _shares(self, raw: Tensor) -> Tensor:
        """How the bins divide the interval.   (..., K), which add up to 1."""
        raw = raw / self.divisor
        if self.bounds == "floor":
            return self.min_bin + (1 - self.min_bin * self.num_bins) * F.softmax(raw, -1)
        return F.softmax(raw / (1 + (2 * raw / math.log(self.min_bin)).abs()), -1)

    def _slopes(self, raw: Tensor) -> Tensor:
        """Slopes at the knots.   raw (..., K - 1) -> (..., K + 1), 1 at both ends."""
        return F.pad(self._positive(raw), (1, 1), value=1.0)

    def _positive(self, raw: Tensor) -> Tensor:
        if self.bounds == "floor":
            return self.min_slope + softplus(raw)
        return (raw / (1 + (raw / math.log(self.min_slope)).abs())).exp()
