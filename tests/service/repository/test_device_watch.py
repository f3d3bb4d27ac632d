"""The watch over devices: the lost and the hung are seen, and a slow CPU is nobody's loss."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from service.engines.probe import ProbeTable
from service.repository.device_turns import DeviceTurns
from service.repository.device_watch import ASK_SECONDS, DeviceWatch
from tests.service.batcher.batching import batcher, run, started, submitted
from tests.service.engines.fakes import Clock, Gated, rows


class Operation:
    """The tiny operation of a fake device."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    def __call__(self) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


class Queue:
    """A queue whose batches are what a test says."""

    def __init__(self) -> None:
        self.computed_batches = 0
        self.stuck = 0.0
        self.passed: list[float] = []

    def stuck_seconds(self, passed: float) -> float:
        self.passed.append(passed)
        return self.stuck


class Watched:
    """A watch over one fake device, in steps of a second."""

    def __init__(self, device: str = "cuda:0") -> None:
        self.operation, self.queue, self.clock = Operation(), Queue(), Clock()
        self.watch = DeviceWatch(ProbeTable(lambda _: self.operation), self.clock)
        self._device = device

    async def look(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(round(seconds / step)):
            self.clock.now += step
            self.watch.look([(self._device, self.queue)])
            await asyncio.sleep(0)
            while len(asyncio.all_tasks()) > 1:  # what is asked answers
                await asyncio.sleep(0)
            await asyncio.sleep(0)


def watched(test: Callable[[Watched], object], device: str = "cuda:0") -> None:
    async def body() -> None:
        await test(Watched(device))  # type: ignore[misc]

    run(body())


def test_an_idle_device_is_asked_every_ten_seconds() -> None:
    async def test(one: Watched) -> None:
        await one.look(9)
        assert one.operation.calls == 0
        await one.look(3 * ASK_SECONDS)
        assert one.operation.calls == 3
        assert one.watch.lost == ""

    watched(test)


def test_a_device_that_computes_batches_is_not_asked() -> None:
    async def test(one: Watched) -> None:
        for _ in range(40):
            one.queue.computed_batches += 1
            await one.look(1)
        assert one.operation.calls == 0

    watched(test)


def test_a_device_that_answers_with_an_error_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def test(one: Watched) -> None:
        await one.look(15)
        one.operation.error = RuntimeError("CUDA error: unknown error")
        await one.look(20)
        assert one.watch.lost == "cuda:0 is lost: CUDA error: unknown error"
        assert one.operation.calls == 2  # it is asked no more
        told = [record for record in caplog.records if record.levelno == logging.CRITICAL]
        assert [record.getMessage() for record in told] == [one.watch.lost]

    watched(test)


def test_a_stuck_batch_is_a_lost_device() -> None:
    async def test(one: Watched) -> None:
        one.queue.stuck = 11.0
        await one.look(1)
        assert one.watch.lost == (
            "cuda:0 is lost: a batch has taken 11 s, far longer than those before it"
        )

    watched(test)


def test_a_cpu_is_never_lost() -> None:
    async def test(one: Watched) -> None:
        one.queue.stuck = 1000.0
        await one.look(100)
        assert (one.watch.lost, one.operation.calls, one.queue.passed) == ("", 0, [])

    watched(test, "cpu")


def test_what_stops_the_process_is_not_held_against_a_batch() -> None:
    async def test(one: Watched) -> None:
        await one.look(600, step=600)
        assert one.queue.passed == [2.0]

    watched(test)


def test_a_batch_is_stuck_beyond_ten_seconds_and_twenty_times_its_pace() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=2.0)
        queue = batcher(engine, clock=clock)
        queue.start()
        (first,) = await submitted(queue, rows(1, 2, 3, 4))
        await started(engine)
        assert queue.stuck_seconds(1000.0) == 0  # nothing is known of its pace
        engine.permit()
        await first
        (second,) = await submitted(queue, rows(1, 2, 3, 4))
        await started(engine)
        assert queue.stuck_seconds(39.0) == 0
        assert queue.stuck_seconds(2.0) == 41.0
        engine.permit()
        await second
        assert queue.stuck_seconds(100.0) == 0
        assert queue.computed_batches == 2
        await queue.drain()

    run(test())


def test_short_batches_have_ten_seconds() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Gated(clock, seconds=0.001)
        queue = batcher(engine, clock=clock)
        queue.start()
        engine.permit()
        (first,) = await submitted(queue, rows(1))
        await started(engine)
        await first
        (second,) = await submitted(queue, rows(1))
        await started(engine)
        assert queue.stuck_seconds(9.9) == 0
        assert queue.stuck_seconds(0.2) == pytest.approx(10.1)
        engine.permit()
        await second
        await queue.drain()

    run(test())


def test_one_at_a_time_has_its_turn_at_a_device() -> None:
    async def test() -> None:
        turns, order = DeviceTurns(), []

        async def load(name: str, device: str) -> None:
            async with turns.of(device):
                order.append(f"{name} begins")
                await asyncio.sleep(0)
                order.append(f"{name} ends")

        await asyncio.gather(load("a", "cuda:0"), load("b", "cuda:0"), load("c", "cuda:1"))
        assert [one for one in order if one[0] != "c"] == [
            "a begins",
            "a ends",
            "b begins",
            "b ends",
        ]
        assert order.index("c begins") < order.index("a ends")
        order.clear()
        await asyncio.gather(load("a", "cpu"), load("b", "cpu"))
        assert order[:2] == ["a begins", "b begins"]

    run(test())
