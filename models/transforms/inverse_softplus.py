"""Positive features on the whole line."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from models.transforms.exact import ExactConstants
from models.transforms.softplus import softplus
from models.transforms.transform import Transform, sum_event


class InverseSoftplus(Transform):
    """y = log(exp(k x) - 1) / k for the chosen features of (B, D), which are positive.

    The others pass. Far from 0 it is the identity: k says how near to 0 it begins to bend. A row
    with a chosen feature that is not positive gets log_det = -inf and finite y.

    Args:
        features: D.
        chosen: which features.
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
        k, inside = self._sharpness(x), x > 0
        # A harmless value in the place of the outsiders keeps NaN out of gradients too.
        size = k * torch.where(inside, x, 1.0)
        # 1 - exp(-size), which keeps its digits near 0.
        half = torch.tanh(size / 2)
        log_share = (2 * half / (1 + half)).log()
        log_slope = torch.where(inside, -log_share, -math.inf)
        y = torch.where(self.chosen, (size + log_share) / k, x)
        return y, sum_event(torch.where(self.chosen, log_slope, 0.0))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        k = self._sharpness(y)
        x = torch.where(self.chosen, softplus(k * y) / k, y)
        return x, sum_event(torch.where(self.chosen, -softplus(-k * y), 0.0))

    def _sharpness(self, like: Tensor) -> Tensor:
        return self.constants.get_buffer("sharpness").to(like.dtype)
