"""Folded transforms in a row: constant log-dets are one number, the rest is summed in float64."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from models.fold.constant import ConstantMap
from models.transforms.transform import Transform


class Part(NamedTuple):
    """A folded transform and the transforms it was made of: "3 ActNorm", "4 LULinear"."""

    transform: Transform
    sources: tuple[str, ...]


class FoldedChain(Transform):
    """y = f_n(... f_1(x)) of folded transforms.

    Attributes:
        sources: for each transform, those of the original chain that it was made of.
        log_abs_det: the sum of all constant log-dets of encode, in nats.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        transforms = [part.transform for part in parts]
        self.transforms = nn.ModuleList(transforms)
        self.sources = [part.sources for part in parts]
        self.log_abs_det = sum(t.log_abs_det for t in transforms if isinstance(t, ConstantMap))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_full((x.shape[0],), self.log_abs_det, dtype=torch.float64)
        for transform in cast(Sequence[Transform], self.transforms):
            x, log_det = transform.encode(x, context)
            if not isinstance(transform, ConstantMap):
                total = total + log_det
        return x, total

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = y.new_full((y.shape[0],), -self.log_abs_det, dtype=torch.float64)
        for transform in reversed(cast(Sequence[Transform], self.transforms)):
            y, log_det = transform.decode(y, context)
            if not isinstance(transform, ConstantMap):
                total = total + log_det
        return y, total
