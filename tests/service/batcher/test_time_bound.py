"""Queues bounded in time: what cannot begin in time is refused, and told when to come back."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher import Batcher
from service.batcher.retry import RetrySchedule
from service.batcher.throughput import ThroughputEstimator
from service.errors import Overloaded
from tests.service.batcher.batching import batcher, run, started, submitted
from tests.service.engines.fakes import Clock, Gated, rows


async def slow(
    engine: Gated, clock: Clock, instances: int = 1, max_queue_seconds: float = 3.0
) -> Batcher:
    """A queue over an engine that makes 4 rows a second in batches of 8, and a running batch."""
    queue = batcher(
        engine,
        clock=clock,
        max_queue_rows=1000,
        instances=instances,
        max_queue_seconds=max_queue_seconds,
    )
    queue.start()
    engine.permit()
    await queue.warm_up(rows(*range(8)), None)
    await started(engine)
    return queue


async def finished(queue: Batcher, engine: Gated, tasks: list[asyncio.Task[object]]) -> None:
    engine.permit(1000)
    await asyncio.gather(*tasks)
    await queue.drain()


def test_what_the_pace_cannot_begin_in_time_is_refused_at_once() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = await slow(engine, clock)
        tasks = await submitted(queue, rows(*range(8)))
        await started(engine)
        # 2 s until the engine is free, then one batch more.
        tasks += await submitted(queue, *(rows(value) for value in range(8)))
        with pytest.raises(Overloaded, match="take 4 s, longer than a queue may take") as caught:
            await queue.submit(rows(9), None, clock() + 1000)
        assert caught.value.retry_after == 4
        await finished(queue, engine, [*tasks])

    run(test())


def test_rows_are_refused_before_they_are_made() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = await slow(engine, clock, max_queue_seconds=1.0)
        tasks = await submitted(queue, rows(*range(8)))
        await started(engine)
        with pytest.raises(Overloaded):
            queue.check(1, clock() + 1000)
        await finished(queue, engine, [*tasks])

    run(test())


def test_what_finds_nothing_waiting_is_accepted_however_long_it_takes() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = await slow(engine, clock, max_queue_seconds=0.001)
        for _ in range(2):
            tasks = await submitted(queue, rows(*range(800)))  # for 200 s
            await finished_batches(engine, 100)
            await asyncio.gather(*tasks)
        await queue.drain()

    run(test())


async def finished_batches(engine: Gated, count: int) -> None:
    for _ in range(count):
        engine.permit()
        await started(engine)


def test_a_free_instance_accepts_while_another_computes_for_long() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = await slow(engine, clock, instances=2, max_queue_seconds=0.001)
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, rows(1))
        await started(engine)
        with pytest.raises(Overloaded):
            await queue.submit(rows(2), None, clock() + 1000)
        await finished(queue, engine, [*tasks])

    run(test())


def test_a_cold_queue_refuses_nothing_for_time() -> None:
    async def test() -> None:
        clock, engine = Clock(), Gated()
        queue = batcher(engine, clock=clock, max_queue_rows=1000, max_queue_seconds=0.001)
        queue.start()
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, *(rows(*range(50)) for _ in range(10)))
        await finished(queue, engine, [*tasks])

    run(test())


def test_an_engine_that_was_slow_once_is_measured_again() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = await slow(engine, clock, max_queue_seconds=1.0)
        engine.set_seconds(0.01)
        for _ in range(80):  # one at a time, as each finds nothing waiting
            engine.permit()
            await queue.submit(rows(*range(8)), None, math.inf)
            await started(engine)
        tasks = await submitted(queue, rows(*range(8)))
        await started(engine)
        tasks += await submitted(queue, *(rows(*range(8)) for _ in range(50)))
        await finished(queue, engine, [*tasks])

    run(test())


def test_a_process_that_was_stopped_refuses_nobody_when_it_goes_on() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = await slow(engine, clock)
        tasks = await submitted(queue, rows(*range(8)))
        await started(engine)
        clock.now += 1000.0  # stopped and continued, or a container that was suspended
        tasks += await submitted(queue, rows(9))
        await finished(queue, engine, [*tasks])

    run(test())


def test_an_engine_that_hangs_while_requests_come_lets_in_no_more() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = await slow(engine, clock)
        tasks = await submitted(queue, rows(*range(8)))
        await started(engine)
        for _ in range(10):  # its batch was to end after 2 s
            clock.now += 0.5
            queue.check(1, clock() + 1000)
        clock.now += 0.5
        with pytest.raises(Overloaded, match="longer than a queue may take"):
            queue.check(1, clock() + 1000)
        await finished(queue, engine, [*tasks])

    run(test())


def test_a_pause_in_a_backlog_is_not_taken_for_the_pace() -> None:
    throughput, now = ThroughputEstimator(10), 100.0
    throughput.observe(10, 1.0)
    for _ in range(20):
        throughput.complete(10, now, is_backlogged=True)
        now += 1.0
    throughput.complete(10, now + 1000, is_backlogged=True)
    assert throughput.rows_per_second > 6
    for _ in range(10):
        now += 1.0
        throughput.complete(10, now + 1000, is_backlogged=True)
    assert throughput.rows_per_second > 9


def test_a_pace_that_stays_slow_is_believed_after_some_batches() -> None:
    throughput, now = ThroughputEstimator(10), 100.0
    throughput.observe(10, 1.0)
    for _ in range(12):
        throughput.complete(10, now, is_backlogged=True)
        now += 20.0
    assert throughput.rows_per_second == pytest.approx(0.5, rel=0.25)


def test_two_instances_take_twice_as_much() -> None:
    throughput = ThroughputEstimator(10, instances=2)
    throughput.observe(10, 1.0)
    assert throughput.rows_per_second == 20
    assert throughput.seconds_for(100) == 5


def test_what_all_make_together_is_measured_where_full_batches_wait() -> None:
    throughput, now = ThroughputEstimator(10, instances=2), 100.0
    throughput.observe(10, 1.0)
    throughput.complete(10, now, is_backlogged=True)
    for _ in range(60):  # two that end together, then a gap: 20 rows in 3 s
        throughput.complete(10, now, is_backlogged=True)
        now += 3.0
        throughput.complete(10, now, is_backlogged=True)
    assert throughput.rows_per_second == pytest.approx(20 / 3, rel=0.15)


def test_a_pause_without_a_backlog_says_nothing() -> None:
    throughput = ThroughputEstimator(10)
    throughput.observe(10, 1.0)
    throughput.complete(10, 100.0, is_backlogged=False)
    throughput.complete(10, 500.0, is_backlogged=True)
    assert throughput.rows_per_second == 10


def accepted_on_return(told: list[tuple[float, int]], rate: float, limit: float) -> float:
    """Part of the rows that a queue takes when they come back at the times they were told."""
    backlog, now, taken = 0.0, 0.0, 0
    for due, count in sorted(told):
        backlog = max(0.0, backlog - rate * (due - now))
        now = due
        if backlog / rate <= limit:
            backlog += count
            taken += count
    return taken / sum(count for _, count in told)


@given(
    rate=st.floats(5.0, 5000.0),
    window=st.floats(0.2, 5.0),
    offered=st.floats(1.5, 10.0),
    seconds=st.floats(0.05, 4.0),
)
def test_who_comes_back_when_told_is_accepted(
    rate: float, window: float, offered: float, seconds: float
) -> None:
    schedule = RetrySchedule()
    refused = max(1, int(rate * (offered - 1) * seconds))
    step = max(1, refused // 500)
    told = []
    for index in range(0, refused, step):
        now = seconds * index / refused
        after = schedule.seconds(step, now, least=1, rate=rate, window=window)
        assert after >= 1
        if after <= 30:
            told.append((now + after, step))
    # The queue may be full as they leave: that much is worked off before the first comes back.
    assert accepted_on_return(told, rate, window) >= 0.9


def test_an_overload_is_expected_to_last_as_long_again() -> None:
    schedule = RetrySchedule()
    told = []
    for tenth in range(50):
        now = 100.0 + tenth / 10
        told.append(schedule.seconds(1, now, least=1, rate=1e6, window=1.0))
    assert (told[0], told[-1]) == (1, 6)
    assert schedule.seconds(1, now + 1.5, least=1, rate=1e6, window=1.0) == 1


def test_without_a_pace_nobody_is_sent_away_for_long() -> None:
    schedule = RetrySchedule()
    for _ in range(100):
        assert schedule.seconds(10, 5.0, least=1, rate=0.0, window=0.0) == 1


def test_nobody_is_sent_away_for_ever() -> None:
    schedule = RetrySchedule()
    waits = [schedule.seconds(10, 5.0, least=1, rate=10.0, window=1.0) for _ in range(1000)]
    assert max(waits) == 31


def test_promises_that_are_over_are_forgotten() -> None:
    schedule, now = RetrySchedule(), 0.0
    for _ in range(3000):
        schedule.seconds(1, now, least=1, rate=1.0, window=1.0)
        now += 1.0
    assert schedule.promises < 500
