"""Maps of a circle: splines whose ends meet, and turns."""

import math
from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from models.transforms.elementwise import MIN_SCALE
from models.transforms.exact import ExactConstants
from models.transforms.spline import RationalQuadratic, SplineBounds
from models.transforms.transform import Transform, constant_log_det, sum_event

SplineEnds = Literal["tied", "unit"]

# Values beyond the bound by this share of it count as at it: pi in float32 is more than pi.
_SLACK = 1e-6


class CircularSpline(RationalQuadratic):
    """Rational-quadratic splines on [-B, B], of which some features are circular: -B is B.

    The parameters are (K raw widths, K raw heights, K raw slopes at the knots -B, ...). A circular
    feature has the first slope at both ends. A row with a circular feature outside [-B, B] gets
    log_det = -inf. Other features have slope 1 at both ends and the identity outside.

    Args:
        features: how many.
        num_bins: K, at least 2.
        bound: B, one for all features or one each.
        bounds: as in `RationalQuadratic`.
        circular: which features are, None for all.
        ends: `unit`: slope 1 at the ends of circular features too, and K - 1 raw slopes (zuko).
        half_turn: in front of the spline, circular features are turned by B, from anywhere on the
            line to [-B, B).
        min_bin: as in `RationalQuadratic`.
        min_slope: as in `RationalQuadratic`.
        divisor: as in `RationalQuadratic`.

    Raises:
        ValueError: if the bounds or the circular features do not fit.

    Reference: Rezende et al. 2020, Normalizing flows on tori and spheres, section 2.2
    (arXiv 2002.02428).
    """

    is_circular: Tensor
    outside: Tensor

    def __init__(
        self,
        features: int,
        num_bins: int = 8,
        bound: Sequence[float] = (math.pi,),
        bounds: SplineBounds = "floor",
        *,
        circular: Sequence[int] | None = None,
        ends: SplineEnds = "tied",
        half_turn: bool = False,
        min_bin: float = MIN_SCALE,
        min_slope: float = MIN_SCALE,
        divisor: float = 1.0,
    ) -> None:
        super().__init__(
            num_bins, bound[0], bounds, min_bin=min_bin, min_slope=min_slope, divisor=divisor
        )
        if ends not in get_args(SplineEnds):
            raise ValueError(f"ends: expected one of {get_args(SplineEnds)}, got {ends!r}")
        self.ends = ends
        self.half_turn = half_turn
        self.num_slopes = num_bins if ends == "tied" else num_bins - 1
        self.num_params = 2 * num_bins + self.num_slopes
        each = _one_each("bound", bound, features)
        turning = set(range(features) if circular is None else circular)
        if not turning <= set(range(features)):
            raise ValueError(f"circular: expected features below {features}, got {circular}")
        flags = [feature in turning for feature in range(features)]
        self.exact = ExactConstants(bound=each)
        self.register_buffer("is_circular", torch.tensor(flags), persistent=False)
        outside = [-math.inf if flag else 0.0 for flag in flags]
        self.register_buffer("outside", torch.tensor(outside), persistent=False)

    def encode(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        x = self._turned(x)
        inside, safe = self._inside(x)
        piece = self._pick(safe, params, by="x")
        rise, log_slope = piece.evaluate((safe - piece.x) / piece.width)
        y = torch.where(inside, piece.y + rise, x)
        return y, torch.where(inside, log_slope, self.outside.to(x.dtype))

    def decode(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        inside, safe = self._inside(y)
        piece = self._pick(safe, params, by="y")
        theta = piece.solve(safe - piece.y)
        _, log_slope = piece.evaluate(theta)
        x = torch.where(inside, piece.x + theta * piece.width, y)
        return self._turned(x), -torch.where(inside, log_slope, self.outside.to(y.dtype))

    def only(self, features: Sequence[int]) -> Self:
        chosen = list(features)
        flags, bound = self.is_circular.tolist(), self.exact.get_buffer("bound").tolist()
        part = type(self)(
            len(chosen),
            self.num_bins,
            [bound[feature] for feature in chosen],
            self.bounds,
            circular=[place for place, feature in enumerate(chosen) if flags[feature]],
            ends=self.ends,
            half_turn=self.half_turn,
            min_bin=self.min_bin,
            min_slope=self.min_slope,
            divisor=self.divisor,
        )
        return part.to(self.is_circular.device)

    def _bound_like(self, value: Tensor) -> Tensor:
        return self.exact.get_buffer("bound").to(value.dtype)

    def _turned(self, value: Tensor) -> Tensor:
        if not self.half_turn:
            return value
        return torch.where(self.is_circular, wrap(value, self._bound_like(value)), value)

    def _inside(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Which values a spline bends, and harmless ones in the place of all others."""
        bound = self._bound_like(value)
        inside = value.abs() <= bound * (1 + _SLACK)
        safe = torch.where(inside, value, 0.0)
        return inside, torch.minimum(torch.maximum(safe, -bound), bound)

    def _knots(self, raw: Tensor) -> Tensor:
        bound = self._bound_like(raw)[..., None]
        inner = bound * (2 * self._shares(raw)[..., :-1].cumsum(-1) - 1)
        end = bound.expand_as(raw[..., :1])
        return torch.cat((-end, inner, end), -1)

    def _slopes(self, raw: Tensor) -> Tensor:
        if self.ends == "unit":
            return super()._slopes(raw)
        slopes = self._positive(raw)
        plain = F.pad(slopes[..., 1:], (1, 1), value=1.0)
        tied = torch.cat((slopes, slopes[..., :1]), -1)
        return torch.where(self.is_circular[..., None], tied, plain)


class CircularShift(Transform):
    """y = x - shift on circles of circumference 2 B, for the chosen features of (B, D).

    y lies in [-B, B). The shift is a constant: between splines it brings other angles to their
    ends.

    Args:
        features: D.
        chosen: which features are circular.
        bound: B, one for all chosen features or one each.
        shift: likewise.
        wraps: x may lie anywhere on the line, an angle like any other; if not, a row with a chosen
            feature outside [-B, B] gets log_det = -inf.

    Raises:
        ValueError: if a feature is none of D, or the numbers are not as many.
    """

    chosen: Tensor

    def __init__(
        self,
        features: int,
        chosen: Sequence[int],
        bound: Sequence[float] = (math.pi,),
        shift: Sequence[float] = (math.pi,),
        *,
        wraps: bool = True,
    ) -> None:
        super().__init__()
        if sorted(set(chosen)) != list(chosen) or not chosen or chosen[-1] >= features:
            raise ValueError(
                f"chosen: expected ascending features below {features}, got {list(chosen)}"
            )
        flags = torch.zeros(features, dtype=torch.bool)
        flags[list(chosen)] = True
        self.register_buffer("chosen", flags, persistent=False)
        wide, turns = [1.0] * features, [0.0] * features
        for whole, name, given in ((wide, "bound", bound), (turns, "shift", shift)):
            for feature, value in zip(chosen, _one_each(name, given, len(chosen)), strict=True):
                whole[feature] = value
        self.exact = ExactConstants(bound=wide, shift=turns)
        self.wraps = wraps

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        bound, shift = self._constants(x)
        y = torch.where(self.chosen, wrap(x - shift + bound, bound), x)
        if self.wraps:
            return y, constant_log_det(0, x)
        outside = self.chosen & (x.abs() > bound * (1 + _SLACK))
        return y, sum_event(torch.where(outside, -math.inf, 0.0).to(x.dtype))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        bound, shift = self._constants(y)
        x = torch.where(self.chosen, wrap(y + shift + bound, bound), y)
        return x, constant_log_det(0, y)

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        bound, shift = self.exact.get_buffer("bound"), self.exact.get_buffer("shift")
        return bound.to(like.dtype), shift.to(like.dtype)


def wrap(value: Tensor, bound: Tensor) -> Tensor:
    """(value mod 2 B) - B, in [-B, B)."""
    period = 2 * bound
    return value - period * (value / period).floor() - bound


def _one_each(name: str, given: Sequence[float], count: int) -> list[float]:
    each = list(given) * (count if len(given) == 1 else 1)
    if len(each) != count:
        raise ValueError(f"{name}: expected one number for all or {count}, got {len(given)}")
    return each
