"""A runtime of CUDA graphs on the CPU: a replay computes again, into the same memory, and late."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# Called after a replay with all pinned memory, as it was before and as it is now: makes it wrong.
Fault = Callable[[list[Tensor], list[Tensor]], None]


class FakeRuntime:
    """Replays recorded functions when somebody waits for them, and not before.

    Args:
        fault: what is wrong with each replay.
    """

    def __init__(self, fault: Fault | None = None) -> None:
        self.device = torch.device("cpu")
        self.lock = threading.Lock()
        self.fault = fault
        self.buffers: list[Tensor] = []
        self.launched: list[Callable[[], None]] = []
        self.computed = 0
        self.recorded = 0

    def on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def record(self, step: Callable[[], T]) -> tuple["FakeGraph", T]:
        assert self.lock.locked()
        assert not self.launched, "expected to have waited before a capture"
        self.recorded += 1
        before = [buffer.clone() for buffer in self.buffers]
        outputs = step()
        for buffer, was in zip(self.buffers, before, strict=True):  # nothing is computed
            buffer.copy_(was)
        for tensor in _tensors(outputs):
            tensor.fill_(torch.nan)
        return FakeGraph(self, step, _tensors(outputs)), outputs

    def mark(self) -> "FakeEvent":
        return FakeEvent(self, self.computed + len(self.launched))

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        self.buffers.append(torch.full(shape, torch.nan, dtype=dtype))
        return self.buffers[-1]

    def synchronize(self) -> None:
        self.compute(self.computed + len(self.launched))

    def compute(self, until: int) -> None:
        """Compute what was launched first, until that many were in all."""
        while self.computed < until:
            self.computed += 1
            self.launched.pop(0)()


class FakeGraph:
    """A recorded function."""

    def __init__(
        self, runtime: FakeRuntime, step: Callable[[], object], outputs: list[Tensor]
    ) -> None:
        self._runtime, self._step, self._outputs = runtime, step, outputs

    def replay(self) -> None:
        assert self._runtime.lock.locked()
        self._runtime.launched.append(self._compute)

    def _compute(self) -> None:
        runtime = self._runtime
        before = [buffer.clone() for buffer in runtime.buffers]
        with torch.inference_mode():
            for kept, found in zip(self._outputs, _tensors(self._step()), strict=True):
                kept.copy_(found)
        if runtime.fault is not None:
            runtime.fault(before, runtime.buffers)


class FakeEvent:
    """A mark after so many launches."""

    def __init__(self, runtime: FakeRuntime, launches: int) -> None:
        self._runtime, self._launches = runtime, launches

    def synchronize(self) -> None:
        self._runtime.compute(self._launches)

    def query(self) -> bool:
        return self._runtime.computed >= self._launches


def _tensors(outputs: object) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [tensor for tensor in outputs or () if isinstance(tensor, Tensor)]  # type: ignore[attr-defined]
