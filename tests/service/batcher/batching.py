"""Batchers for tests: real thread, real loop, and patience where something may hang."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np

from service.batcher import Batcher, ComputeSlots, EngineCall, QueuePolicy
from service.batcher.entry import QueueEntry
from service.contracts import Array, EngineOutput, InferenceResult
from service.engines.engine import PendingBatch
from service.telemetry import Metrics
from tests.service.engines.fakes import FEATURES, Gated

PATIENCE_SECONDS = 20.0


class NoOwner:
    """An owner of entries that nobody cancels."""

    def cancel(self, entry: QueueEntry) -> None:
        raise AssertionError("nothing is cancelled here")

    def cancel_row(self, entry: QueueEntry, row: int) -> bool:
        raise AssertionError("nothing is cancelled here")


def batcher(
    call: Callable[[Array, Array | None], EngineOutput],
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
    slots: ComputeSlots | None = None,
    start: Callable[[Array, Array | None], PendingBatch] | None = None,
    **policy: Any,
) -> Batcher:
    limits = QueuePolicy(**({"max_batch_rows": 8, "max_queue_rows": 100} | policy))
    engine_call = EngineCall(call, (FEATURES,), (FEATURES,), None, "float32", start)
    counters = (metrics or Metrics()).queue("toy", "encode", "fake")
    return Batcher(engine_call, limits, counters, name="toy.encode", clock=clock, slots=slots)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await test

    asyncio.run(bounded())


def later(seconds: float = PATIENCE_SECONDS) -> float:
    return time.monotonic() + seconds


async def submitted(queue: Batcher, *requests: Array) -> list[asyncio.Task[InferenceResult]]:
    """Tasks whose rows are in the queue."""
    tasks = [asyncio.create_task(queue.submit(request, None, later())) for request in requests]
    await asyncio.sleep(0)
    return tasks


async def started(engine: Gated) -> int:
    """Wait until the engine holds a batch.   -> its rows."""
    return await asyncio.to_thread(engine.started.get, timeout=PATIENCE_SECONDS)


async def result_or_error(reply: Awaitable[InferenceResult]) -> InferenceResult | BaseException:
    return (await asyncio.gather(reply, return_exceptions=True))[0]


def assert_is_answer(answer: object, request: Array) -> None:
    assert isinstance(answer, InferenceResult), answer
    np.testing.assert_array_equal(answer.value, 2 * request)
    np.testing.assert_array_equal(answer.log_det, request.sum(1))


def counted(metrics: Metrics, name: str, **labels: str) -> float | None:
    wanted = {"model": "toy", "version": ""} | labels
    if "reason" not in labels:
        wanted |= {"op": "encode"}
    return metrics.registry.get_sample_value(f"pushforward_{name}", wanted)
