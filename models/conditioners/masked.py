"""Masked layers: networks whose output for a feature depends on earlier features only (MADE)."""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedLinear(nn.Linear):
    """y = (W * mask) x + b.

    The mask is saved with the weights: checkpoints of other code bring their own.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.bool())

    def forward(self, x: Tensor) -> Tensor:
        """X (B, in) -> (B, out)."""
        return F.linear(x, self.weight * self.mask, self.bias)


class Masked:
    """The wiring of a MADE: the outputs for feature i see features of smaller order alone.

    Every hidden unit has a degree m and sees inputs of order <= m; the outputs for a feature of
    order o see units of degree < o. Degrees are spread evenly over what is useful. With a context
    some units have degree -1: they see the context alone, so that the first features are
    conditional too.

    Args:
        order: of each feature, 0 .. passes - 1; features of one order do not see each other.
        num_params: blocks of outputs, each with one output a feature.
        context_features: seen by every unit.

    Reference: Germain et al. 2015, eqs. 8-13 (arXiv 1502.03509).
    """

    has_degrees = True

    def __init__(self, order: Sequence[int], num_params: int, context_features: int = 0) -> None:
        self.order = torch.as_tensor(order)
        self.seen = self.order
        self.num_params = num_params
        self.context_features = context_features

    @property
    def in_features(self) -> int:
        """How many inputs there are."""
        return len(self.seen)

    def with_more_of(self, inputs: Sequence[int]) -> "Masked":
        """The same with further inputs behind, seen by whom those are seen by that they are of."""
        wider = copy.copy(self)
        wider.seen = torch.cat((self.seen, self.seen[list(inputs)]))
        return wider

    def entry(self, width: int, *, with_context: bool) -> nn.Linear:
        """First layer: (B, in_features [+ context_features]) -> (B, width)."""
        mask = self._degrees(width)[:, None] >= self.seen
        if with_context:
            mask = F.pad(mask, (0, self.context_features), value=True)
        return MaskedLinear(mask)

    def hidden(self, before: int, after: int) -> nn.Linear:
        """(B, before) -> (B, after)."""
        return MaskedLinear(self._degrees(after)[:, None] >= self._degrees(before))

    def exit(self, width: int) -> nn.Linear:
        """Last layer: (B, width) -> (B, num_params * D)."""
        mask = self.order[:, None] > self._degrees(width)
        return MaskedLinear(mask.repeat(self.num_params, 1))

    def _degrees(self, width: int) -> Tensor:
        lowest = -1 if self.context_features else 0
        span = max(1, int(self.order.max()) - lowest)
        return lowest + torch.arange(width) * span // width
