"""The batcher as routes use it: real thread, real loop, an engine that waits for the test."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batcher import Batcher, Operation, Policy
from service.engines.engine import EngineLost
from service.errors import (
    DeadlineExceeded,
    EngineError,
    InternalError,
    NotReady,
    Overloaded,
    TooLarge,
)
from service.metrics import Metrics
from service.model import Answer, Array
from tests.service.engines import FEATURES, POISON, Clock, Doubling, Gated, Poisoned, rows

PATIENCE_SECONDS = 20.0


def batcher(
    call: Callable[[Array, Array | None], tuple[Array, Array]],
    metrics: Metrics | None = None,
    clock: Callable[[], float] = time.monotonic,
    **policy: Any,
) -> Batcher:
    limits = Policy(**({"max_batch_rows": 8, "max_queue_rows": 100} | policy))
    operation = Operation(call, (FEATURES,), (FEATURES,), None, "float32")
    counters = (metrics or Metrics()).queue("toy", "encode", "fake")
    return Batcher(operation, limits, counters, name="toy.encode", clock=clock)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await test

    asyncio.run(bounded())


def later(seconds: float = PATIENCE_SECONDS) -> float:
    return time.monotonic() + seconds


async def submitted(queue: Batcher, *requests: Array) -> list[asyncio.Task[Answer]]:
    """Tasks whose rows are in the queue."""
    tasks = [asyncio.create_task(queue.submit(request, None, later())) for request in requests]
    await asyncio.sleep(0)
    return tasks


async def started(engine: Gated) -> int:
    """Wait until the engine holds a batch.   -> its rows."""
    return await asyncio.to_thread(engine.started.get, timeout=PATIENCE_SECONDS)


async def outcome(reply: Awaitable[Answer]) -> Answer | BaseException:
    return (await asyncio.gather(reply, return_exceptions=True))[0]


def assert_is_answer(answer: object, request: Array) -> None:
    assert isinstance(answer, Answer), answer
    np.testing.assert_array_equal(answer.value, 2 * request)
    np.testing.assert_array_equal(answer.log_det, request.sum(1))


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


def test_a_burst_is_one_batch() -> None:
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


def test_draining_does_not_wait_for_company() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_delay_seconds=3600.0)
        queue.start()
        (task,) = await submitted(queue, rows(1))
        await queue.drain()
        assert_is_answer(await task, rows(1))

    run(test())


def test_a_cancelled_request_leaves_its_neighbours_alive() -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics)
        queue.start()
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, rows(1), rows(2), rows(3))
        engine.permit()
        assert await started(engine) == 3
        tasks[2].cancel()  # its row is in the engine's hands
        engine.permit()
        for index in (0, 1, 3):
            assert_is_answer(await tasks[index], rows(index))
        with pytest.raises(asyncio.CancelledError):
            await tasks[2]
        assert counted(metrics, "dropped_total", reason="cancelled") == 1
        await queue.drain()

    run(test())


def test_rows_cancelled_while_queued_are_never_computed() -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics, max_queue_rows=40)
        queue.start()
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, rows(*range(39)), rows(2))
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        # Its place in the queue is free at once.
        tasks += await submitted(queue, rows(*range(30)))
        engine.permit(100)
        await asyncio.gather(tasks[0], tasks[2], tasks[3])
        assert sum(engine.sizes) == 1 + 1 + 30
        assert counted(metrics, "rows_total") == 32
        await queue.drain()

    run(test())


def test_a_thousand_clients_that_leave_harm_nobody() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine, max_queue_rows=2000)
        queue.start()
        (first,) = await submitted(queue, rows(0))
        await started(engine)
        hasty = [queue.submit(rows(1), None, later(0.001)) for _ in range(1000)]
        results = await asyncio.gather(*hasty, return_exceptions=True)
        assert all(isinstance(result, DeadlineExceeded) for result in results)
        engine.permit(1000)
        await first
        requests = [rows(value) for value in range(100)]
        answers = await asyncio.gather(*(queue.submit(r, None, later()) for r in requests))
        for answer, request in zip(answers, requests, strict=True):
            assert_is_answer(answer, request)
        assert sum(engine.sizes) == 101
        await queue.drain()

    run(test())


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
        result = await outcome(queue.submit(long, None, later()))
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
        assert isinstance(await outcome(queue.submit(rows(1, 2), None, later())), EngineError)
        await queue.drain()

    run(test())


def test_a_full_queue_is_overloaded_with_a_time_to_return() -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics, max_queue_rows=10)
        queue.start()
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, rows(*range(8)))
        with pytest.raises(Overloaded) as caught:
            await queue.submit(rows(1, 2, 3), None, later())
        assert caught.value.retry_after == 1
        tasks += await submitted(queue, rows(1, 2))  # what fits is taken
        engine.permit(10)
        await asyncio.gather(*tasks)
        assert counted(metrics, "dropped_total", reason="overloaded") == 1
        await queue.drain()

    run(test())


def test_a_request_no_queue_can_hold_is_too_large() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_queue_rows=10)
        queue.start()
        with pytest.raises(TooLarge, match="at most 10 rows"):
            await queue.submit(rows(*range(11)), None, later())
        await queue.drain()

    run(test())


def test_a_request_that_could_not_be_in_time_is_overloaded_at_once() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = batcher(engine, clock=clock, max_queue_rows=1000)
        queue.start()
        engine.permit()
        await queue.submit(rows(*range(8)), None, clock() + 1.0)  # 4 rows a second
        await started(engine)
        tasks = await submitted(queue, rows(*range(400)))
        await started(engine)
        with pytest.raises(Overloaded, match="400 rows ahead") as caught:
            await queue.submit(rows(*range(3)), None, clock() + 99.0)
        assert caught.value.retry_after == 100
        # What has time enough is taken, and so is a short request, which does not wait for these.
        patient = queue.submit(rows(*range(3)), None, clock() + 101.0)
        short = queue.submit(rows(1), None, clock() + 99.0)
        tasks += [asyncio.create_task(patient), asyncio.create_task(short)]
        await asyncio.sleep(0)
        engine.permit(100)
        await asyncio.gather(*tasks)
        await queue.drain()

    run(test())


def test_a_deadline_is_answered_while_the_engine_is_busy() -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics)
        queue.start()
        (busy,) = await submitted(queue, rows(0))
        await started(engine)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await queue.submit(rows(1), None, began + 0.05)
        assert 0.05 <= time.monotonic() - began < 1.0
        assert not busy.done()
        engine.permit(2)
        await busy
        assert engine.sizes == [1]
        assert counted(metrics, "dropped_total", reason="deadline") == 1
        await queue.drain()

    run(test())


def test_deadlines_are_answered_in_their_own_order() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine)
        queue.start()
        (busy,) = await submitted(queue, rows(0))
        await started(engine)
        order: list[float] = []

        async def wait(seconds: float) -> None:
            with pytest.raises(DeadlineExceeded):
                await queue.submit(rows(1), None, later(seconds))
            order.append(seconds)

        await asyncio.gather(*(wait(seconds) for seconds in (0.09, 0.03, 0.06)))
        assert order == [0.03, 0.06, 0.09]
        engine.permit()
        await busy
        await queue.drain()

    run(test())


def test_a_deadline_in_the_past_is_answered_without_queueing() -> None:
    async def test() -> None:
        engine = Doubling()
        queue = batcher(engine)
        queue.start()
        with pytest.raises(DeadlineExceeded):
            await queue.submit(rows(1), None, time.monotonic() - 1)
        await queue.drain()
        assert engine.sizes == []

    run(test())


def test_draining_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine)
        queue.start()
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, rows(*range(30)), rows(1))
        draining = asyncio.create_task(queue.drain())
        await asyncio.sleep(0)
        with pytest.raises(NotReady):
            await queue.submit(rows(2), None, later())
        assert not draining.done()
        engine.permit(100)
        assert_is_answer(await tasks[0], rows(0))
        assert_is_answer(await tasks[1], rows(*range(30)))
        assert_is_answer(await tasks[2], rows(1))
        await draining
        assert not queue.is_alive

    run(test())


def test_aborting_answers_everybody() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine)
        queue.start()
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, rows(1))
        queue.abort("shutting down")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, NotReady) for result in results)
        engine.permit()

    run(test())


def test_before_the_start_requests_are_refused() -> None:
    async def test() -> None:
        queue = batcher(Doubling())
        with pytest.raises(NotReady):
            await queue.submit(rows(1), None, later())
        assert queue.is_alive

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
    ["service.batcher.lanes.Lanes.take", "service.batcher.kernel.Kernel.run"],
    ids=["batch-former", "kernel"],
)
def test_a_fault_of_ours_is_told_and_the_worker_goes_on(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        queue = batcher(Doubling())
        queue.start()
        with monkeypatch.context() as patch:

            def fail(*arguments: object) -> None:
                raise ZeroDivisionError

            patch.setattr(broken, fail)
            result = await outcome(queue.submit(rows(1), None, later()))
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
        from service.batcher.ticket import Ticket

        answer = Ticket.answer

        def picky(ticket: Ticket) -> Answer:
            if ticket.rows[0, 0] == 1:
                raise ZeroDivisionError
            return answer(ticket)

        monkeypatch.setattr(Ticket, "answer", picky)
        results = await asyncio.gather(
            *(queue.submit(rows(value), None, later()) for value in (0, 1, 2)),
            return_exceptions=True,
        )
        assert isinstance(results[1], InternalError)
        assert_is_answer(results[0], rows(0))
        assert_is_answer(results[2], rows(2))
        await queue.drain()

    run(test())


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    max_batch_rows=st.integers(1, 12),
    poisoned=st.sets(st.integers(0, 39), max_size=2),
    cancelled=st.sets(st.integers(0, 39), max_size=5),
)
def test_response_i_belongs_to_request_i(
    sizes: list[int], max_batch_rows: int, poisoned: set[int], cancelled: set[int]
) -> None:
    async def test() -> None:
        queue = batcher(Poisoned(), max_batch_rows=max_batch_rows, max_queue_rows=2000)
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


def counted(metrics: Metrics, name: str, **labels: str) -> float | None:
    wanted = {"model": "toy"} | labels
    if "reason" not in labels:
        wanted |= {"op": "encode"}
    return metrics.registry.get_sample_value(f"pushforward_{name}", wanted)
