"""Folded transforms in a row: constant log-dets are one number, the rest is summed in float64."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from models.fold.constant import ConstantMap
from models.ode.call import SolveCall
from models.transforms.transform import SolvingTransform, Transform, apply


class Part(NamedTuple):
    """A folded transform and the transforms it was made of: "3 ActNorm", "4 LULinear"."""

    transform: Transform
    sources: tuple[str, ...]


class FoldedChain(SolvingTransform):
    """y = f_n(... f_1(x)) of folded transforms.

    Attributes:
        sources: for each transform, those of the original chain that it was made of.
        log_abs_det: the sum of all constant log-dets of encode, in nats.
        is_wide: whether values travel in float64 between the networks, whatever the dtype of these.
        context_embedding: what the transforms see in place of the context, if there is one.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        transforms = [part.transform for part in parts]
        self.transforms = nn.ModuleList(transforms)
        self.sources = [part.sources for part in parts]
        self.is_wide = False
        self.context_embedding: nn.Module | None = None
        self.log_abs_det = sum(t.log_abs_det for t in transforms if isinstance(t, ConstantMap))

    def encode(
        self, x: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        y, log_det = self.walk(x, context, call)
        return y.to(x.dtype), log_det

    def decode(
        self, y: Tensor, context: Tensor | None = None, *, call: SolveCall | None = None
    ) -> tuple[Tensor, Tensor]:
        x, log_det = self.walk(y, context, call, decoding=True)
        return x.to(y.dtype), log_det

    def walk(
        self,
        value: Tensor,
        context: Tensor | None,
        call: SolveCall | None = None,
        *,
        decoding: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Encode or decode; the value comes in the dtype it is computed in, log_det in float64."""
        constant = -self.log_abs_det if decoding else self.log_abs_det
        total = value.new_full((value.shape[0],), constant, dtype=torch.float64)
        if self.is_wide:
            value, context = value.double(), None if context is None else context.double()
        if self.context_embedding is not None:
            context = self.context_embedding(context)
        transforms = cast(list[Transform], list(self.transforms))
        for transform in reversed(transforms) if decoding else transforms:
            value, log_det = apply(transform, value, context, call, decoding=decoding)
            if not isinstance(transform, ConstantMap):
                total = total + log_det
        return value, total
