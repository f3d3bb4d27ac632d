"""The host's side of a captured batch: pinned memory that the device reads and writes by itself."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.contracts import Array, EngineOutput
from service.engines.cuda.runtime import CudaRuntime


@dataclass(frozen=True, slots=True)
class RowShapes:
    """The shapes of one row of a function: what it takes and gives, and of its context."""

    takes: tuple[int, ...]
    gives: tuple[int, ...]
    context: tuple[int, ...] | None
    dtype: torch.dtype


class BatchBuffers:
    """Inputs and outputs of a batch of one size.

    Args:
        size: rows.
        shapes: of a row.
        runtime: grants the memory.
    """

    def __init__(self, size: int, shapes: RowShapes, runtime: CudaRuntime) -> None:
        def pinned(*row: int) -> Tensor:
            return runtime.pinned((size, *row), shapes.dtype)

        self.size = size
        self.rows = pinned(*shapes.takes)
        self.context = None if shapes.context is None else pinned(*shapes.context)
        self.value = pinned(*shapes.gives)
        self.log_det = pinned()

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the device reads: rows, and their context if there is one."""
        return (self.rows,) if self.context is None else (self.rows, self.context)

    def write(self, rows: Array, context: Array | None) -> None:
        """Copy a batch in; the rows that it is short of are copies of its first."""
        _fill(self.rows.numpy(), rows)
        if self.context is not None:
            if context is None:
                raise RuntimeError("context: a conditional model's rows came without it")
            _fill(self.context.numpy(), context)

    def read(self, count: int) -> EngineOutput:
        """Copy the results of the first rows out: value and log_det."""
        return self.value.numpy()[:count].copy(), self.log_det.numpy()[:count].copy()

    def poison_outputs(self) -> None:
        """Fill the outputs with NaN: what is not written stays so."""
        self.value.fill_(torch.nan)
        self.log_det.fill_(torch.nan)

    def isolate(self, row: Array, context: Array | None, position: int) -> None:
        """Copy one row in, among rows of NaN alone."""
        for buffer, given in ((self.rows, row), (self.context, context)):
            if buffer is not None and given is not None:
                array = buffer.numpy()
                array[:] = float("nan")
                array[position] = given


def _fill(buffer: Array, given: Array) -> None:
    count = len(given)
    buffer[:count] = given
    buffer[count:] = given[:1]
