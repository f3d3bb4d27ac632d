"""Engines that fail: the culprit fails alone, its neighbours are answered, the worker goes on."""

import asyncio
from collections.abc import Callable

import pytest

from service.batcher.entry import QueueEntry
from service.contracts import Array, InferenceResult
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.errors import (
    EngineError,
    InternalError,
    NotReady,
)
from service.telemetry import Metrics
from tests.service.batcher.batching import (
    assert_is_answer,
    batcher,
    counted,
    later,
    result_or_error,
    run,
)
from tests.service.engines.fakes import POISON, Doubling, Poisoned, rows


def test_a_poison_row_fails_alone() -> None:
    async def test() -> None:
        queue = batcher(Poisoned(), max_batch_rows=16)
        queue.start()
        requests = [rows(POISON if i == 5 else i + 1) for i in range(16)]
        results = await asyncio.gather(
            *(queue.submit(request, None, later()) for request in requests),
            return_exceptions=True,
        )
        assert isinstance(results.pop(5), EngineError)
        requests.pop(5)
        for result, request in zip(results, requests, strict=True):
            assert_is_answer(result, request)
        assert queue.is_alive
        await queue.drain()

    run(test())


def test_a_poison_row_in_a_long_request_ends_that_request_only() -> None:
    async def test() -> None:
        engine = Poisoned()
        queue = batcher(engine)
        queue.start()
        long = rows(1, 2, POISON, *range(60))
        result = await result_or_error(queue.submit(long, None, later()))
        assert isinstance(result, EngineError)
        assert_is_answer(await queue.submit(rows(3), None, later()), rows(3))
        # One batch may have been on its way; the rest of the failed request was dropped.
        assert sum(engine.sizes) <= 8 + 8 + 1
        await queue.drain()

    run(test())


def test_a_result_with_a_row_too_few_is_an_error_and_not_a_hang() -> None:
    async def test() -> None:
        queue = batcher(lambda x, context: (2 * x[1:], x.sum(1)[1:]))
        queue.start()
        assert isinstance(
            await result_or_error(queue.submit(rows(1, 2), None, later())), EngineError
        )
        await queue.drain()

    run(test())


@pytest.mark.parametrize(
    "death",
    [lambda: EngineLost("device-side assert"), SystemExit],
    ids=["engine-lost", "thread-ended"],
)
def test_a_dead_worker_is_seen_and_nobody_waits_for_it(
    death: Callable[[], BaseException],
) -> None:
    async def test() -> None:
        queue = batcher(Poisoned(death), max_batch_rows=1)
        queue.start()
        results = await asyncio.gather(
            *(queue.submit(rows(value), None, later()) for value in (POISON, 1, 2)),
            return_exceptions=True,
        )
        assert all(isinstance(result, EngineError) for result in results)
        assert not queue.is_alive
        with pytest.raises(NotReady):
            await queue.submit(rows(1), None, later())
        await queue.drain()

    run(test())


@pytest.mark.parametrize(
    "broken",
    ["service.batcher.fair_queue.FairQueue.take", "service.batcher.executor.BatchExecutor.run"],
    ids=["batch-former", "executor"],
)
def test_a_fault_of_ours_is_reported_and_the_worker_goes_on(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        queue = batcher(Doubling())
        queue.start()
        with monkeypatch.context() as patch:

            def fail(*arguments: object) -> None:
                raise ZeroDivisionError

            patch.setattr(broken, fail)
            result = await result_or_error(queue.submit(rows(1), None, later()))
            assert isinstance(result, InternalError)
        assert_is_answer(await queue.submit(rows(2), None, later()), rows(2))
        assert queue.is_alive
        await queue.drain()

    run(test())


def test_a_reply_that_cannot_be_made_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        metrics = Metrics()
        queue = batcher(Doubling(), metrics)
        queue.start()
        answer = QueueEntry.result

        def picky(entry: QueueEntry) -> InferenceResult:
            if entry.rows[0, 0] == 1:
                raise ZeroDivisionError
            return answer(entry)

        monkeypatch.setattr(QueueEntry, "result", picky)
        results = await asyncio.gather(
            *(queue.submit(rows(value), None, later()) for value in (0, 1, 2)),
            return_exceptions=True,
        )
        assert isinstance(results[1], InternalError)
        assert_is_answer(results[0], rows(0))
        assert_is_answer(results[2], rows(2))
        await queue.drain()

    run(test())


def test_batches_stay_smaller_for_which_memory_ran_out(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        engine, metrics = SmallMemory(5), Metrics()
        queue = batcher(engine, metrics, max_queue_rows=1000)
        queue.start()
        queue.publish_gauges()
        assert counted(metrics, "max_batch_rows") == 8
        long = rows(*range(40))
        assert_is_answer(await queue.submit(long, None, later()), long)
        assert engine.sizes[:3] == [8, 4, 4]
        assert max(engine.sizes[3:]) == 4
        assert counted(metrics, "max_batch_rows") == 4
        assert counted(metrics, "out_of_memory_total") == 1
        # As small as it must be, and no smaller.
        engine.fitting = 1
        assert isinstance(await result_or_error(queue.submit(long, None, later())), NotReady)
        assert_is_answer(await queue.submit(rows(1, 2), None, later()), rows(1, 2))
        assert engine.sizes[-2:] == [1, 1]
        assert counted(metrics, "max_batch_rows") == 1
        await queue.drain()

    run(test())
    assert "toy.encode: memory ran out: batches of at most 4 rows from now on" in caplog.messages


def test_batches_of_one_size_keep_it_whatever_memory_there_is() -> None:
    async def test() -> None:
        engine, metrics = SmallMemory(5), Metrics()
        queue = batcher(engine, metrics, is_fixed=True)
        queue.start()
        queue.publish_gauges()
        assert isinstance(await result_or_error(queue.submit(rows(1), None, later())), NotReady)
        engine.fitting = 8
        assert_is_answer(await queue.submit(rows(1), None, later()), rows(1))
        assert set(engine.sizes) == {8}
        assert counted(metrics, "max_batch_rows") == 8
        assert counted(metrics, "out_of_memory_total") == 1
        await queue.drain()

    run(test())


class SmallMemory(Doubling):
    """A doubling engine with memory for `fitting` rows."""

    def __init__(self, fitting: int) -> None:
        super().__init__()
        self.fitting = fitting

    def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        result = super().__call__(x, context)
        if len(x) > self.fitting:
            raise EngineOutOfMemory("CUDA out of memory")
        return result
