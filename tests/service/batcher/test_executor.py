"""One batch: rows go home, failures stay with their culprits, memory is retried smaller."""

import asyncio
import math
from collections.abc import Callable

import numpy as np
import pytest

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.executor import BatchExecutor, BatchResult, Operation
from service.contracts import Array, InferenceResult
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.errors import EngineError, NotReady
from tests.service.engines.fakes import FEATURES, POISON, Doubling, Poisoned, rows

Call = Callable[[Array, Array | None], tuple[Array, Array]]


def operation(call: Call, context_shape: tuple[int, ...] | None = None) -> Operation:
    return Operation(call, (FEATURES,), (FEATURES,), context_shape, "float32")


def tickets(*requests: Array, contexts: list[Array] | None = None) -> list[QueueEntry]:
    loop = asyncio.new_event_loop()
    loop.close()
    made = []
    for index, request in enumerate(requests):
        slot: asyncio.Future[InferenceResult] = asyncio.Future(loop=loop)
        context = None if contexts is None else contexts[index]
        made.append(QueueEntry(request, context, deadline=9.0, arrived=0.0, slot=slot))
    return made


def run(kernel: BatchExecutor, requests: list[QueueEntry]) -> BatchResult:
    return kernel.run([EntrySlice(ticket, 0, ticket.total) for ticket in requests])


def assert_answered(ticket: QueueEntry) -> None:
    answer = ticket.answer()
    np.testing.assert_array_equal(answer.value, 2 * ticket.rows)
    np.testing.assert_array_equal(answer.log_det, ticket.rows.sum(1))


def test_rows_go_back_to_their_requests() -> None:
    requests = tickets(rows(1, 2), rows(3), rows(4, 5, 6))
    outcome = run(BatchExecutor(operation(Doubling()), 8), requests)
    assert outcome.finished == requests
    assert (outcome.rows, outcome.non_finite_rows, outcome.first_error) == (6, 0, None)
    for ticket in requests:
        assert_answered(ticket)


def test_context_travels_with_its_rows() -> None:
    requests = tickets(rows(1), rows(2), contexts=[np.full((1, 2), 10.0), np.full((1, 2), 20.0)])
    run(BatchExecutor(operation(Doubling(), context_shape=(2,)), 8), requests)
    assert [ticket.answer().log_det.tolist() for ticket in requests] == [[23.0], [46.0]]


def test_pieces_of_one_request_are_joined() -> None:
    (ticket,) = tickets(rows(*range(1, 8)))
    kernel = BatchExecutor(operation(Doubling()), 3)
    finished = [
        kernel.run([EntrySlice(ticket, *span)]).finished for span in ((0, 3), (3, 6), (6, 7))
    ]
    assert finished == [[], [], [ticket]]
    assert_answered(ticket)


def test_an_incomplete_ticket_has_no_answer() -> None:
    (ticket,) = tickets(rows(1, 2))
    BatchExecutor(operation(Doubling()), 3).run([EntrySlice(ticket, 0, 1)])
    with pytest.raises(RuntimeError, match="1 of 2 rows"):
        ticket.answer()


@pytest.mark.parametrize("culprit", [0, 7, 15])
def test_bisection_finds_one_culprit_of_sixteen(culprit: int) -> None:
    requests = tickets(*(rows(POISON if i == culprit else i + 1) for i in range(16)))
    engine = Poisoned()
    outcome = run(BatchExecutor(operation(engine), 16), requests)
    assert isinstance(requests[culprit].error, EngineError)
    assert len(engine.sizes) <= 1 + 2 * math.log2(16)
    assert outcome.rows == 15
    for index, ticket in enumerate(requests):
        if index != culprit:
            assert_answered(ticket)


def test_a_failure_does_not_carry_the_engines_words() -> None:
    requests = tickets(rows(POISON))
    run(BatchExecutor(operation(Poisoned(lambda: ValueError("/secret/path"))), 4), requests)
    assert requests[0].error is not None
    assert "secret" not in requests[0].error.detail


def test_an_engine_that_always_fails_costs_a_bounded_number_of_calls() -> None:
    requests = tickets(*(rows(POISON) for _ in range(256)))
    engine = Poisoned()
    outcome = run(BatchExecutor(operation(engine), 256), requests)
    assert all(isinstance(ticket.error, EngineError) for ticket in requests)
    assert len(outcome.finished) == 256
    assert len(engine.sizes) < 100


def test_out_of_memory_is_retried_in_halves() -> None:
    def small_memory(x: Array, context: Array | None) -> tuple[Array, Array]:
        if len(x) > 4:
            raise EngineOutOfMemory
        return 2 * x, x.sum(1)

    requests = tickets(rows(1, 2, 3), rows(4, 5, 6, 7, 8))
    outcome = run(BatchExecutor(operation(small_memory), 8), requests)
    for ticket in requests:
        assert_answered(ticket)
    assert outcome.rows == 8
    assert isinstance(outcome.first_error, EngineOutOfMemory)


def test_out_of_memory_twice_is_not_ready() -> None:
    calls = []

    def no_memory(x: Array, context: Array | None) -> tuple[Array, Array]:
        calls.append(len(x))
        raise EngineOutOfMemory

    requests = tickets(rows(1, 2), rows(3, 4))
    outcome = run(BatchExecutor(operation(no_memory), 4), requests)
    assert calls == [4, 2, 2]
    assert all(isinstance(ticket.error, NotReady) for ticket in requests)
    assert len(outcome.finished) == 2


def test_a_lost_engine_is_reported() -> None:
    def lost(x: Array, context: Array | None) -> tuple[Array, Array]:
        raise EngineLost("device-side assert")

    with pytest.raises(EngineLost):
        run(BatchExecutor(operation(lost), 4), tickets(rows(1)))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda x, c: (2 * x[:-1], x.sum(1)[:-1]), id="a-row-too-few"),
        pytest.param(lambda x, c: (2 * x, x.sum(1)[:-1]), id="a-log-det-too-few"),
        pytest.param(lambda x, c: (x[:, :1], x.sum(1)), id="wrong-event"),
        pytest.param(lambda x, c: (2 * x, x), id="log-det-per-feature"),
        pytest.param(lambda x, c: (2.0 * x.astype(np.float64), x.sum(1)), id="wrong-dtype"),
    ],
)
def test_results_of_a_wrong_form_are_an_engine_error(wrong: Call) -> None:
    requests = tickets(rows(1), rows(2))
    outcome = run(BatchExecutor(operation(wrong), 4), requests)
    assert all(isinstance(ticket.error, EngineError) for ticket in requests)
    assert outcome.rows == 0


def test_non_finite_rows_are_counted_and_pass() -> None:
    def infinite(x: Array, context: Array | None) -> tuple[Array, Array]:
        value, log_det = 2 * x, x.sum(1)
        value[0, 0] = np.nan
        log_det[2] = -np.inf
        return value, log_det

    requests = tickets(rows(1), rows(2), rows(3))
    outcome = run(BatchExecutor(operation(infinite), 4), requests)
    assert outcome.non_finite_rows == 2
    assert requests[2].answer().log_det.tolist() == [-np.inf]


def test_rows_of_a_cancelled_request_are_not_computed() -> None:
    requests = tickets(rows(1), rows(2), rows(3))
    requests[1].error = NotReady("gone")
    engine = Doubling()
    outcome = run(BatchExecutor(operation(engine), 4), requests)
    assert engine.sizes == [2]
    assert outcome.finished == [requests[0], requests[2]]
    assert_answered(requests[2])


def test_fixed_batches_are_padded_and_cut_back() -> None:
    engine = Doubling()
    kernel = BatchExecutor(operation(engine, context_shape=(1,)), 8, is_fixed=True)
    for request in (rows(1), rows(1, 2, 3), rows(*range(8))):
        (ticket,) = tickets(request, contexts=[np.zeros((len(request), 1), np.float32)])
        outcome = run(kernel, [ticket])
        assert outcome.rows == len(request)
        assert_answered(ticket)
    assert engine.sizes == [8, 8, 8]


def test_padding_is_not_counted_as_non_finite() -> None:
    def infinite(x: Array, context: Array | None) -> tuple[Array, Array]:
        return 2 * x, np.full(len(x), -np.inf, x.dtype)

    outcome = run(BatchExecutor(operation(infinite), 8, is_fixed=True), tickets(rows(1, 2)))
    assert outcome.non_finite_rows == 2
