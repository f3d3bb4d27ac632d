"""Angles in front of a network: sine and cosine in their place, so that it knows no border."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.transforms.exact import ExactConstants


class PeriodicInputs(nn.Module):
    """net([sin(pi x / B), cos(pi x / B), other inputs], context).

    The sine stands where the angle was, the cosines behind all inputs.

    Args:
        in_features: inputs, angles among them.
        angles: which inputs are angles.
        bound: B of each angle, half its circumference.
        net: the network.
        mixes: w1 sin + w2 cos with learned w stands where the angle was, and nothing behind
            (normflows): the network then cannot tell all angles apart.

    Raises:
        ValueError: if an angle is none of the inputs.
    """

    angles: Tensor
    others: Tensor
    restore: Tensor

    def __init__(
        self,
        in_features: int,
        angles: Sequence[int],
        bound: Sequence[float],
        net: nn.Module,
        *,
        mixes: bool = False,
    ) -> None:
        super().__init__()
        others = [index for index in range(in_features) if index not in angles]
        if sorted({*angles, *others}) != list(range(in_features)):
            raise ValueError(f"angles: expected inputs below {in_features}, got {list(angles)}")
        each = list(bound) * (len(angles) if len(bound) == 1 else 1)
        if len(each) != len(angles):
            raise ValueError(f"bound: expected one number or {len(angles)}, got {len(bound)}")
        order = torch.tensor([*angles, *others])
        for name, values in (("angles", list(angles)), ("others", others)):
            index = torch.tensor(values, dtype=torch.int64)
            self.register_buffer(name, index, persistent=False)
        self.register_buffer("restore", order.argsort(), persistent=False)
        self.exact = ExactConstants(scale=[math.pi / value for value in each])
        self.weights = nn.Parameter(torch.ones(len(angles), 2)) if mixes else None
        self.net = net

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, in_features), context (B, K) -> (B, out_features)."""
        turned = x.index_select(1, self.angles) * self.exact.get_buffer("scale").to(x.dtype)
        first, second = turned.sin(), turned.cos()
        if self.weights is not None:
            first = self.weights[:, 0] * first + self.weights[:, 1] * second
        parts = (first, x.index_select(1, self.others)) if len(self.others) else (first,)
        inputs = torch.cat(parts, 1).index_select(1, self.restore)
        if self.weights is None:
            inputs = torch.cat((inputs, second), 1)
        raw: Tensor = self.net(inputs, context)
        return raw
