"""Batches on a device: the next one is started while one computes, and each is waited for once."""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from service.batcher import ComputeSlots
from service.batcher.batch_queue import BatchQueue
from service.batcher.fair_queue import FairQueue
from service.contracts import Array, EngineOutput
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.errors import EngineError
from tests.service.batcher.batching import (
    PATIENCE_SECONDS,
    assert_is_answer,
    batcher,
    later,
    result_or_error,
    run,
    submitted,
)
from tests.service.batcher.test_batch_queue import entry
from tests.service.engines.fakes import POISON, Clock, Doubling, Poisoned, rows


class Pending:
    """A batch that is computed once somebody waits for it and the test permits it."""

    def __init__(self, engine: "Pipelined", given: Array) -> None:
        self._engine, self._given = engine, given

    def finish(self) -> EngineOutput:
        self._engine.permits.get(timeout=PATIENCE_SECONDS)
        self._engine.log.append(f"finish {len(self._given)}")
        return self._engine.function(self._given, None)


class Pipelined:
    """Logs what is started and finished, in order."""

    def __init__(self, function: Callable[[Array, Array | None], EngineOutput]) -> None:
        self.function = function
        self.log: list[str] = []
        self.started: SimpleQueue[int] = SimpleQueue()
        self.permits: SimpleQueue[None] = SimpleQueue()

    def start(self, given: Array, context: Array | None) -> Pending:
        self.log.append(f"start {len(given)}")
        self.started.put(len(given))
        return Pending(self, given.copy())

    def permit(self, batches: int) -> None:
        for _ in range(batches):
            self.permits.put(None)

    async def has_started(self) -> int:
        return await asyncio.to_thread(self.started.get, timeout=PATIENCE_SECONDS)


def test_a_full_batch_is_started_while_one_computes() -> None:
    async def test() -> None:
        engine, slots = Pipelined(Doubling()), ComputeSlots(1)
        queue = batcher(engine.function, start=engine.start, slots=slots)
        queue.start()
        requests = [rows(*range(8)), rows(*range(8, 16)), rows(1, 2, 3)]
        tasks = await submitted(queue, *requests)
        assert [await engine.has_started(), await engine.has_started()] == [8, 8]
        assert engine.log == ["start 8", "start 8"]
        engine.permit(3)
        for task, request in zip(tasks, requests, strict=True):
            assert_is_answer(await task, request)
        # Three rows are no full batch: until the device is free more may join them.
        assert engine.log[2:] == ["finish 8", "finish 8", "start 3", "finish 3"]
        await queue.drain()
        assert slots.free == 1

    run(test())


def test_a_culprit_fails_alone_beside_a_batch_that_computes() -> None:
    async def test() -> None:
        engine = Pipelined(Poisoned())
        queue = batcher(engine.function, start=engine.start)
        queue.start()
        requests = [rows(POISON if index == 3 else index + 1) for index in range(16)]
        tasks = await submitted(queue, *requests)
        engine.permit(2)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(answers.pop(3), EngineError)
        requests.pop(3)
        for answer, request in zip(answers, requests, strict=True):
            assert_is_answer(answer, request)
        await queue.drain()

    run(test())


def test_a_batch_that_cannot_be_started_is_tried_in_halves() -> None:
    async def test() -> None:
        def start(given: Array, context: Array | None) -> Pending:
            raise EngineOutOfMemory("too large")

        engine = Doubling()
        queue = batcher(engine, start=start)
        queue.start()
        assert_is_answer(await queue.submit(rows(1, 2, 3, 4), None, later()), rows(1, 2, 3, 4))
        assert engine.sizes == [2, 2]
        await queue.drain()

    run(test())


def test_a_batch_is_waited_for_when_all_its_clients_have_left() -> None:
    async def test() -> None:
        engine = Pipelined(Doubling())
        queue = batcher(engine.function, start=engine.start)
        queue.start()
        first, second = await submitted(queue, rows(*range(8)), rows(*range(8)))
        assert [await engine.has_started(), await engine.has_started()] == [8, 8]
        second.cancel()
        await asyncio.sleep(0)
        engine.permit(3)
        assert_is_answer(await first, rows(*range(8)))
        assert_is_answer(await queue.submit(rows(2), None, later()), rows(2))
        assert engine.log[2:] == ["finish 8", "finish 8", "start 1", "finish 1"]
        await queue.drain()

    run(test())


@pytest.mark.parametrize("is_ahead", [False, True])
def test_a_device_that_is_lost_fails_all(is_ahead: bool) -> None:
    async def test() -> None:
        def function(given: Array, context: Array | None) -> EngineOutput:
            raise EngineLost("the device fell off the bus")

        def start(given: Array, context: Array | None) -> Pending:
            if is_ahead and engine.log:
                return function(given, context)  # type: ignore[return-value]
            return engine.start(given, context)

        engine = Pipelined(function)
        engine.permit(1)
        queue = batcher(function, start=start)
        queue.start()
        tasks = await submitted(queue, rows(*range(8)), rows(*range(8)))
        answers = [await result_or_error(task) for task in tasks]
        assert all(isinstance(answer, EngineError) for answer in answers)
        assert not queue.is_alive

    run(test())


def test_who_waits_for_the_instance_waits_for_both_batches() -> None:
    clock = Clock()
    queue = BatchQueue(FairQueue(4), clock=clock)
    queue.add_thread()
    queue.learn(4, 2.0)
    for _ in range(3):
        queue.put(entry(4))
    first = queue.take()
    assert first is not None
    assert queue.seconds_before(4) == pytest.approx(2.0 + 4.0)
    second = queue.take_ahead(first)
    assert second is not None
    assert queue.seconds_before(4) == pytest.approx(4.0 + 2.0)
    queue.finish(first, 4, 2.0)
    clock.now += 2.0
    assert queue.seconds_before(4) == pytest.approx(2.0 + 2.0)
    queue.finish(second, 4, 2.0)


def test_several_instances_overlap_by_themselves() -> None:
    queue = BatchQueue(FairQueue(4), instances=2)
    queue.add_thread()
    queue.put(entry(4))
    queue.put(entry(4))
    first = queue.take()
    assert first is not None
    assert queue.take_ahead(first) is None
