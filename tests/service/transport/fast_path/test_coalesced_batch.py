"""Requests that travel together: nobody pays for it."""

import asyncio
import gc
import weakref
from collections.abc import Sequence

import numpy as np
import pytest

from service.batcher import Batcher
from service.contracts import InferenceResult, SolverStats
from service.engines.engine import EngineLost
from service.errors import EngineError, NotReady
from service.operations.model_input import ModelInput, join_inputs
from service.operations.response import RawResponse, Scalars
from service.telemetry import Metrics
from service.transport.fast_path.coalesced_batch import CoalescedBatch
from service.transport.request import Head
from tests.service.batcher.batching import (
    batcher,
    counted,
    later,
    result_or_error,
    run,
    started,
    submitted,
)
from tests.service.engines.fakes import POISON, Doubling, Gated, Poisoned, rows

FAULTY = 77.0


class FakeRequest:
    """A request of the fast path that remembers what became of it."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.head = Head("/encode", b"", {})
        self.deadline = later()
        self.is_accepted = False
        self.share = None
        self.batch: CoalescedBatch | None = None
        self.is_gone = False
        self.asks_successor = False
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @property
    def is_over(self) -> bool:
        return self.is_gone or self.reply.done()

    def wait_in(self, batch: CoalescedBatch) -> None:
        self.batch = batch

    def ask_successor(self, error: NotReady) -> None:
        self.asks_successor = True

    def finish(self, response: RawResponse) -> None:
        self.reply.set_result(response.body)

    def record(self, response: RawResponse, identity: str, now: float) -> None:
        assert self.reply.done()
        assert identity.encode() in response.header_lines or response.status != 200

    def fail(self, error: Exception) -> None:
        self.reply.set_exception(error)

    def cancel(self) -> None:
        assert self.batch is not None
        self.is_gone = True
        self.batch.cancel(self)


def write(
    given: ModelInput,
    scalars: Sequence[Scalars],
    result: InferenceResult,
    identities: Sequence[str],
) -> list[bytes]:
    if (result.value == 2 * FAULTY).any():
        raise RuntimeError("a fault of ours")
    assert len(result.value) == len(given.rows) == len(scalars)
    if result.solver_stats is None:
        np.testing.assert_array_equal(result.value, 2 * given.rows)
    seen = result.solver_stats.evaluations if result.solver_stats else result.value[:, 0]
    return [b"%d" % value for value in seen]


def batch_of(queue: Batcher, requests: Sequence[FakeRequest]) -> CoalescedBatch:
    inputs = [ModelInput(rows(one.value), None, queue, {}) for one in requests]
    return CoalescedBatch(write, requests, join_inputs(inputs), [{}] * len(requests))


def enqueue(queue: Batcher, *values: float) -> list[FakeRequest]:
    """Let requests of one row each wait together, one of each value."""
    requests = [FakeRequest(value) for value in values]
    batch_of(queue, requests).enqueue()
    return requests


def doubled(request: FakeRequest) -> bytes:
    return b"%d" % (2 * request.value)


def test_all_are_computed_at_once_and_counted_one_by_one() -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics, max_batch_rows=64)
        queue.start()
        queue.publish_gauges()
        requests = enqueue(queue, 1, 2, 3)
        assert await started(engine) == 3
        running = metrics.registry.get_sample_value(
            "pushforward_requests_running", {"model": "toy", "version": ""}
        )
        assert running == 3
        engine.permit()
        assert [await request.reply for request in requests] == [
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
        requests = enqueue(queue, 1, 2, 3)
        for index in leaving:
            requests[index].cancel()
        left = [request for request in requests if not request.is_gone]
        # Their places are free at once.
        more = await submitted(queue, *[rows(9)] * (20 - len(left)))
        engine.permit(10)
        await asyncio.gather(*first, *more)
        assert [await request.reply for request in left] == [doubled(request) for request in left]
        assert sum(engine.sizes) == 1 + 20
        assert counted(metrics, "dropped_total", reason="cancelled") == len(leaving)
        await queue.drain()

    run(test())


def test_one_that_leaves_while_its_row_is_computed_harms_nobody() -> None:
    async def test() -> None:
        engine, metrics = Gated(), Metrics()
        queue = batcher(engine, metrics, max_batch_rows=64)
        queue.start()
        requests = enqueue(queue, 1, 2, 3)
        await started(engine)
        requests[0].cancel()
        engine.permit()
        assert [await request.reply for request in requests[1:]] == [b"4", b"6"]
        assert not requests[0].reply.done()
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
        requests = enqueue(queue, *good, *bad)
        told = await asyncio.gather(
            *(request.reply for request in requests), return_exceptions=True
        )
        assert told[: len(good)] == [b"%d" % (2 * value) for value in good]
        assert all(isinstance(error, EngineError) for error in told[len(good) :])
        await asyncio.gather(*neighbours)
        await queue.drain()

    run(test())


def test_an_answer_that_cannot_be_written_costs_only_itself() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_batch_rows=64)
        queue.start()
        requests = enqueue(queue, 1, FAULTY, 3)
        first, second, third = [await request.reply for request in requests]
        assert (first, third) == (b"2", b"6")
        assert b'"status":500' in second
        await queue.drain()

    run(test())


def test_where_the_model_takes_no_rows_each_asks_for_a_successor() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_batch_rows=64)
        queue.start()
        await queue.drain()
        for one in enqueue(queue, 1, 2):
            assert one.asks_successor
            assert not one.is_accepted
            assert one.batch is None

    run(test())


def test_where_the_model_goes_before_they_are_computed_each_asks_for_a_successor() -> None:
    async def test() -> None:
        engine = Gated()
        queue = batcher(engine, max_batch_rows=64)
        queue.start()
        first = await submitted(queue, rows(0))
        await started(engine)
        requests = enqueue(queue, 1, 2)
        queue.abort("gone")
        assert all(one.asks_successor and one.is_accepted for one in requests)
        assert isinstance(await result_or_error(first[0]), NotReady)
        engine.permit()

    run(test())


def test_an_engine_that_is_lost_fails_all() -> None:
    async def test() -> None:
        queue = batcher(lambda *_: (_ for _ in ()).throw(EngineLost("gone")), max_batch_rows=64)
        queue.start()
        for one in enqueue(queue, 1, 2):
            assert isinstance(await result_or_error(one.reply), EngineError)

    run(test())


def test_what_is_told_of_each_row_goes_to_its_request() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_batch_rows=64)
        requests = [FakeRequest(value) for value in (1, 2, 3)]
        batch = batch_of(queue, requests)
        counts = np.array([10, 20, 30])
        solves = SolverStats(np.zeros(3, np.int64), counts, np.zeros(3))
        batch.set_result(InferenceResult(rows(1, 2, 3), np.zeros(3, np.float32), 0.0, 0.0, solves))
        assert [await request.reply for request in requests] == [b"10", b"20", b"30"]

    run(test())


def test_nothing_stays_in_memory_for_having_been_in_a_batch() -> None:
    async def test() -> None:
        queue = batcher(Doubling(), max_batch_rows=64)
        queue.start()
        requests = [FakeRequest(1), FakeRequest(2)]
        batch = batch_of(queue, requests)
        batch.enqueue()
        seen = weakref.ref(batch)
        del batch
        for request in requests:
            await result_or_error(request.reply)
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
        assert queue.max_coalesced_rows == 16
        tasks = await submitted(queue, rows(0))
        await started(engine)
        tasks += await submitted(queue, rows(*range(17)))
        assert queue.max_coalesced_rows == 3
        tasks += await submitted(queue, rows(*range(3)))
        assert queue.max_coalesced_rows == 1
        engine.permit(10)
        await asyncio.gather(*tasks)
        await queue.drain()

    run(test())
