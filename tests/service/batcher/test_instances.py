"""Several instances of one queue: every promise of one holds, and they help only where it pays."""

import asyncio
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from service.batcher import ComputeSlots
from service.batcher.entry import QueueEntry
from service.contracts import Array, InferenceResult, SolverStats
from service.engines.engine import EngineLost
from service.errors import DeadlineExceeded, EngineError, NotReady
from tests.service.batcher import batching
from tests.service.batcher.batching import (
    assert_is_answer,
    later,
    result_or_error,
    run,
    started,
    submitted,
)
from tests.service.engines.fakes import POISON, Doubling, Gated, Poisoned, rows

# Longer than what one more instance must bring, so that the next row starts one.
PAYS_SECONDS = 0.02


class Slow(Doubling):
    """Takes as long a row, and knows how many calls there were at a time."""

    def __init__(self, seconds: float = 0.0005) -> None:
        super().__init__()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._now = 0
        self.most = 0

    def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self._seconds * len(x))
        try:
            return super().__call__(x, context)
        finally:
            with self._lock:
                self._now -= 1


batcher = partial(batching.batcher, max_queue_rows=10_000, instances=2)


async def pays() -> None:
    await asyncio.sleep(PAYS_SECONDS)


def test_one_more_computes_while_one_does() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine)
        queue.start()
        (first,) = await submitted(queue, rows(1))
        await started(engine)
        await pays()
        (second,) = await submitted(queue, rows(2))
        assert await started(engine) == 1
        (third,) = await submitted(queue, rows(3))  # there is no third instance
        await pays()
        assert engine.started.empty()
        engine.permit(3)
        for task, value in ((first, 1), (second, 2), (third, 3)):
            assert_is_answer(await task, rows(value))
        await queue.drain()

    run(test())


def test_a_large_request_is_computed_by_all() -> None:
    async def test() -> None:
        engine = Slow()
        queue = batcher(engine, instances=4)
        queue.start()
        request = rows(*range(320))
        assert_is_answer(await queue.submit(request, None, later()), request)
        assert engine.most == 4
        assert sum(engine.sizes) == 320
        await queue.drain()

    run(test())


def test_tiny_batches_stay_with_one() -> None:
    async def test() -> None:
        engine = Slow(0.0)
        queue = batcher(engine, max_batch_rows=64)
        queue.start()
        await queue.warm_up(rows(*range(32)), None)
        for _ in range(50):
            answers = (queue.submit(rows(value), None, later()) for value in range(16))
            await asyncio.gather(*answers)
        # A pause of the machine may look like a slow batch now and then.
        assert len(engine.sizes) < 1 + 50 * 2
        await queue.drain()

    run(test())


def test_the_warm_up_is_computed_by_one() -> None:
    async def test() -> None:
        engine = Slow(0.002)
        queue = batcher(engine)
        queue.start()
        for count in (4, 1, 8):
            await queue.warm_up(rows(*range(count)), None)
        assert engine.sizes == [4, 1, 8]
        assert engine.most == 1
        await queue.drain()

    run(test())


def test_an_engine_that_hangs_on_a_batch_costs_its_requests_only() -> None:
    async def test() -> None:
        began, ended = threading.Event(), threading.Event()

        def hang(x: Array, context: Array | None) -> tuple[Array, Array]:
            if (x == POISON).any():
                began.set()
                ended.wait(20)
            return 2 * x, x.sum(1)

        queue = batcher(hang)
        queue.start()
        stuck = asyncio.create_task(queue.submit(rows(POISON), None, later(1.0)))
        await asyncio.to_thread(began.wait, 20)
        # No row comes at once after this one: it is looked after nevertheless.
        assert_is_answer(await queue.submit(rows(1), None, later()), rows(1))
        for value in range(20):
            assert_is_answer(await queue.submit(rows(value), None, later()), rows(value))
        with pytest.raises(DeadlineExceeded):
            await stuck
        assert queue.is_alive
        ended.set()
        await queue.drain()

    run(test())


def test_a_culprit_fails_alone_beside_others() -> None:
    async def test() -> None:
        engine = Poisoned()
        queue = batcher(engine, max_batch_rows=16, instances=3)
        queue.start()
        requests = [rows(POISON if i % 20 == 5 else i + 1) for i in range(100)]
        results = await asyncio.gather(
            *(queue.submit(request, None, later()) for request in requests), return_exceptions=True
        )
        for index, (result, request) in enumerate(zip(results, requests, strict=True)):
            if index % 20 == 5:
                assert isinstance(result, EngineError)
            else:
                assert_is_answer(result, request)
        await queue.drain()

    run(test())


def test_a_short_request_is_answered_before_long_ones_are_done() -> None:
    async def test() -> None:
        engine = Slow(0.002)
        queue = batcher(engine)
        queue.start()
        long = await submitted(queue, rows(*range(400)), rows(*range(400)))
        await pays()
        assert_is_answer(await queue.submit(rows(7), None, later()), rows(7))
        assert not any(task.done() for task in long)
        for task in long:
            assert_is_answer(await task, rows(*range(400)))
        await queue.drain()

    run(test())


def test_rows_cancelled_while_queued_are_never_computed() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine)
        queue.start()
        busy = await submitted(queue, rows(0))
        await started(engine)
        await pays()
        busy += await submitted(queue, rows(1))
        await started(engine)
        (gone,) = await submitted(queue, rows(*range(40)))
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        engine.permit(100)
        await asyncio.gather(*busy)
        await queue.drain()
        assert sum(engine.sizes) == 2

    run(test())


def test_a_deadline_passes_while_all_compute() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine)
        queue.start()
        busy = await submitted(queue, rows(0))
        await started(engine)
        await pays()
        busy += await submitted(queue, rows(1))
        await started(engine)
        with pytest.raises(DeadlineExceeded):
            await queue.submit(rows(2), None, later(0.05))
        engine.permit(10)
        await asyncio.gather(*busy)
        await queue.drain()
        assert sum(engine.sizes) == 2

    run(test())


def test_draining_finishes_what_several_compute_and_ends_their_threads() -> None:
    async def test() -> None:
        before = set(threading.enumerate())
        engine = Slow()
        queue = batcher(engine, instances=3)
        queue.start()
        tasks = await submitted(queue, rows(*range(200)), rows(1))
        threads = set(threading.enumerate()) - before
        await queue.drain()
        assert_is_answer(await tasks[0], rows(*range(200)))
        assert_is_answer(await tasks[1], rows(1))
        assert not queue.is_alive
        with pytest.raises(NotReady):
            await queue.submit(rows(2), None, later())
        assert threads
        for thread in set(threading.enumerate()) - before:
            if thread.name == "toy.encode":
                thread.join(10)
                assert not thread.is_alive()

    run(test())


def test_an_engine_that_is_lost_in_one_is_lost_in_all() -> None:
    async def test() -> None:
        engine = Poisoned(lambda: EngineLost("device-side assert"))

        def call(x: Array, context: Array | None) -> tuple[Array, Array]:
            time.sleep(0.01)
            return engine(x, context)

        queue = batcher(call, max_batch_rows=1)
        queue.start()
        requests = [queue.submit(rows(POISON if i == 5 else i), None, later()) for i in range(20)]
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert isinstance(results[-1], EngineError)
        assert not queue.is_alive
        with pytest.raises(NotReady):
            await queue.submit(rows(1), None, later())
        await queue.drain()

    run(test())


def test_a_fault_of_ours_is_reported_and_all_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        queue = batcher(Slow())
        queue.start()
        with monkeypatch.context() as patch:
            patch.setattr("service.batcher.executor.BatchExecutor.run", lambda *_: 1 / 0)
            tasks = await submitted(queue, *(rows(value) for value in range(50)))
            for task in tasks:
                assert isinstance(await result_or_error(task), Exception)
        request = rows(*range(100))
        assert_is_answer(await queue.submit(request, None, later()), request)
        assert queue.is_alive
        await queue.drain()

    run(test())


def test_invariant_batches_are_of_one_size_in_all() -> None:
    async def test() -> None:
        engine = Slow(0.001)
        queue = batcher(engine, is_fixed=True, instances=3)
        queue.start()
        request = rows(*range(85))
        assert_is_answer(await queue.submit(request, None, later()), request)
        assert set(engine.sizes) == {8}
        assert engine.most > 1
        await queue.drain()

    run(test())


def test_how_rows_were_solved_is_each_rows_own() -> None:
    async def test() -> None:
        def solve(x: Array, context: Array | None) -> tuple[Array, Array, SolverStats]:
            time.sleep(0.0005 * len(x))
            number = x[:, 0].astype(np.int64)
            return 2 * x, x.sum(1), SolverStats(number % 3, number, x[:, 0] / 7)

        queue = batcher(solve, instances=3)
        queue.start()
        request = rows(*range(200))
        result = await queue.submit(request, None, later())
        assert isinstance(result, InferenceResult)
        assert result.solver_stats is not None
        np.testing.assert_array_equal(result.solver_stats.evaluations, np.arange(200))
        np.testing.assert_array_equal(result.solver_stats.status, np.arange(200) % 3)
        np.testing.assert_array_equal(result.solver_stats.log_det_se, request[:, 0] / 7)
        await queue.drain()

    run(test())


def test_many_models_share_one_budget_and_all_are_served() -> None:
    async def test() -> None:
        engine, slots = Slow(0.008), ComputeSlots(2)
        queues = [batcher(engine, slots=slots) for _ in range(16)]
        for queue in queues:
            queue.start()
        request = rows(*range(3))
        answers = await asyncio.gather(*(queue.submit(request, None, later()) for queue in queues))
        for answer in answers:
            assert_is_answer(answer, request)
        assert engine.most == 2
        for queue in queues:
            await queue.drain()

    run(test())


def test_a_model_that_waits_has_its_turn_beside_one_with_a_backlog() -> None:
    async def test() -> None:
        slots = ComputeSlots(2)
        greedy, other = batcher(Slow(0.002), slots=slots), batcher(Slow(0.002), slots=slots)
        greedy.start()
        other.start()
        (long,) = await submitted(greedy, rows(*range(800)))  # for 0.8 s
        await pays()
        request = rows(*range(4))
        began = time.monotonic()
        for _ in range(3):
            assert_is_answer(await other.submit(request, None, later()), request)
        assert time.monotonic() - began < 0.5
        assert not long.done()
        await long
        await greedy.drain()
        await other.drain()

    run(test())


def test_a_thread_that_is_idle_ends_but_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.batcher.batch_queue.IDLE_SECONDS", 0.05)

    def threads() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "toy.encode"]

    async def test() -> None:
        before = len(threads())
        queue = batcher(Slow(), instances=4)
        queue.start()
        request = rows(*range(320))
        for _ in range(2):
            assert_is_answer(await queue.submit(request, None, later()), request)
            assert len(threads()) - before > 1
            while len(threads()) - before > 1:
                await asyncio.sleep(0.01)
        assert queue.is_alive
        await queue.drain()

    run(test())


def test_parts_of_one_request_are_joined_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    add, now, most = QueueEntry.add_results, 0, 0

    def slow(entry: QueueEntry, *arguments: Any) -> bool:
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.005)
        now -= 1
        return add(entry, *arguments)

    monkeypatch.setattr(QueueEntry, "add_results", slow)

    async def test() -> None:
        engine = Slow()
        queue = batcher(engine, instances=4)
        queue.start()
        request = rows(*range(160))
        assert_is_answer(await queue.submit(request, None, later()), request)
        assert engine.most > 1
        assert most == 1
        await queue.drain()

    run(test())
