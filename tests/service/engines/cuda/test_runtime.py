"""What a failed capture leaves of the allocator's pool: nothing that is recorded to."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from service.engines.cuda.runtime import TorchCudaRuntime


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_failed_capture_lets_go_of_its_pool(
    has_ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = iter([(0, 1), (0, 2)])
    calls: list[tuple[str, int, tuple[int, int]]] = []
    captured: list[tuple[int, int]] = []

    def end(index: int, pool: tuple[int, int]) -> None:
        if has_ended:
            raise RuntimeError("not currently recording to mempool_id")
        calls.append(("end", index, pool))

    def graph(graph: object, *, pool: tuple[int, int], **_: Any) -> Any:
        captured.append(pool)
        return nullcontext()

    def fail() -> None:
        raise OSError("no C compiler")

    for name, fake in {
        "Stream": lambda device: SimpleNamespace(device_index=3),
        "stream": lambda stream: nullcontext(),
        "graph_pool_handle": lambda: next(pools),
        "CUDAGraph": object,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def release(index: int, pool: tuple[int, int]) -> None:
        calls.append(("release", index, pool))

    monkeypatch.setattr("service.engines.cuda.runtime.LEAVE_POOL", (end, release))
    runtime = TorchCudaRuntime(torch.device("cuda:3"))
    with pytest.raises(OSError, match="no C compiler"):
        runtime.record(fail)
    assert calls == ([] if has_ended else [("end", 3, (0, 1)), ("release", 3, (0, 1))])
    assert runtime.record(lambda: 5)[1] == 5
    assert captured == [(0, 1), (0, 2)]
