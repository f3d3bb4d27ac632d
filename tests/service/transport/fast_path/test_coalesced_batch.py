"""Requests that travel together: nobody pays for it."""

import asyncio
import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest

from service.batcher import Batcher
from service.contracts import InferenceResult, SolverStats
from service.errors import EngineError, NotReady, ServiceError
from service.operations.spec import ModelInput
from service.telemetry import Metrics
from service.transport.fast_path.coalesced_batch import CoalescedBatch
from service.transport.request import Head, RawResponse
from tests.service.batcher.batching import batcher, counted, later, outcome, run, started, submitted
from tests.service.engines.fakes import POISON, Doubling, Gated, Poisoned, rows

FAULTY = 77.0


class FakeRequest:
    """A plain request that remembers what became of it."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.head = Head("/encode", b"", {})
        self.body = b""
        self.arrived = 0.0
        self.deadline = later()
        self.model = ""
        self.rows: int | None = 1
        self.batch: CoalescedBatch | None = None
        self.is_gone = False
        self.told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def wait(self, batch: CoalescedBatch) -> None:
        self.batch = batch

    def attend(self) -> None:
        raise AssertionError("nothing here takes long")

    def done(self) -> bool:
        return self.is_gone or self.told.done()

    def finish(self, reply: RawResponse, identity: str, now: float) -> None:
        assert identity.encode() in reply.lines or reply.status != 200
        self.told.set_result(reply.body)

    def refuse(self, error: Exception) -> None:
        self.told.set_exception(error)

    def leave(self) -> None:
        assert self.batch is not None
        self.is_gone = True
        self.batch.leave(self)


def write(orders: Sequence[ModelInput], answer: InferenceResult) -> list[bytes]:
    if (answer.value == 2 * FAULTY).any():
        raise RuntimeError("a fault of ours")
    assert len(answer.value) == len(orders)
    seen = answer.solves.evaluations if answer.solves else answer.value[:, 0]
    return [b"%d" % value for value in seen]


def enter(queue: Batcher, *values: float) -> list[FakeRequest]:
    """Let a batch wait, one row of each value."""
    requests = [FakeRequest(value) for value in values]
    CoalescedBatch(
        queue, write, [(request, ModelInput(rows(request.value), None, {})) for request in requests]
    ).enter()
    return requests


def doubled(request: FakeRequest) -> bytes:
    return b"%d" % (2 * request.value)


def test_all_are_computed_at_once_and_counted_one_by_one() -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics, max_batch_rows=64)
        queue.start()
        queue.publish_gauges()
        requests = enter(queue, 1, 2, 3)
        assert await started(engine) == 3
        running = metrics.registry.get_sample_value(
            "pushforward_requests_running", {"model": "toy"}
        )
        assert running == 3
        engine.permit()
        assert [await request.told for request in requests] == [
            doubled(request) for request in requests
        ]
        assert counted(metrics, "queue_duration_seconds_count") == 3
        assert counted(metrics, "batches_total") == 1
        await queue.drain()

    run(test())


@pytest.mark.parametrize("leaving", [(0,), (1,), (2, 0), (0, 1, 2)])
def test_the_row_of_one_that_leaves_while_it_waits_is_never_computed(
    leaving: tuple[int, ...],
) -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics, max_batch_rows=64, max_queue_rows=20)
        queue.start()
        first = await submitted(queue, rows(0))
        await started(engine)
        requests = enter(queue, 1, 2, 3)
        for index in leaving:
            requests[index].leave()
        left = [request for request in requests if not request.is_gone]
        # Their places are free at once.
        more = await submitted(queue, *[rows(9)] * (20 - len(left)))
        engine.permit(10)
        await asyncio.gather(*first, *more)
        assert [await request.told for request in left] == [doubled(request) for request in left]
        assert sum(engine.sizes) == 1 + 20
        assert counted(metrics, "dropped_total", reason="cancelled") == len(leaving)
        await queue.drain()

    run(test())


def test_one_that_leaves_while_its_row_is_computed_harms_nobody() -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics, max_batch_rows=64)
        queue.start()
        requests = enter(queue, 1, 2, 3)
        await started(engine)
        requests[0].leave()
        engine.permit()
        assert [await request.told for request in requests[1:]] == [b"4", b"6"]
        assert not requests[0].told.done()
        assert counted(metrics, "dropped_total", reason="cancelled") == 1
        await queue.drain()

    run(test())


@pytest.mark.parametrize("culprits", [1, 3])
def test_the_engine_s_error_is_for_the_culprits_alone(culprits: int) -> None:
    async def test() -> None:
        queue = batcher(Poisoned(), max_batch_rows=64)
        queue.start()
        neighbours = [asyncio.create_task(queue.submit(rows(8), None, later())) for _ in range(3)]
        good, bad = range(16 - culprits), [POISON] * culprits
        requests = enter(queue, *good, *bad)
        told = await asyncio.gather(*(request.told for request in requests), return_exceptions=True)
        assert told[: len(good)] == [b"%d" % (2 * value) for value in good]
        assert all(isinstance(error, EngineError) for error in told[len(good) :])
        await asyncio.gather(*neighbours)
        await queue.drain()

    run(test())


def test_an_answer_that_cannot_be_written_costs_only_itself() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_batch_rows=64)
        queue.start()
        requests = enter(queue, 1, FAULTY, 3)
        first, second, third = [await request.told for request in requests]
        assert (first, third) == (b"2", b"6")
        assert b'"status":500' in second
        await queue.drain()

    run(test())


def test_all_are_told_that_they_may_not_wait() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_batch_rows=64)
        queue.start()
        await queue.drain()
        for request in enter(queue, 1, 2):
            assert isinstance(await outcome(request.told), NotReady)
            assert request.batch is None

    run(test())


def test_all_are_told_when_a_batch_comes_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine, max_batch_rows=64)
        queue.start()
        await submitted(queue, rows(0))
        await started(engine)
        requests = enter(queue, 1, 2)
        queue.abort("gone")
        for request in requests:
            with pytest.raises(ServiceError):
                await request.told
        engine.permit()

    run(test())


def test_what_is_told_of_each_row_goes_to_its_request() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_batch_rows=64)
        requests = [FakeRequest(value) for value in (1, 2, 3)]
        batch = CoalescedBatch(
            queue, write, [(request, ModelInput(rows(1), None, {})) for request in requests]
        )
        counts = np.array([10, 20, 30])
        solves = SolverStats(np.zeros(3, np.int64), counts, np.zeros(3))
        batch.set_result(InferenceResult(rows(1, 2, 3), np.zeros(3, np.float32), 0.0, 0.0, solves))
        assert [await request.told for request in requests] == [b"10", b"20", b"30"]

    run(test())


def test_nothing_stays_in_memory_for_having_been_in_a_batch() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_batch_rows=64)
        queue.start()
        requests = [FakeRequest(1), FakeRequest(2)]
        batch = CoalescedBatch(
            queue,
            write,
            [(request, ModelInput(rows(request.value), None, {})) for request in requests],
        )
        batch.enter()
        seen = weakref.ref(batch)
        del batch
        for request in requests:
            await outcome(request.told)
            request.batch = None
        await queue.drain()
        assert seen() is None

    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


def test_no_more_share_a_batch_than_are_a_short_request_and_fit() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine, max_batch_rows=64, max_queue_rows=20)
        queue.start()
        assert queue.company_rows == 16
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, rows(*range(17)))
        assert queue.company_rows == 3
        tasks += await submitted(queue, rows(*range(3)))
        assert queue.company_rows == 1
        engine.permit(10)
        await asyncio.gather(*tasks)
        await queue.drain()

    run(test())
