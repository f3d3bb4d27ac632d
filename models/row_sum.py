"""Sums over the values of a row, whose bits do not depend on where in a batch the row lies."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

# From so many values on, CUDA adds those of a row up by vectors of 16 or 32 bytes, and takes those
# before the first aligned address by themselves: the order then depends on where the row begins.
LONG_ROW = 128
# Rows of so many values begin at equally aligned addresses, in float32 and in float64.
ALIGNED_VALUES = 16


def row_sum(values: Tensor, dim: int = -1) -> Tensor:
    """Sum the last axis, which `dim` names.   (..., D) -> (...).

    On a CPU, and where all rows are aligned as they are, this is the sum and nothing more.
    """
    must_align = values.is_cuda and is_unaligned(values.shape[-1], values.stride()[:-1])
    return (aligned_rows(values) if must_align else values).sum(dim)


def event_sum(values: Tensor, *, keepdim: bool = False) -> Tensor:
    """Sum everything but the batch axis.   (B, ...) -> (B,), or (B, 1, ...)."""
    if not (values.is_cuda and is_unaligned(math.prod(values.shape[1:]), values.stride()[:1])):
        return values.sum(tuple(range(1, values.dim())), keepdim=keepdim)
    summed = aligned_rows(values.flatten(1)).sum(1)
    return summed.view(-1, *[1] * (values.dim() - 1)) if keepdim else summed


def aligned_rows(values: Tensor) -> Tensor:
    """Append zeros to the rows until all of them are aligned alike.   (..., D) -> (..., D')."""
    return F.pad(values, (0, -values.shape[-1] % ALIGNED_VALUES))


def is_unaligned(width: int, strides: Sequence[int]) -> bool:
    """Whether rows of `width` values, so far apart, are summed in orders that differ on a GPU."""
    steps = (width, *strides)
    return width >= LONG_ROW and any(step % ALIGNED_VALUES != 0 for step in steps)
