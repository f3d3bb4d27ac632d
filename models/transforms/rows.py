"""Autoregressive maps of images inverted row by row, the values of a row by fixed-point iteration.

What the rows above say to a row is computed once. So a pass goes over one row and not over the
image, and there are as many passes as its values at most: of 28 x 28 pixels all of them together
cost less than 28 passes over the whole. In a network that sees rows above by one stack and the
row itself by another, that is the order in which it was meant to be sampled.

Reference: Song et al. 2021, Accelerating Feedforward Computation via Parallel Nonlinear Equation
Solving, algorithm 3 (arXiv 2002.03629), whose blocks are the rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from models.ode.while_loop import Carry, repeat
from models.transforms.jacobi import Inversion


class RowNetwork(nn.Module, ABC):
    """A network over images (C, H, W), of which one row can be computed after the other.

    Attributes:
        shape: (C, H, W).
    """

    shape: tuple[int, int, int]

    @property
    @abstractmethod
    def goes_by_rows(self) -> bool:
        """Whether a row can receive anything from rows above it."""

    @abstractmethod
    def first_row(self, like: Tensor, context: Tensor | None) -> tuple[Tensor, Carry]:
        """What the first row receives, and what must be kept of the rows above it: none.

        Args:
            like: (B, ...), for as many rows of a batch.
            context: (B, K) of a conditional network.

        Returns:
            (B, ...), and tensors (B, ...).
        """

    @abstractmethod
    def next_row(self, row: Tensor, kept: Carry, context: Tensor | None) -> tuple[Tensor, Carry]:
        """What the row below `row` (B, C, 1, W) receives, and what must be kept, as `first_row`."""

    @abstractmethod
    def in_row(self, row: Tensor, received: Tensor) -> Tensor:
        """The parameters of a row.   (B, C W) and what it receives -> (B, num_params C W)."""


# (y, raw parameters) -> x and its log-slopes, None where they are 0.
Decode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


def decode_by_rows(
    network: RowNetwork, decode: Decode, y: Tensor, context: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Invert an autoregressive map whose order is row by row, column by column, then by channel.

    Args:
        network: gives the parameters of the map.
        decode: the inverse of the map, of values (B, C W).
        y: (B, C H W).
        context: (B, K) of a conditional network.

    Returns:
        x and its log-slopes, both (B, C H W).
    """
    channels, height, width = network.shape
    values = channels * width
    order = torch.arange(values, device=y.device).view(width, channels).T.flatten()

    def step(x: Tensor, now: Tensor, received: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return decode(now, network.in_row(x, cast(Tensor, received)))

    def turn(_: Tensor, carry: Carry, given: Carry) -> Carry:
        waiting, found, slopes, received, *kept = carry
        inversion = Inversion(step, order, guesses=True, is_inside=True)
        solved = inversion.solve(waiting[:, :, 0].flatten(1), received, values)
        row = solved.x.reshape(-1, channels, 1, width)
        received, kept_on = network.next_row(row, tuple(kept), next(iter(given), None))
        slope = torch.zeros_like(solved.x) if solved.log_slopes is None else solved.log_slopes
        return (
            _with_last(waiting, waiting[:, :, :1]),
            _with_last(found, row),
            _with_last(slopes, slope.reshape(-1, channels, 1, width)),
            received,
            *kept_on,
        )

    image = y.reshape(-1, channels, height, width)
    blank = torch.zeros_like(image)
    received, kept = network.first_row(y, context)
    given = () if context is None else (context,)
    carry = repeat(turn, (image, blank, blank, received, *kept), given, height)
    return carry[1].flatten(1), carry[2].flatten(1)


def _with_last(image: Tensor, row: Tensor) -> Tensor:
    """The first row leaves, the others move up, and `row` comes last."""
    return torch.cat((image[:, :, 1:], row), 2)
