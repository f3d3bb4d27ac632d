"""Clients that disconnect, full queues, deadlines and the end: everybody is answered in time."""

import asyncio
import gc
import threading
import time
import weakref

import pytest

from service.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    TooLarge,
)
from service.telemetry import Metrics
from tests.service.batcher.batching import (
    assert_is_answer,
    batcher,
    counted,
    later,
    run,
    started,
    submitted,
)
from tests.service.engines.fakes import Clock, Doubling, Gated, rows


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
        # Its room in the queue is free at once.
        tasks += await submitted(queue, rows(*range(30)))
        engine.permit(100)
        await asyncio.gather(tasks[0], tasks[2], tasks[3])
        assert sum(engine.sizes) == 1 + 1 + 30
        assert counted(metrics, "rows_total") == 32
        await queue.drain()

    run(test())


def test_a_thousand_clients_that_disconnect_harm_nobody() -> None:
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
        assert caught.value.is_counted
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
        long_deadline = queue.submit(rows(*range(3)), None, clock() + 101.0)
        short = queue.submit(rows(1), None, clock() + 99.0)
        tasks += [asyncio.create_task(long_deadline), asyncio.create_task(short)]
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
        assert time.monotonic() - began >= 0.05
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


@pytest.mark.parametrize("instances", [1, 2])
def test_aborting_answers_everybody(instances: int) -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine, instances=instances)
        queue.start()
        tasks = []
        for value in range(instances):
            tasks += await submitted(queue, rows(value))
            await started(engine)
            await asyncio.sleep(0.02)  # by then one more instance pays
        tasks += await submitted(queue, rows(2))
        queue.abort("shutting down")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, NotReady) for result in results)
        engine.permit(10)

    run(test())


def test_a_queue_whose_worker_ends_takes_no_rows_that_were_accepted_before() -> None:
    async def test() -> None:
        queue = batcher(Doubling())
        queue.start()
        draining = queue.drain()
        draining.send(None)  # nothing waits: it waits for the worker alone
        with pytest.raises(NotReady):
            queue.enqueue(rows(1), None, later(), asyncio.Future(), is_accepted=True)
        draining.close()

    run(test())


def test_before_the_start_requests_are_refused() -> None:
    async def test() -> None:
        queue = batcher(Doubling())
        with pytest.raises(NotReady):
            await queue.submit(rows(1), None, later())
        assert queue.is_alive

    run(test())


def test_a_drained_batcher_is_kept_by_no_timer() -> None:
    async def test() -> None:
        queue = batcher(Doubling())
        queue.start()
        (worker,) = [one for one in threading.enumerate() if one.name == "toy.encode"]
        await queue.submit(rows(1), None, later(3600))
        await queue.drain()
        worker.join()
        gone = weakref.ref(queue)
        del queue, worker
        gc.collect()
        assert gone() is None

    run(test())
