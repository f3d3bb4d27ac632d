"""Positive features on the whole line."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.transforms.exact import ExactConstants
from models.transforms.softplus import softplus
from models.transforms.transform import Transform, per_channel, sum_event


class InverseSoftplus(Transform):
    """y = log(exp(k x) - 1) / k for the chosen features or channels (axis 1), which are positive.

    The others pass. Far from 0 it is the identity: k says how near to 0 it begins to bend. A row
    with a chosen feature that is not positive gets log_det = -inf and finite y.

    Args:
        features: how many features or channels there are.
        chosen: which of them.
        sharpness: k, one for all of these or one each.

    Raises:
        ValueError: if a feature is none of D, or a sharpness is not positive.

    Reference: InvSoftplus of github.com/jfcrenshaw/pzflow.
    """

    chosen: Tensor

    def __init__(
        self, features: int, chosen: Sequence[int], sharpness: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__()
        if sorted(set(chosen)) != list(chosen) or not chosen or chosen[-1] >= features:
            raise ValueError(
                f"inverse_softplus: expected ascending columns below {features}, got {list(chosen)}"
            )
        if len(sharpness) not in (1, len(chosen)) or not all(k > 0 for k in sharpness):
            raise ValueError(
                f"inverse_softplus: expected 1 or {len(chosen)} positive numbers as sharpness, got "
                f"{list(sharpness)}"
            )
        flags, factors = torch.zeros(features, dtype=torch.bool), [1.0] * features
        for place, feature in enumerate(chosen):
            flags[feature] = True
            factors[feature] = sharpness[place % len(sharpness)]
        self.register_buffer("chosen", flags, persistent=False)
        self.constants = ExactConstants(sharpness=factors)

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        chosen, k, inside = per_channel(self.chosen, x), self._sharpness(x), x > 0
        # A harmless value in the place of the outsiders keeps NaN out of gradients too.
        size = (k * torch.where(inside, x, 1.0)).clamp(min=2 * torch.finfo(x.dtype).tiny)
        # 1 - exp(-size), which keeps its digits near 0.
        half = torch.tanh(size / 2)
        log_share = (2 * half / (1 + half)).log()
        log_slope = torch.where(inside, -log_share, -math.inf)
        y = torch.where(chosen, (size + log_share) / k, x)
        return y, sum_event(torch.where(chosen, log_slope, 0.0))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        chosen, k = per_channel(self.chosen, y), self._sharpness(y)
        x = torch.where(chosen, softplus(k * y) / k, y)
        return x, sum_event(torch.where(chosen, -softplus(-k * y), 0.0))

    def _sharpness(self, like: Tensor) -> Tensor:
        return per_channel(self.constants.get_buffer("sharpness").to(like.dtype), like)
