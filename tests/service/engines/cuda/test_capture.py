"""The capture of a function of static buffers: warmed up, recorded, replayed, refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from service.engines.cuda.capture import WARM_UPS, CaptureFailed, capture

from .fakes import FakeRuntime


def test_a_replay_reads_the_inputs_and_writes_the_outputs_anew() -> None:
    given = torch.tensor([1.0, 2.0])
    graph = capture(lambda x: (2 * x, x.sum(0, keepdim=True)), [given], FakeRuntime())
    doubled, total = graph.outputs
    graph.replay().synchronize()
    assert (doubled.tolist(), total.tolist()) == ([2.0, 4.0], [3.0])
    graph.inputs[0].copy_(torch.tensor([5.0, 6.0]))
    graph.replay().synchronize()
    assert (doubled.tolist(), total.tolist()) == ([10.0, 12.0], [11.0])


def test_replays_may_be_launched_ahead() -> None:
    runtime, state = FakeRuntime(), torch.zeros(1)
    graph = capture(lambda x: x.add_(1), [state], runtime)
    state.zero_()
    first, second = graph.replay(), graph.replay()
    assert not first.query()
    first.synchronize()
    assert (state.item(), first.query(), second.query()) == (1.0, True, False)
    second.synchronize()
    assert state.item() == 2.0


def test_it_is_warmed_up_first_without_gradients() -> None:
    seen = []

    def step(x: Tensor) -> Tensor:
        seen.append(torch.is_inference_mode_enabled())
        return x + 1

    runtime = FakeRuntime()
    capture(step, [torch.zeros(1)], runtime)
    assert seen == [True] * (WARM_UPS + 1)
    assert runtime.recorded == 1
    assert not runtime.lock.locked()


def test_what_a_graph_cannot_hold_is_said() -> None:
    calls = []

    def step(x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) > WARM_UPS:
            raise RuntimeError("operation not permitted when stream is capturing")
        return x

    with pytest.raises(CaptureFailed, match="not permitted when stream is capturing"):
        capture(step, [torch.zeros(1)], FakeRuntime())


def test_want_of_memory_is_told_though_the_end_of_the_capture_fails_too() -> None:
    def step(x: Tensor) -> Tensor:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("capture was invalidated")

    with pytest.raises(torch.OutOfMemoryError):
        capture(step, [torch.zeros(1)], FakeRuntime())


def test_a_device_at_fault_is_no_failed_capture() -> None:
    class Lost(FakeRuntime):
        def synchronize(self) -> None:
            raise RuntimeError("CUDA error: unspecified launch failure")

    with pytest.raises(RuntimeError, match="launch failure") as caught:
        capture(lambda x: x, [torch.zeros(1)], Lost())
    assert not isinstance(caught.value, CaptureFailed)


def test_others_launch_while_it_is_warmed_up() -> None:
    runtime = FakeRuntime()
    held: list[bool] = []
    capture(lambda x: held.append(runtime.lock.locked()), [torch.zeros(1)], runtime)
    assert held == [False] * WARM_UPS + [True]


@pytest.mark.parametrize("error", [AssertionError(), OSError("no C compiler")])
def test_what_cannot_be_compiled_is_not_captured(error: Exception) -> None:
    def step(x: Tensor) -> Tensor:
        raise error

    with pytest.raises(CaptureFailed, match=r"AssertionError|no C compiler"):
        capture(step, [torch.zeros(1)], FakeRuntime())


def test_the_reason_is_what_failed_before_the_capture_did() -> None:
    class Invalidated(FakeRuntime):
        def record(self, step: Any) -> Any:
            try:
                raise RuntimeError("a copy to pageable memory")
            finally:
                raise RuntimeError("capture was invalidated")

    with pytest.raises(CaptureFailed, match=r"^a copy to pageable memory$"):
        capture(lambda x: x, [torch.zeros(1)], Invalidated())
