"""Short batches are computed on the event loop itself; all else is as in a thread."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from service.batcher import Batcher
from service.contracts import Array
from service.engines.engine import EngineLost
from service.errors import EngineError
from service.telemetry import Metrics
from tests.service.batcher.batching import (
    assert_is_answer,
    batcher,
    counted,
    later,
    result_or_error,
    run,
    submitted,
)
from tests.service.engines.fakes import POISON, rows

BOUND = 0.001


class Clock:
    """Time that only the engine lets pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Paced:
    """An engine that takes so long for a batch and for each of its rows, and notes where it ran."""

    def __init__(self, clock: Clock, fixed: float = 1e-4, per_row: float = 1e-5) -> None:
        self.clock, self.fixed, self.per_row = clock, fixed, per_row
        self.calls: list[tuple[int, bool]] = []
        self.error: BaseException | None = None

    def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        is_here = threading.current_thread() is threading.main_thread()
        self.calls.append((len(x), is_here))
        self.clock.now += self.fixed + self.per_row * len(x)
        if self.error is not None:
            raise self.error
        if (x == POISON).any():
            raise RuntimeError("poison")
        return 2 * x, x.sum(1)


async def warm(
    engine: Callable[[Array, Array | None], tuple[Array, Array]],
    clock: Clock,
    metrics: Metrics | None = None,
    **policy: float,
) -> Batcher:
    """A queue that knows its engine, as a loaded model's does."""
    limits: dict[str, float] = {
        "max_batch_rows": 128,
        "max_queue_rows": 1000,
        "max_inline_seconds": BOUND,
    }
    limits |= policy
    queue = batcher(engine, metrics, clock, **limits)
    queue.start()
    sizes = (32,) if limits.get("max_delay_seconds") else (128, 1, 32)
    for size in (size for size in sizes if size <= limits["max_queue_rows"]):
        await queue.warm_up(rows(*range(size)), None)
    return queue


async def settle(queue: Batcher, engine: Paced) -> None:
    """Wait until no thread is about to take rows: a batch is then computed on the loop."""
    while not engine.calls[-1][1]:
        await asyncio.sleep(0.001)
        await queue.submit(rows(0), None, later())
    engine.calls.clear()


def test_what_arrives_in_one_turn_is_one_batch_on_the_loop() -> None:
    async def test() -> None:
        clock, metrics = Clock(), Metrics()
        engine = Paced(clock)
        queue = await warm(engine, clock, metrics=metrics)
        await settle(queue, engine)
        before = counted(metrics, "batches_total") or 0
        queued = counted(metrics, "queue_duration_seconds_count") or 0
        replies = await submitted(queue, rows(1), rows(2, 3), rows(4))
        for reply, request in zip(replies, (rows(1), rows(2, 3), rows(4)), strict=True):
            assert_is_answer(await reply, request)
        assert engine.calls == [(4, True)]
        assert counted(metrics, "batches_total") == before + 1
        assert counted(metrics, "queue_duration_seconds_count") == queued + 3
        await queue.drain()

    run(test())


@pytest.mark.parametrize(
    ("size", "policy", "is_here"),
    [
        (64, {}, True),
        (64, {"max_inline_seconds": 0.0005}, False),
        (64, {"max_inline_seconds": 0.0}, False),
    ],
)
def test_only_what_is_predicted_to_be_short_is_computed_there(
    size: int, policy: dict[str, float], is_here: bool
) -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = await warm(engine, clock, **policy)
        if is_here:
            await settle(queue, engine)
        engine.calls.clear()
        request = rows(*range(size))
        assert_is_answer(await queue.submit(request, None, later()), request)
        assert engine.calls == [(size, is_here)]
        await queue.drain()

    run(test())


def test_rows_that_may_wait_for_others_are_not_computed_there() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = await warm(engine, clock, max_delay_seconds=1.0, max_batch_rows=32)
        replies = await submitted(queue, rows(1))
        await asyncio.sleep(0.01)
        assert not replies[0].done()
        await queue.drain()
        assert_is_answer(await replies[0], rows(1))
        assert engine.calls[-1] == (1, False)

    run(test())


def test_nothing_is_computed_there_before_its_cost_is_known() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = batcher(engine, None, clock, max_inline_seconds=BOUND)
        queue.start()
        await asyncio.sleep(0.1)  # until its thread sleeps
        assert_is_answer(await queue.submit(rows(1), None, later()), rows(1))
        assert engine.calls == [(1, False)]
        await queue.drain()

    run(test())


def test_rows_that_a_thread_is_about_to_take_are_left_to_it() -> None:
    async def test() -> None:
        clock = Clock()
        gate, begun = threading.Event(), threading.Event()
        engine = Paced(clock)

        def call(x: Array, context: Array | None) -> tuple[Array, Array]:
            answer = engine(x, context)
            if len(x) == 128 and engine.calls.count((128, False)) > 1:
                begun.set()
                gate.wait(20)
            return answer

        queue = await warm(call, clock, instances=1)
        long = await submitted(queue, rows(*range(128)))
        await asyncio.to_thread(begun.wait, 20)
        short = await submitted(queue, rows(1))
        await asyncio.sleep(0.01)
        assert not short[0].done()
        gate.set()
        await long[0]
        assert_is_answer(await short[0], rows(1))
        assert engine.calls[-1] == (1, False)
        await queue.drain()

    run(test())


def test_a_row_on_which_the_engine_fails_costs_itself_alone() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = await warm(engine, clock)
        await settle(queue, engine)
        replies = await submitted(queue, rows(1), rows(POISON), rows(2))
        found = [await result_or_error(reply) for reply in replies]
        assert_is_answer(found[0], rows(1))
        assert isinstance(found[1], EngineError)
        assert_is_answer(found[2], rows(2))
        assert all(is_here for _, is_here in engine.calls)
        await queue.drain()

    run(test())


def test_an_engine_that_is_lost_on_the_loop_is_lost() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = await warm(engine, clock)
        await settle(queue, engine)
        engine.error = EngineLost("gone")
        assert isinstance(await result_or_error(queue.submit(rows(1), None, later())), EngineError)
        assert not queue.is_alive

    run(test())


def test_a_fault_of_ours_on_the_loop_leaves_the_queue_working(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = await warm(engine, clock)
        await settle(queue, engine)
        with monkeypatch.context() as patch:
            patch.setattr("service.batcher.executor.BatchExecutor.run", lambda *_: 1 / 0)
            replies = await submitted(queue, rows(1), rows(2))
            for reply in replies:
                assert isinstance(await result_or_error(reply), Exception)
        assert_is_answer(await queue.submit(rows(3), None, later()), rows(3))
        assert engine.calls == [(1, True)]
        await queue.drain()

    run(test())


def test_rows_that_never_wait_are_counted_and_answered_as_others() -> None:
    async def test() -> None:
        clock, metrics = Clock(), Metrics()
        engine = Paced(clock)
        queue = await warm(engine, clock, metrics=metrics)
        await settle(queue, engine)
        names = ("batches_total", "rows_total", "queue_duration_seconds_count")
        before = [counted(metrics, name) or 0 for name in names]
        found = queue.compute_now(rows(1, 2, 3), None, 20.0, requests=3)
        assert found is not None
        assert_is_answer(found, rows(1, 2, 3))
        assert engine.calls == [(3, True)]
        assert found.compute_seconds == pytest.approx(1.3e-4)
        assert [counted(metrics, name) or 0 for name in names] == before
        await asyncio.sleep(0)  # they are counted once the answers may be on their way
        added = [
            (counted(metrics, name) or 0) - was for name, was in zip(names, before, strict=True)
        ]
        assert added == [1, 3, 3]
        await queue.drain()

    run(test())


@pytest.mark.parametrize(
    ("size", "left", "policy"),
    [
        (1, 0.0, {}),
        (64, 20.0, {"max_inline_seconds": 0.0005}),
        (129, 20.0, {"max_inline_seconds": 0.01}),
        (64, 20.0, {"max_queue_rows": 40}),
        (3, 20.0, {"is_fixed": True, "max_inline_seconds": 0.01}),
    ],
    ids=["late", "long", "more than a batch", "too large", "fixed"],
)
def test_what_may_not_be_computed_at_once_is_left_to_the_queue(
    size: int, left: float, policy: dict[str, float]
) -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = await warm(engine, clock, **policy)
        await settle(queue, engine)
        assert queue.compute_now(rows(*range(size)), None, clock.now + left) is None
        assert engine.calls == []
        await queue.drain()

    run(test())


def test_rows_do_not_pass_those_that_wait() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = await warm(engine, clock)
        await settle(queue, engine)
        replies = await submitted(queue, rows(1))
        assert queue.compute_now(rows(2), None, clock.now + 20.0) is None
        await replies[0]
        assert queue.compute_now(rows(2), None, clock.now + 20.0) is not None
        await queue.drain()
        assert queue.compute_now(rows(2), None, clock.now + 20.0) is None

    run(test())


def test_where_the_engine_fails_at_once_the_queue_finds_whose_row_it_is() -> None:
    async def test() -> None:
        clock = Clock()
        engine = Paced(clock)
        queue = await warm(engine, clock)
        await settle(queue, engine)
        assert queue.compute_now(rows(1, POISON), None, clock.now + 20.0, requests=2) is None
        assert isinstance(
            await result_or_error(queue.submit(rows(POISON), None, later())), EngineError
        )
        engine.error = EngineLost("gone")
        with pytest.raises(EngineError):
            queue.compute_now(rows(1), None, clock.now + 20.0)
        assert not queue.is_alive

    run(test())
