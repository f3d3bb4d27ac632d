"""The few calls of `torch.cuda` that captured graphs need, behind an interface that tests fake."""

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# What ends the recording of allocations in a pool of a device, and then lets go of the pool. torch
# has no public names for these.
LEAVE_POOL: tuple[Callable[[int, Any], None], ...] = tuple(
    getattr(torch._C, name)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool")
    if hasattr(torch._C, name)
)

# One thread a device launches or captures at a time, whatever the model.
_launch_locks: dict[torch.device, threading.Lock] = defaultdict(threading.Lock)
_table_lock = threading.Lock()


class Graph(Protocol):
    """A recorded sequence of kernels and copies, as `torch.cuda.CUDAGraph`."""

    def replay(self) -> None:
        """Launch all of it on the current stream, and return at once."""
        ...


class Event(Protocol):
    """A mark in a stream, as `torch.cuda.Event`."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""
        ...

    def query(self) -> bool:
        """Whether the device has come to it."""
        ...


class CudaRuntime(Protocol):
    """A stream of a device of its own, with one memory pool for all graphs that are recorded on it.

    Graphs that share a pool may lie on each other's intermediate results: they are replayed on that
    one stream alone, one after the other, and keep nothing there from one replay to the next.
    """

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        ...

    @property
    def lock(self) -> "threading.Lock":
        """Held by whoever launches or records on the device."""
        ...

    def on_stream(self) -> AbstractContextManager[Any]:
        """Make its stream the current one of this thread."""
        ...

    def record(self, step: Callable[[], T]) -> tuple[Graph, T]:
        """Record what `step` launches, which is not computed, and give what it returns."""
        ...

    def mark(self) -> Event:
        """Mark in its stream what was launched until now."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Host memory that the device reads and writes by itself."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has nothing to do."""
        ...


class TorchCudaRuntime:
    """The runtime of a CUDA device, by torch.

    Args:
        device: "cuda:N".
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with _table_lock:
            self.lock = _launch_locks[device]
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def on_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream)

    def record(self, step: Callable[[], T]) -> tuple[Graph, T]:
        graph = torch.cuda.CUDAGraph()
        # A failed capture leaves the stream of its own context current: this one sets it back.
        # thread_local: what other threads do meanwhile on other streams is no error of ours.
        try:
            with (
                torch.cuda.stream(self._stream),
                torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ),
            ):
                result = step()
        except BaseException:
            self._leave_pool()
            raise
        return graph, result

    def mark(self) -> Event:
        event: Event = self._stream.record_event()
        return event

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)

    def _leave_pool(self) -> None:
        """End what a failed capture left begun: the allocator would go on granting from its pool.

        The graphs that were recorded before keep that pool; the next ones get another.
        """
        pool, self._pool = self._pool, torch.cuda.graph_pool_handle()
        index = self._stream.device_index
        with suppress(RuntimeError):  # it had ended, and then let go of the pool by itself
            for call in LEAVE_POOL:
                call(index, pool)
