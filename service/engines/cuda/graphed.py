"""A function of a flow as captured graphs: one launch computes a batch, from host to host."""

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

import torch
from torch import Tensor

from service.contracts import Array, EngineOutput
from service.engines.cuda.buckets import size_for
from service.engines.cuda.buffers import BatchBuffers, RowShapes
from service.engines.cuda.capture import capture
from service.engines.cuda.runtime import CudaRuntime, Event
from service.engines.device_errors import device_fault
from service.engines.engine import EngineOutOfMemory
from service.engines.probe import DeviceProbe

# A batch computes while the next one is assembled: each has memory of its own.
BATCHES_A_SIZE = 2


class FlowFunction(Protocol):
    """`Flow.encode` or `Flow.decode`, or what computes the same."""

    def __call__(self, value: Tensor, context: Tensor | None, /) -> tuple[Tensor, Tensor]: ...


class CapturedBatch(Protocol):
    """A batch of one size in graphs, with the memory of its rows and of what comes of them."""

    @property
    def buffers(self) -> BatchBuffers:
        """Its inputs and outputs on the host."""
        ...

    def replay(self) -> Event:
        """Compute what is in the buffers; they are the device's until the event has come."""
        ...

    def compute_uncaptured(self) -> None:
        """Compute what is in the buffers by the same kernels, launched one by one."""
        ...


class GraphedBatch:
    """A captured batch of one size: copies in, kernels and copies out are one graph.

    Args:
        function: of the flow.
        shapes: of its rows.
        size: of the batch.
        runtime: where it computes.

    Raises:
        CaptureFailed: it cannot be captured.
        torch.OutOfMemoryError: the device has too little memory for this size.
    """

    def __init__(
        self, function: FlowFunction, shapes: RowShapes, size: int, runtime: CudaRuntime
    ) -> None:
        self.buffers = BatchBuffers(size, shapes, runtime)
        self._function = function
        self._runtime = runtime
        for buffer in self.buffers.inputs:
            buffer.zero_()
        self._graph = capture(self._step, self.buffers.inputs, runtime)

    def replay(self) -> Event:
        """Compute what is in the buffers; they are the device's until the event has come."""
        return self._graph.replay()

    def compute_uncaptured(self) -> None:
        """Compute what is in the buffers by the same kernels, launched one by one."""
        with self._runtime.on_stream(), torch.inference_mode():
            self._step(*self.buffers.inputs)
        with self._runtime.lock:
            self._runtime.synchronize()

    def _step(self, rows: Tensor, context: Tensor | None = None) -> None:
        device, buffers = self._runtime.device, self.buffers
        condition = None if context is None else context.to(device, non_blocking=True)
        value, log_det = self._function(rows.to(device, non_blocking=True), condition)
        # What is not contiguous is made so on the device: one copy then brings it to the host.
        buffers.value.copy_(value.contiguous(), non_blocking=True)
        buffers.log_det.copy_(log_det.contiguous(), non_blocking=True)


class GraphedFunction:
    """Captured batches of some sizes: a batch is computed by the smallest that holds it.

    Args:
        batches: `BATCHES_A_SIZE` of each size.
        probe: of the device.
    """

    def __init__(self, batches: Sequence[CapturedBatch], probe: DeviceProbe | None = None) -> None:
        self._probe = probe
        self.sizes = tuple(sorted({batch.buffers.size for batch in batches}))
        self._free: dict[int, SimpleQueue[CapturedBatch]] = {
            size: SimpleQueue() for size in self.sizes
        }
        for batch in batches:
            self._free[batch.buffers.size].put(batch)

    def start(self, rows: Array, context: Array | None) -> "PendingReplay":
        """Begin to compute a batch; see `PipelinedEngine.start`."""
        size = size_for(len(rows), self.sizes)
        if size is None:
            raise EngineOutOfMemory(
                f"{len(rows)} rows: the device has memory for {self.sizes[-1]} rows a batch"
            )
        free = self._free[size]
        batch = free.get()
        try:
            batch.buffers.write(rows, context)
            event = batch.replay()
        except BaseException as error:
            free.put(batch)
            fault = device_fault(error, self._probe)
            if fault is None:
                raise
        else:
            return PendingReplay(batch, event, len(rows), free.put, self._probe)
        raise fault


class PendingReplay:
    """A batch that the device computes; see `PendingBatch`.

    Args:
        batch: that was launched.
        event: comes when it is computed.
        rows: of it that are no padding.
        give_back: lets others have the batch.
        probe: of the device.
    """

    def __init__(
        self,
        batch: CapturedBatch,
        event: Event,
        rows: int,
        give_back: Callable[[CapturedBatch], None],
        probe: DeviceProbe | None,
    ) -> None:
        self._batch, self._event, self._rows = batch, event, rows
        self._give_back, self._probe = give_back, probe

    def finish(self) -> EngineOutput:
        """Wait for it, and copy what came of it."""
        try:
            self._event.synchronize()
            return self._batch.buffers.read(self._rows)
        except RuntimeError as error:
            fault = device_fault(error, self._probe)
            if fault is None:
                raise
        finally:
            self._give_back(self._batch)
        raise fault
