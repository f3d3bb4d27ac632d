"""A uniform base on top of the standard normal one."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.transforms.exact import ExactConstants
from models.transforms.normal import (
    log_normal_density,
    log_normal_tail,
    normal_quantile,
    sign_of,
)
from models.transforms.transform import Transform, sum_event

# The share of the box beyond an end of it, at least: an end has finite latents.
_LEAST_TAIL = 1e-300


class UniformToNormal(Transform):
    """z = Phi^-1((x - low) / (high - low)) for the chosen features of (B, D); the others pass.

    As the last map of a flow over N(0, I) it makes the base uniform on a box, exactly, and z stays
    standard normal. Both ends are measured from themselves, so values near either keep their
    digits. A row with a chosen feature outside its interval gets log_det = -inf and finite z.

    Args:
        features: D.
        chosen: which features have a uniform base.
        low: the ends of their intervals, one for all or one each.
        high: likewise.

    Raises:
        ValueError: if a feature is none of D, or an interval is empty.
    """

    chosen: Tensor

    def __init__(
        self, features: int, chosen: Sequence[int], low: Sequence[float], high: Sequence[float]
    ) -> None:
        super().__init__()
        if sorted(set(chosen)) != list(chosen) or not chosen or chosen[-1] >= features:
            raise ValueError(
                f"chosen: expected ascending features below {features}, got {list(chosen)}"
            )
        ends = [list(end) * (len(chosen) if len(end) == 1 else 1) for end in (low, high)]
        if [len(end) for end in ends] != 2 * [len(chosen)]:
            raise ValueError(
                f"low, high: expected one number for all or {len(chosen)}, one a chosen feature, "
                f"got {len(low)} and {len(high)}"
            )
        if not all(a < b for a, b in zip(*ends, strict=True)):
            raise ValueError(f"low, high: expected low < high, got {list(low)} and {list(high)}")
        flags = torch.zeros(features, dtype=torch.bool)
        flags[list(chosen)] = True
        self.register_buffer("chosen", flags, persistent=False)
        box = [[-1.0] * features, [1.0] * features]
        for side, end in zip(box, ends, strict=True):
            for feature, value in zip(chosen, end, strict=True):
                side[feature] = value
        self.box = ExactConstants(low=box[0], high=box[1])

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        low, high, wide = self.box.get_buffer("low"), self.box.get_buffer("high"), x.double()
        below, above = wide - low, high - wide
        share = torch.minimum(below, above) / (high - low)
        # What rounds from an end in the dtype of x is the end.
        slack = torch.finfo(x.dtype).eps * torch.maximum(low.abs(), high.abs()) / (high - low)
        # Outsiders are taken for an end: finite latents, and no NaN in gradients.
        inner = share.clamp(min=_LEAST_TAIL)
        size = normal_quantile(self._log_tail(inner.log()))
        z = sign_of(below - above) * size
        log_slope = self._log_density(inner.log()) - (high - low).log() - log_normal_density(z)
        log_slope = torch.where(share < -slack, -math.inf, log_slope)
        y = torch.where(self.chosen, z, wide).to(x.dtype)
        return y, sum_event(torch.where(self.chosen, log_slope, 0.0))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        low, high, wide = self.box.get_buffer("low"), self.box.get_buffer("high"), y.double()
        sign = sign_of(wide)
        log_share = self._log_share(log_normal_tail(sign * wide))
        inward = (high - low) * log_share.exp()
        x = torch.where(sign < 0, low + inward, high - inward)
        log_slope = (high - low).log() + log_normal_density(wide) - self._log_density(log_share)
        x = torch.where(self.chosen, x, wide).to(y.dtype)
        return x, sum_event(torch.where(self.chosen, log_slope, 0.0))

    def _log_tail(self, log_share: Tensor) -> Tensor:
        """log of the probability of the nearer end, for the share of the box up to there."""
        return log_share

    def _log_share(self, log_tail: Tensor) -> Tensor:
        """Its inverse."""
        return log_tail

    def _log_density(self, log_share: Tensor) -> Tensor:
        """log of the density over shares."""
        return torch.zeros_like(log_share)
