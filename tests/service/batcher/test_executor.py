"""One batch: rows go home, failures stay with their culprits, memory is retried smaller."""

import asyncio
import math
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.executor import BatchExecutor, BatchResult, EngineCall
from service.contracts import Array, InferenceResult
from service.engines.engine import EngineLost, EngineOutOfMemory
from service.errors import EngineError, NotReady
from tests.service.batcher.batching import NoOwner
from tests.service.engines.fakes import FEATURES, POISON, Doubling, Poisoned, rows

Call = Callable[[Array, Array | None], tuple[Array, Array]]


def engine_call(call: Call, context_shape: tuple[int, ...] | None = None) -> EngineCall:
    return EngineCall(call, (FEATURES,), (FEATURES,), context_shape, "float32")


def entries(*requests: Array, contexts: list[Array] | None = None) -> list[QueueEntry]:
    loop = asyncio.new_event_loop()
    loop.close()
    made = []
    for index, request in enumerate(requests):
        sink: asyncio.Future[InferenceResult] = asyncio.Future(loop=loop)
        context = None if contexts is None else contexts[index]
        made.append(
            QueueEntry(request, context, deadline=9.0, arrived=0.0, sink=sink, owner=NoOwner())
        )
    return made


def run(
    executor: BatchExecutor, requests: list[QueueEntry]
) -> tuple[list[QueueEntry], BatchResult]:
    return executor.run([EntrySlice(entry, 0, entry.total) for entry in requests])


def assert_answered(entry: QueueEntry) -> None:
    answer = entry.result()
    np.testing.assert_array_equal(answer.value, 2 * entry.rows)
    np.testing.assert_array_equal(answer.log_det, entry.rows.sum(1))


def test_rows_go_back_to_their_requests() -> None:
    requests = entries(rows(1, 2), rows(3), rows(4, 5, 6))
    finished, result = run(BatchExecutor(engine_call(Doubling()), 8), requests)
    assert finished == requests
    assert (result.rows, result.non_finite_rows, result.first_error) == (6, 0, None)
    for entry in requests:
        assert_answered(entry)


def coalesced(*values: float) -> QueueEntry:
    """An entry of several requests, a row of each."""
    (entry,) = entries(rows(*values))
    entry.is_coalesced = True
    return entry


@pytest.mark.parametrize("culprits", [(1,), (0, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_requests_of_one_entry_fail_one_by_one(culprits: tuple[int, ...]) -> None:
    values = [POISON if row in culprits else float(row) for row in range(7)]
    entry, (neighbour,) = coalesced(*values), entries(rows(8, 9))
    finished, _ = run(BatchExecutor(engine_call(Poisoned()), 16), [entry, neighbour])
    assert set(finished) == {entry, neighbour}
    assert_answered(neighbour)
    assert sorted(entry.errors) == list(culprits)
    assert all(isinstance(error, EngineError) for error in entry.errors.values())
    if len(culprits) == 7:
        assert isinstance(entry.error, EngineError)
        return
    answer = entry.result()
    assert sorted(answer.errors) == list(culprits)
    good = [row for row in range(7) if row not in culprits]
    np.testing.assert_array_equal(answer.value[good], 2 * entry.rows[good])


def test_rows_of_one_request_fail_together() -> None:
    (entry,) = entries(rows(1, POISON, 3))
    finished, _ = run(BatchExecutor(engine_call(Poisoned()), 8), [entry])
    assert finished == [entry]
    assert isinstance(entry.error, EngineError)


def test_a_failing_engine_is_not_asked_without_end_for_one_entry() -> None:
    calls = []

    def fail(values: Array, context: Array | None) -> tuple[Array, Array]:
        calls.append(len(values))
        raise RuntimeError("broken")

    entry = coalesced(*range(64))
    finished, _ = run(BatchExecutor(engine_call(fail), 64), [entry])
    assert finished == [entry]
    assert isinstance(entry.error, EngineError)
    assert len(calls) <= 1 + 9 * 7


def test_context_travels_with_its_rows() -> None:
    requests = entries(rows(1), rows(2), contexts=[np.full((1, 2), 10.0), np.full((1, 2), 20.0)])
    run(BatchExecutor(engine_call(Doubling(), context_shape=(2,)), 8), requests)
    assert [entry.result().log_det.tolist() for entry in requests] == [[23.0], [46.0]]


def test_parts_of_one_request_are_joined() -> None:
    (entry,) = entries(rows(*range(1, 8)))
    executor = BatchExecutor(engine_call(Doubling()), 3)
    finished = [executor.run([EntrySlice(entry, *span)])[0] for span in ((0, 3), (3, 6), (6, 7))]
    assert finished == [[], [], [entry]]
    assert_answered(entry)


def test_an_incomplete_entry_has_no_answer() -> None:
    (entry,) = entries(rows(1, 2))
    BatchExecutor(engine_call(Doubling()), 3).run([EntrySlice(entry, 0, 1)])
    with pytest.raises(RuntimeError, match="1 of 2 rows"):
        entry.result()


@pytest.mark.parametrize("culprit", [0, 7, 15])
def test_bisection_finds_one_culprit_of_sixteen(culprit: int) -> None:
    requests = entries(*(rows(POISON if i == culprit else i + 1) for i in range(16)))
    engine = Poisoned()
    _, result = run(BatchExecutor(engine_call(engine), 16), requests)
    assert isinstance(requests[culprit].error, EngineError)
    assert len(engine.sizes) <= 1 + 2 * math.log2(16)
    assert result.rows == 15
    for index, entry in enumerate(requests):
        if index != culprit:
            assert_answered(entry)


def test_a_failure_does_not_carry_the_engines_words() -> None:
    requests = entries(rows(POISON))
    run(BatchExecutor(engine_call(Poisoned(lambda: ValueError("/secret/path"))), 4), requests)
    assert requests[0].error is not None
    assert "secret" not in requests[0].error.detail


def test_an_engine_that_always_fails_costs_a_bounded_number_of_calls() -> None:
    requests = entries(*(rows(POISON) for _ in range(256)))
    engine = Poisoned()
    finished, _ = run(BatchExecutor(engine_call(engine), 256), requests)
    assert all(isinstance(entry.error, EngineError) for entry in requests)
    assert len(finished) == 256
    assert len(engine.sizes) < 100


def test_out_of_memory_is_retried_in_halves() -> None:
    def small_memory(x: Array, context: Array | None) -> tuple[Array, Array]:
        if len(x) > 4:
            raise EngineOutOfMemory
        return 2 * x, x.sum(1)

    requests = entries(rows(1, 2, 3), rows(4, 5, 6, 7, 8))
    _, result = run(BatchExecutor(engine_call(small_memory), 8), requests)
    for entry in requests:
        assert_answered(entry)
    assert result.rows == 8
    assert isinstance(result.first_error, EngineOutOfMemory)
    assert result.fitting_rows == 4


def test_out_of_memory_twice_is_not_ready() -> None:
    calls = []

    def no_memory(x: Array, context: Array | None) -> tuple[Array, Array]:
        calls.append(len(x))
        raise EngineOutOfMemory

    requests = entries(rows(1, 2), rows(3, 4))
    finished, result = run(BatchExecutor(engine_call(no_memory), 4), requests)
    assert calls == [4, 2, 2]
    assert result.fitting_rows == 1
    assert all(isinstance(entry.error, NotReady) for entry in requests)
    assert len(finished) == 2


def test_memory_that_runs_out_in_python_is_retried_in_halves_too() -> None:
    def small_memory(x: Array, context: Array | None) -> tuple[Array, Array]:
        if len(x) > 2:
            raise MemoryError("Unable to allocate 8.00 TiB for an array")
        return 2 * x, x.sum(1)

    requests = entries(rows(1, 2), rows(3, 4))
    _, result = run(BatchExecutor(engine_call(small_memory), 4), requests)
    for entry in requests:
        assert_answered(entry)
    assert result.fitting_rows == 2


@pytest.mark.parametrize("kind", [EngineOutOfMemory, MemoryError, RuntimeError])
def test_what_a_failed_call_held_is_gone_when_its_parts_are_tried(kind: type[Exception]) -> None:
    class Held:
        """What a call of an engine has in its frame."""

    kept: list[weakref.ref[Held]] = []
    alive: list[int] = []

    def fail(x: Array, context: Array | None) -> tuple[Array, Array]:
        alive.append(sum(reference() is not None for reference in kept))
        held = Held()
        kept.append(weakref.ref(held))
        if len(x) > 1:
            raise kind("too many rows")
        return 2 * x, x.sum(1)

    run(BatchExecutor(engine_call(fail), 2), entries(rows(1), rows(2)))
    assert alive == [0, 0, 0]


def test_a_lost_engine_is_reported() -> None:
    def lost(x: Array, context: Array | None) -> tuple[Array, Array]:
        raise EngineLost("device-side assert")

    with pytest.raises(EngineLost):
        run(BatchExecutor(engine_call(lost), 4), entries(rows(1)))


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
    requests = entries(rows(1), rows(2))
    _, result = run(BatchExecutor(engine_call(wrong), 4), requests)
    assert all(isinstance(entry.error, EngineError) for entry in requests)
    assert result.rows == 0


def test_non_finite_rows_are_counted_and_pass() -> None:
    def infinite(x: Array, context: Array | None) -> tuple[Array, Array]:
        value, log_det = 2 * x, x.sum(1)
        value[0, 0] = np.nan
        log_det[2] = -np.inf
        return value, log_det

    requests = entries(rows(1), rows(2), rows(3))
    _, result = run(BatchExecutor(engine_call(infinite), 4), requests)
    assert result.non_finite_rows == 2
    assert requests[2].result().log_det.tolist() == [-np.inf]


def test_rows_of_a_cancelled_request_are_not_computed() -> None:
    requests = entries(rows(1), rows(2), rows(3))
    requests[1].error = NotReady("gone")
    engine = Doubling()
    finished, _ = run(BatchExecutor(engine_call(engine), 4), requests)
    assert engine.sizes == [2]
    assert finished == [requests[0], requests[2]]
    assert_answered(requests[2])


def test_fixed_batches_are_padded_and_cut_back() -> None:
    engine = Doubling()
    executor = BatchExecutor(engine_call(engine, context_shape=(1,)), 8, is_fixed=True)
    for request in (rows(1), rows(1, 2, 3), rows(*range(8))):
        (entry,) = entries(request, contexts=[np.zeros((len(request), 1), np.float32)])
        _, result = run(executor, [entry])
        assert result.rows == len(request)
        assert_answered(entry)
    assert engine.sizes == [8, 8, 8]


def test_padding_is_not_counted_as_non_finite() -> None:
    def infinite(x: Array, context: Array | None) -> tuple[Array, Array]:
        return 2 * x, np.full(len(x), -np.inf, x.dtype)

    _, result = run(BatchExecutor(engine_call(infinite), 8, is_fixed=True), entries(rows(1, 2)))
    assert result.non_finite_rows == 2
