"""The capture of a function of static buffers in a CUDA graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from service.engines.cuda.runtime import CudaRuntime, Event, Graph

T = TypeVar("T")

# Libraries choose their algorithms and take their workspaces in the first calls, which a capture
# would refuse or keep for ever.
WARM_UPS = 3


class CaptureFailed(RuntimeError):
    """What was to be captured does something that a graph cannot hold; the message says what."""


@dataclass(frozen=True, slots=True)
class CapturedGraph(Generic[T]):
    """A captured function: it reads `inputs` anew in each replay, and writes `outputs` anew.

    inputs: the buffers that it was captured with. outputs: what it returned, on the device or in
    pinned memory; to be read once a replay was waited for, and before the next is launched.
    """

    inputs: tuple[Tensor, ...]
    outputs: T
    _graph: Graph
    _runtime: CudaRuntime

    def replay(self) -> Event:
        """Launch it on the runtime's stream, after all that was launched there.

        Returns:
            What to wait for before the outputs are read or the inputs are changed.
        """
        with self._runtime.lock, self._runtime.on_stream():
            self._graph.replay()
            return self._runtime.mark()


def capture(
    step: Callable[..., T], inputs: Sequence[Tensor], runtime: CudaRuntime
) -> CapturedGraph[T]:
    """Capture one call of `step(*inputs)`, for inference.

    Of several sizes the largest is to be captured first: the others then fit into its memory.

    Args:
        step: launches the same work in each call, whatever the buffers hold: its shapes do not
            depend on values, it waits for nothing, and all its memory is the device's or pinned.
        inputs: buffers that stay where they are.
        runtime: where it computes.

    Raises:
        CaptureFailed: it cannot be captured; the device goes on.
        torch.OutOfMemoryError: the device has too little memory.
    """
    try:
        with torch.inference_mode():
            _warm_up(step, inputs, runtime)
            with runtime.lock:
                runtime.synchronize()
                graph, outputs = runtime.record(lambda: step(*inputs))
    except Exception as error:  # kernels are compiled in the first calls: that may raise anything
        if out_of_memory := _out_of_memory(error):
            raise out_of_memory from None
        # A capture that failed says as it ends that it did; what went before says why.
        cause = error.__context__ or error
        reason = str(cause) or type(cause).__name__
    else:
        return CapturedGraph(tuple(inputs), outputs, graph, runtime)
    # Where the device itself is at fault this raises, and that is what the caller gets to see.
    with runtime.lock:
        runtime.synchronize()
    raise CaptureFailed(reason)


def _warm_up(step: Callable[..., T], inputs: Sequence[Tensor], runtime: CudaRuntime) -> None:
    """Call it a few times; others launch meanwhile, since a first call may compile for seconds."""
    # To wait for a whole device is an error while anybody records there: hence the lock.
    with runtime.lock:
        runtime.synchronize()  # what was made on another stream, weights among it, is there
    with runtime.on_stream():
        for _ in range(WARM_UPS):
            step(*inputs)


def _out_of_memory(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """Find it among what was raised: a capture that failed raises another one as it ends."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__context__
    return error
