"""Couplings as inference wants them: halves split once, moved in turns, joined once."""

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from models.fold.networks import Network
from models.fold.scalar import Scalar, Slopes
from models.row_sum import event_sum
from models.transforms.coupling import checkerboard
from models.transforms.elementwise import Elementwise
from models.transforms.transform import Transform, constant_log_det, sum_event

_FEW_SLOPES = 64


class Move(nn.Module):
    """Move one half as the other, and the context, say.

    Args:
        keeps_first: whether the first half speaks and the second moves.
    """

    def __init__(self, network: Network, scalar: Scalar, *, keeps_first: bool) -> None:
        super().__init__()
        self.network = network
        self.scalar = scalar
        self.keeps_first = keeps_first

    def encode(self, kept: Tensor, moved: Tensor, context: Tensor | None) -> tuple[Tensor, Slopes]:
        """Move towards the latents.

        Returns:
            The moved values, log-slopes in its shape or None where zero.
        """
        return self.scalar.encode(moved, self.network(kept, context))

    def decode(self, kept: Tensor, moved: Tensor, context: Tensor | None) -> tuple[Tensor, Slopes]:
        """Move towards the data.

        Returns:
            The moved values, log-slopes in its shape or None where zero.
        """
        return self.scalar.decode(moved, self.network(kept, context))


class ConstantMove(nn.Module):
    """Move one half by scalar maps with parameters of their own, the same for every row.

    Args:
        params: (features, num_params).
    """

    params: Tensor

    def __init__(self, elementwise: Elementwise, params: Tensor, *, keeps_first: bool) -> None:
        super().__init__()
        self.elementwise = elementwise
        # One row for all: some maps look along a row.
        self.register_buffer("params", params.unsqueeze(0))
        self.keeps_first = keeps_first

    def encode(self, kept: Tensor, moved: Tensor, context: Tensor | None) -> tuple[Tensor, Slopes]:
        """Move towards the latents.

        Returns:
            The moved values, log-slopes in its shape.
        """
        y, slopes = self.elementwise.encode(moved.double(), self.params.double())
        return y.to(moved.dtype), slopes.expand_as(moved)

    def decode(self, kept: Tensor, moved: Tensor, context: Tensor | None) -> tuple[Tensor, Slopes]:
        """Move towards the data.

        Returns:
            The moved values, log-slopes in its shape.
        """
        y, slopes = self.elementwise.decode(moved.double(), self.params.double())
        return y.to(moved.dtype), slopes.expand_as(moved)


class HalfCouplings(Transform):
    """Couplings one after the other over the same two parts of axis 1, [:cut] and [cut:].

    Whatever the masks were, permutations around this bring them here; the two parts are separate
    tensors from the first move to the last.
    """

    def __init__(self, cut: int, moves: Iterable[Move | ConstantMove]) -> None:
        super().__init__()
        self.cut = cut
        self.moves = nn.ModuleList(moves)

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._run(x, [(move.keeps_first, move.encode) for move in self._moves], context)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        steps = [(move.keeps_first, move.decode) for move in reversed(self._moves)]
        return self._run(y, steps, context)

    @property
    def _moves(self) -> list[Move | ConstantMove]:
        return cast(list[Move | ConstantMove], list(self.moves))

    def _run(
        self,
        value: Tensor,
        steps: list[tuple[bool, Callable[..., tuple[Tensor, Slopes]]]],
        context: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        first, second = value.split((self.cut, value.shape[1] - self.cut), 1)
        log_slopes = []
        for keeps_first, step in steps:
            kept, moved = (first, second) if keeps_first else (second, first)
            moved, slopes = step(kept, moved, context)
            if slopes is not None:
                log_slopes.append(slopes)
            first, second = (kept, moved) if keeps_first else (moved, kept)
        return torch.cat((first, second), 1), _total(log_slopes, value)


def _total(log_slopes: list[Tensor], like: Tensor) -> Tensor:
    """Add the log-slopes (B, ...) of all moves, in float64 at once.

    Returns:
        (B,).
    """
    if not log_slopes:
        return constant_log_det(0, like)
    if len(log_slopes) == 1:
        return event_sum(log_slopes[0])
    return sum_event(torch.cat([_shorten(slopes) for slopes in log_slopes], 1).double())


def _shorten(slopes: Tensor) -> Tensor:
    """Sum what is long; every sum is two operators, and a few numbers cost less than these."""
    if slopes.dim() == 2 and slopes.shape[1] <= _FEW_SLOPES:
        return slopes
    return event_sum(slopes, keepdim=True)


class FoldedCheckerboard(Transform):
    """`CheckerboardCoupling` with its mask as a constant.

    Args:
        parity: see `CheckerboardCoupling`.
        size: (H, W).
    """

    mask: Tensor

    def __init__(
        self, network: Network, scalar: Scalar, *, parity: int, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.network = network
        self.scalar = scalar
        self.register_buffer("mask", checkerboard(*size, parity))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._keep(x, *self.scalar.encode(x, self._raw(x, context)))

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._keep(y, *self.scalar.decode(y, self._raw(y, context)))

    def _raw(self, value: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        raw: tuple[Tensor, ...] = self.network(torch.where(self.mask, value, 0.0), context)
        return raw

    def _keep(self, value: Tensor, moved: Tensor, slopes: Slopes) -> tuple[Tensor, Tensor]:
        moved = torch.where(self.mask, value, moved)
        if slopes is None:
            return moved, constant_log_det(0, value)
        return moved, sum_event(torch.where(self.mask, 0.0, slopes))


class FoldedPointwise(Transform):
    """`Pointwise` over all features of (B, D): nothing is put back among others.

    Args:
        params: (D, num_params).
    """

    params: Tensor

    def __init__(self, elementwise: Elementwise, params: Tensor) -> None:
        super().__init__()
        self.elementwise = elementwise
        self.register_buffer("params", params.unsqueeze(0))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _constant_map(self.elementwise.encode, x, self.params)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _constant_map(self.elementwise.decode, y, self.params)


def _constant_map(
    step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], value: Tensor, params: Tensor
) -> tuple[Tensor, Tensor]:
    found, slopes = step(value.double(), params.double())
    return found.to(value.dtype), sum_event(slopes.expand_as(value))


class FoldedPrior(Transform):
    """A conditional `GaussianPrior`, its tables as one linear layer.

    Args:
        table: context (B, K) -> (B, 2 n): mean and log_std, n numbers each.
        shape: of each, broadcast against x; n = prod(shape).
    """

    def __init__(self, table: nn.Linear, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.table = table
        self.shape = shape

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_std = self._mean_and_log_std(context)
        return (x - mean) * (-log_std).exp(), -self._log_det(log_std, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, log_std = self._mean_and_log_std(context)
        return y * log_std.exp() + mean, self._log_det(log_std, y)

    def _mean_and_log_std(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if context is None:
            raise ValueError(f"context: expected shape (*, {self.table.in_features}), got none")
        raw = self.table(context.to(self.table.weight.dtype))
        mean, log_std = raw.unflatten(1, (2, *self.shape)).unbind(1)
        return mean, log_std

    def _log_det(self, log_std: Tensor, like: Tensor) -> Tensor:
        repeats = math.prod(like.shape[1:]) // math.prod(self.shape)
        return sum_event(log_std) * repeats
