"""The operations of a masked network, each in parts: one part a turn of the decode."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What the steps of a network remember of earlier turns, by step.
Memory = dict[int, Tensor]

# The degree of units that see the context alone, or nothing: known before the first feature.
BEFORE_ALL = -1


class Step(nn.Module, ABC):
    """One operation of a network, or the part of it that falls into one turn."""

    key: int = 0

    def degrees(self, before: Tensor) -> Tensor:
        """The turn in which each output is known, from those of the inputs."""
        return before

    def part(self, units: Tensor, known: Tensor) -> "Step":
        """What computes the outputs `units` from the inputs `known`, in this order."""
        return self

    @abstractmethod
    def forward(
        self, value: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor | None:
        """Compute the units of this turn.   (B, n) or None for no units -> the same."""


class Linear(Step):
    """value <- W value + b; earlier inputs are taken from memory."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def degrees(self, before: Tensor) -> Tensor:
        seen = torch.where(self.weight != 0, before, BEFORE_ALL)
        return seen.amax(1)

    def part(self, units: Tensor, known: Tensor) -> Step:
        return Linear(self.weight[units][:, known], self.bias[units])

    def forward(
        self, value: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor | None:
        known = memory.get(self.key)
        if value is not None:
            known = value if known is None else torch.cat((known, value), 1)
            memory[self.key] = known
        if not len(self.bias):
            return None
        return (
            self.bias.expand(rows, -1) if known is None else F.linear(known, self.weight, self.bias)
        )


class Pointwise(Step):
    """value <- function(value)."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(
        self, value: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor | None:
        return None if value is None else self.function(value)


class Affine(Step):
    """value <- scale value + shift, unit by unit."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def part(self, units: Tensor, known: Tensor) -> Step:
        return Affine(self.scale[units], self.shift[units])

    def forward(
        self, value: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor | None:
        return None if value is None else value * self.scale + self.shift


class AddContext(Step):
    """value <- value + a(V context + d), or value * a(V context + d) for a gate."""

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        function: Callable[[Tensor], Tensor] | None,
        *,
        is_gate: bool,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.function = function
        self.is_gate = is_gate

    def part(self, units: Tensor, known: Tensor) -> Step:
        return AddContext(self.weight[units], self.bias[units], self.function, is_gate=self.is_gate)

    def forward(
        self, value: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor | None:
        if value is None or context is None:
            return value
        from_context = F.linear(context, self.weight, self.bias)
        if self.function is not None:
            from_context = self.function(from_context)
        return value * from_context if self.is_gate else value + from_context


class Save(Step):
    """Remember the units of this turn for `AddSaved` of the same key."""

    def forward(
        self, value: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor | None:
        if value is not None:
            memory[self.key] = value
        return value


class AddSaved(Step):
    """value <- value + what `Save` remembered of the same units."""

    def forward(
        self, value: Tensor | None, memory: Memory, context: Tensor | None, rows: int
    ) -> Tensor | None:
        return None if value is None else value + memory[self.key]
