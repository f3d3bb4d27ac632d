"""The batcher as routes use it: rows share batches, and come back to their own requests."""

import asyncio
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from service.contracts import Array
from service.errors import EngineError
from tests.service.batcher.batching import (
    assert_is_answer,
    batcher,
    later,
    run,
    started,
    submitted,
)
from tests.service.engines.fakes import POISON, Clock, Doubling, Gated, Poisoned, rows


def test_rows_that_wait_share_the_next_batch() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine)
        queue.start()
        (first,) = await submitted(queue, rows(1))
        assert await started(engine) == 1
        others = await submitted(queue, rows(2), rows(3, 4))
        others += await submitted(queue, rows(5))
        engine.permit(2)
        assert_is_answer(await first, rows(1))
        for task, request in zip(others, (rows(2), rows(3, 4), rows(5)), strict=True):
            assert_is_answer(await task, request)
        assert engine.sizes == [1, 4]
        await queue.drain()

    run(test())


def test_requests_that_arrive_together_are_one_batch() -> None:
    async def test() -> None:
        engine = Doubling()
        queue = batcher(engine)
        queue.start()
        await asyncio.gather(*(queue.submit(rows(i), None, later()) for i in range(8)))
        assert engine.sizes == [8]
        await queue.drain()

    run(test())


def test_a_large_request_is_split_and_joined() -> None:
    async def test() -> None:
        engine = Doubling()
        queue = batcher(engine)
        queue.start()
        request = rows(*range(50))
        assert_is_answer(await queue.submit(request, None, later()), request)
        assert engine.sizes == [8] * 6 + [2]
        await queue.drain()

    run(test())


def test_a_short_request_is_answered_before_a_long_one_is_done() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine)
        queue.start()
        (long,) = await submitted(queue, rows(*range(80)))
        await started(engine)
        (short,) = await submitted(queue, rows(7))
        engine.permit(2)
        assert_is_answer(await short, rows(7))
        assert not long.done()
        engine.permit(100)
        assert_is_answer(await long, rows(*range(80)))
        await queue.drain()

    run(test())


def test_times_are_reported() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = batcher(engine, clock=clock)
        queue.start()
        tasks = await submitted(queue, rows(1))
        await started(engine)
        tasks += await submitted(queue, rows(*range(9)))
        engine.permit(3)
        first, second = await asyncio.gather(*tasks)
        assert (first.queue_seconds, first.compute_seconds) == (0.0, 2.0)
        assert (second.queue_seconds, second.compute_seconds) == (2.0, 4.0)
        await queue.drain()

    run(test())


def test_with_a_delay_a_batch_waits_until_it_is_full() -> None:
    async def test() -> None:
        engine = Doubling()
        queue = batcher(engine, max_batch_rows=4, max_delay_seconds=3600.0)
        queue.start()
        tasks = []
        for value in range(4):
            tasks += await submitted(queue, rows(value))
        await asyncio.gather(*tasks)
        assert engine.sizes == [4]
        await queue.drain()

    run(test())


def test_with_a_delay_a_lone_row_runs_when_it_has_passed() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_delay_seconds=0.03)
        queue.start()
        answer = await queue.submit(rows(1), None, later())
        assert answer.queue_seconds >= 0.03
        await queue.drain()

    run(test())


def test_draining_does_not_wait_for_full_batches() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_delay_seconds=3600.0)
        queue.start()
        (task,) = await submitted(queue, rows(1))
        await queue.drain()
        assert_is_answer(await task, rows(1))

    run(test())


@settings(deadline=None, max_examples=80)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    instances=st.integers(1, 4),
    row_seconds=st.sampled_from((0.0, 0.0002)),  # what takes time is shared by instances
    max_batch_rows=st.integers(1, 12),
    poisoned=st.sets(st.integers(0, 39), max_size=2),
    cancelled=st.sets(st.integers(0, 39), max_size=5),
)
def test_response_i_belongs_to_request_i(
    sizes: list[int],
    instances: int,
    row_seconds: float,
    max_batch_rows: int,
    poisoned: set[int],
    cancelled: set[int],
) -> None:
    class Engine(Poisoned):
        def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
            time.sleep(row_seconds * len(x))
            return super().__call__(x, context)

    async def test() -> None:
        queue = batcher(
            Engine(), instances=instances, max_batch_rows=max_batch_rows, max_queue_rows=2000
        )
        queue.start()
        requests, number = [], 0
        for index, size in enumerate(sizes):
            request = rows(*range(number, number + size))
            if index in poisoned:
                request[size // 2] = POISON
            requests.append(request)
            number += size
        tasks = await submitted(queue, *requests)
        for index in cancelled & set(range(len(sizes))):
            tasks[index].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for index, (result, request) in enumerate(zip(results, requests, strict=True)):
            if index in cancelled:
                assert isinstance(result, asyncio.CancelledError)
            elif index in poisoned:
                assert isinstance(result, EngineError)
            else:
                assert_is_answer(result, request)
        await queue.drain()

    run(test())
