"""A function of a continuous flow as captured graphs: between its solves, and the steps of each.

A graph cannot go on until the last row is done. So a few steps of all rows are one graph, launched
until none is under way: the device says how many are, and is given the next steps before the host
reads it. Rows that are done, and those that fill the batch up, keep their state meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.ode.fixed_batch import (
    BatchOutputs,
    FixedBatch,
    FixedBatchCall,
    FlowCall,
    OpenSolve,
    repeat_steps,
)
from models.ode.while_loop import Carry
from service.contracts import Array, EngineOutput, SolverStats
from service.engines.cuda.buffers import BatchBuffers, RowShapes
from service.engines.cuda.capture import CapturedGraph, capture
from service.engines.cuda.runtime import CudaRuntime, Event


class SolveBuffers(BatchBuffers):
    """Inputs and outputs of a batch that is solved: also which rows there are, and how each ended.

    Args:
        size: rows.
        shapes: of a row.
        runtime: grants the memory.
    """

    def __init__(self, size: int, shapes: RowShapes, runtime: CudaRuntime) -> None:
        super().__init__(size, shapes, runtime)
        self.is_row = runtime.pinned((size, 1), shapes.dtype)
        self.stats = tuple(runtime.pinned((size,), shapes.dtype) for _ in SolverStats._fields)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the device reads: rows, their context if there is one, and which are no padding."""
        return (*super().inputs, self.is_row)

    def write(self, rows: Array, context: Array | None) -> None:
        """Copy a batch in; what it is short of is padding, which takes no step."""
        super().write(rows, context)
        self.is_row.zero_()
        self.is_row[: len(rows)] = 1

    def isolate(self, row: Array, context: Array | None, position: int) -> None:
        super().isolate(row, context, position)
        self.is_row.fill_(1)

    def read(self, count: int) -> EngineOutput:
        """Copy the results of the first rows out: value, log_det, and how they were solved."""
        value, log_det, *_ = super().read(count)
        status, evaluations, error = (column.numpy()[:count].copy() for column in self.stats)
        counts = (status.astype(np.int64), evaluations.astype(np.int64))
        return value, log_det, SolverStats(*counts, error)

    def poison_outputs(self) -> None:
        super().poison_outputs()
        for column in self.stats:
            column.fill_(-1)


@dataclass(frozen=True, slots=True)
class _Loop:
    """The steps of one solve.

    graph: a few of them. under_way: how many rows are, in pinned memory.
    """

    graph: CapturedGraph[None]
    under_way: Tensor

    def finish(self, launched: Event) -> None:
        """Launch steps until no row is under way.

        Args:
            launched: comes when the steps that were launched before are computed.
        """
        while True:
            # It may overwrite what is read below with what is true a few steps later.
            following = self.graph.replay()
            launched.synchronize()
            if not self.under_way.item():
                return
            launched = following


class SolvedBatch:
    """A captured batch of one size of a flow that counts its evaluations; see `CapturedBatch`.

    Args:
        function: `encode` or `decode` of a flow.
        shapes: of its rows.
        size: of the batch.
        runtime: where it computes.
        wants_log_det: False leaves the log-dets out: they are 0.

    Raises:
        CaptureFailed: it cannot be captured.
        torch.OutOfMemoryError: the device has too little memory for this size.
    """

    def __init__(
        self,
        function: FlowCall,
        shapes: RowShapes,
        size: int,
        runtime: CudaRuntime,
        *,
        wants_log_det: bool = True,
    ) -> None:
        self.buffers = SolveBuffers(size, shapes, runtime)
        self._call = FixedBatchCall(function, wants_log_det=wants_log_det)
        self._wants_log_det = wants_log_det
        self._runtime = runtime
        for buffer in self.buffers.inputs:
            buffer.zero_()
        # Where the device keeps its inputs and all that solves carry: no graph's own memory, which
        # other graphs may use between two replays.
        value, context, is_row = self._on_device(*self.buffers.inputs)
        context = None if context is None else context.clone()
        self._inputs = FixedBatch(value.clone(), context, is_row)
        self._solves: list[OpenSolve] = []
        self._loops: list[_Loop] = []
        self._between: list[CapturedGraph[None]] = []
        self._capture()

    def replay(self) -> "SolvingEvent":
        """Begin to compute what is in the buffers; whoever waits for it launches the rest."""
        launched: Event = self._between[0].replay()
        if self._loops:
            launched = self._loops[0].graph.replay()
        return SolvingEvent(self, launched)

    def finish(self, launched: Event) -> None:
        """Launch the rest of what `replay` began, and wait for it."""
        for index, loop in enumerate(self._loops):
            loop.finish(launched)
            launched = self._between[index + 1].replay()
            if index + 1 < len(self._loops):
                launched = self._loops[index + 1].graph.replay()
        launched.synchronize()

    def compute_uncaptured(self) -> None:
        """Compute what is in the buffers by the same kernels, launched one by one."""
        with self._runtime.on_stream(), torch.inference_mode():
            self._write(self._call.run(self._on_device(*self.buffers.inputs)))
        with self._runtime.lock:
            self._runtime.synchronize()

    def _capture(self) -> None:
        """Capture all up to the first solve, its steps, all up to the next, and so on."""
        while len(self._between) == len(self._loops):
            index = len(self._loops)
            proceed = partial(self._proceed, index)
            self._between.append(capture(proceed, self.buffers.inputs, self._runtime))
            if len(self._solves) > index:
                self._loops.append(self._capture_loop(self._solves[index]))

    def _proceed(self, index: int, *given: Tensor) -> None:
        """Compute from the end of solve `index - 1` to the next, or to the end of all."""
        if index == 0:
            _copy(_tensors(self._inputs), _tensors(self._on_device(*given)))
        found = self._call.proceed(self._inputs, [one.carry for one in self._solves[:index]])
        if isinstance(found, BatchOutputs):
            self._write(found)
            return
        if len(self._solves) == index:  # when it is warmed up: not in a graph's memory
            kept = (tuple(map(torch.clone, part)) for part in (found.carry, found.given))
            self._solves.append(OpenSolve(found.body, *kept))
        _copy(self._solves[index].carry, found.carry)
        _copy(self._solves[index].given, found.given)

    def _capture_loop(self, solve: OpenSolve) -> _Loop:
        under_way = self._runtime.pinned((1,), self._inputs.value.dtype)

        def steps(*carry: Tensor) -> None:
            _copy(carry, repeat_steps(solve.body, carry, solve.given))
            count = carry[0].sum(0, dtype=under_way.dtype)
            under_way.copy_(count, non_blocking=True)

        return _Loop(capture(steps, solve.carry, self._runtime), under_way)

    def _on_device(self, value: Tensor, *others: Tensor) -> FixedBatch:
        *context, is_row = (
            part.to(self._runtime.device, non_blocking=True) for part in (value, *others)
        )
        rows, *condition = context
        return FixedBatch(rows, condition[0] if condition else None, is_row > 0)

    def _write(self, found: BatchOutputs) -> None:
        value, log_det, *stats = found
        if not self._wants_log_det:
            log_det = torch.zeros_like(log_det)
        buffers = (self.buffers.value, self.buffers.log_det, *self.buffers.stats)
        for buffer, part in zip(buffers, (value, log_det, *stats), strict=True):
            # Converted on the device: one copy then brings it to the host.
            buffer.copy_(part.to(buffer.dtype).contiguous(), non_blocking=True)


class SolvingEvent:
    """The end of a batch that is solved; see `Event`. Waiting for it is what solves it.

    Args:
        batch: that was begun.
        launched: comes when what was launched is computed.
    """

    def __init__(self, batch: SolvedBatch, launched: Event) -> None:
        self._batch, self._launched = batch, launched
        self._is_finished = False

    def synchronize(self) -> None:
        """Launch and wait until all rows are done."""
        if not self._is_finished:
            self._batch.finish(self._launched)
            self._is_finished = True

    def query(self) -> bool:
        """Whether somebody has waited for it."""
        return self._is_finished


def _tensors(inputs: FixedBatch) -> Carry:
    return tuple(part for part in inputs if part is not None)


def _copy(kept: Sequence[Tensor], found: Sequence[Tensor]) -> None:
    for to, part in zip(kept, found, strict=True):
        to.copy_(part)
