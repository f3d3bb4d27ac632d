"""The order of rows: full batches, first come first served, and nobody starved."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.fair_queue import FairQueue
from service.contracts import InferenceResult
from tests.service.batcher.batching import NoOwner


def entry(rows: int, arrived: float = 0.0) -> QueueEntry:
    sink: asyncio.Future[InferenceResult] = asyncio.Future(loop=LOOP)
    return QueueEntry(
        np.zeros((rows, 1)), None, deadline=9.0, arrived=arrived, sink=sink, owner=NoOwner()
    )


LOOP = asyncio.new_event_loop()
LOOP.close()


def sizes(parts: list[EntrySlice]) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in parts]


def test_a_batch_is_filled_in_order_of_arrival() -> None:
    queue = FairQueue(4)
    entries = [entry(1) for _ in range(6)]
    for one in entries:
        queue.add(one)
    assert [part.entry for part in queue.take()] == entries[:4]
    assert [part.entry for part in queue.take()] == entries[4:]
    assert queue.take() == []
    assert queue.rows == 0


def test_a_large_request_is_cut_into_batches() -> None:
    queue = FairQueue(4)
    queue.add(entry(10))
    assert [sizes(queue.take()) for _ in range(3)] == [[(0, 4)], [(4, 8)], [(8, 10)]]


def test_a_queue_that_shrinks_loses_no_row_and_keeps_its_turns() -> None:
    queue = FairQueue(8)
    first, second, short = entry(100), entry(100), entry(2)
    for one in (first, second):
        queue.add(one)
    queue.take(6)  # the first is in the middle of its turn
    queue.add(short)
    queue.shrink(1)
    computed = {one: one.taken for one in (first, second, short)}
    taken = [queue.take() for _ in range(queue.rows)]
    for parts in taken:
        (part,) = parts
        assert part.stop - part.start == 1
        computed[part.entry] += 1
    assert computed == {first: 100, second: 100, short: 2}
    long = [parts[0].entry for parts in taken if parts[0].entry is not short]
    assert long[:5] == [first, second, first, second, first]
    assert queue.rows == 0


def test_a_short_request_passes_long_ones() -> None:
    queue = FairQueue(8)
    for _ in range(3):
        queue.add(entry(1000))
    queue.take()
    short = entry(2)
    queue.add(short)
    parts = queue.take()
    assert parts[0].entry is short
    assert sum(part.stop - part.start for part in parts) == 8


@pytest.mark.parametrize("max_rows", [1, 2, 8, 64])
def test_short_requests_do_not_starve_a_long_one(max_rows: int) -> None:
    queue = FairQueue(max_rows)
    long = entry(4 * max_rows)
    queue.add(long)
    batches = 0
    while long.waiting:
        while queue.rows - long.waiting < 2 * max_rows:
            queue.add(entry(1))
        parts = queue.take()
        batches += 1
        shorts = [part for part in parts if part.entry is not long]
        assert shorts or max_rows < 4
    assert batches <= 4 * 4 + 1  # a quarter of each batch is the long one's


def test_long_requests_take_turns_of_one_batch() -> None:
    queue = FairQueue(8)
    first, second = entry(24), entry(24)
    queue.add(first)
    queue.add(second)
    order = [queue.take()[0].entry for _ in range(6)]
    assert order == [first, second] * 3


def test_a_long_request_within_its_turn_is_not_interrupted() -> None:
    queue = FairQueue(8)
    first, second = entry(7), entry(7)
    queue.add(first)
    queue.add(second)
    assert sizes(queue.take()) == [(0, 7), (0, 1)]
    assert [part.entry for part in queue.take()] == [second]


def test_a_newcomer_knows_what_is_ahead_of_it() -> None:
    queue = FairQueue(8)
    assert queue.ahead_of(1) == queue.ahead_of(100) == 0
    for _ in range(6):
        queue.add(entry(1))
    assert queue.ahead_of(1) == queue.ahead_of(100) == 6
    queue.add(entry(100))
    assert queue.ahead_of(1) == 8  # three quarters of a batch are for the short queue
    assert queue.ahead_of(100) == 106
    queue.take()
    assert (queue.ahead_of(1), queue.ahead_of(100)) == (0, 98)


def test_a_discarded_entry_is_never_taken() -> None:
    queue = FairQueue(4)
    keep, drop, long = entry(1), entry(1), entry(9)
    for one in (keep, drop, long):
        queue.add(one)
    assert queue.discard(drop) == 1
    assert queue.rows == 10
    parts = queue.take()
    assert {part.entry for part in parts} == {keep, long}
    assert queue.discard(long) == 6
    assert queue.discard(long) == 0
    assert queue.rows == 0
    assert queue.take() == []


def test_the_oldest_is_found_in_either_queue() -> None:
    queue = FairQueue(4)
    assert queue.oldest() is None
    queue.add(entry(1, arrived=2.0))
    queue.add(entry(9, arrived=1.0))
    assert queue.oldest() == 1.0


@given(
    max_rows=st.integers(1, 9),
    requests=st.lists(st.integers(1, 40), max_size=30),
    takes=st.lists(st.booleans(), max_size=60),
)
def test_every_row_is_taken_once_in_order(
    max_rows: int, requests: list[int], takes: list[bool]
) -> None:
    queue = FairQueue(max_rows)
    waiting = [entry(rows) for rows in requests]
    entries = list(waiting)
    parts: list[EntrySlice] = []
    # Arrivals and batches interleave in any way; then the rest is worked off.
    for is_take in [*takes, *[False] * len(waiting)]:
        if is_take or not waiting:
            parts += queue.take()
        else:
            queue.add(waiting.pop())
    while batch := queue.take():
        assert 0 < sum(part.stop - part.start for part in batch) <= max_rows
        parts += batch
    assert queue.rows == 0
    for one in entries:
        spans = sizes([part for part in parts if part.entry is one])
        assert [row for start, stop in spans for row in range(start, stop)] == list(
            range(one.total)
        )


@pytest.mark.parametrize("with_context", [False, True])
def test_a_row_is_taken_out_of_a_waiting_entry(with_context: bool) -> None:
    queue = FairQueue(16)
    one = entry(4)
    one.rows = np.arange(4.0)[:, None]
    one.context = 10 + one.rows if with_context else None
    queue.add(one)
    assert queue.drop(one, 1)
    assert queue.rows == 3
    assert one.rows.ravel().tolist() == [0, 2, 3]
    assert one.context is None or one.context.ravel().tolist() == [10, 12, 13]
    assert sizes(queue.take()) == [(0, 3)]
    assert queue.rows == 0


def test_no_row_is_taken_out_of_what_a_batch_has() -> None:
    queue = FairQueue(4)
    filling, begun, long = entry(1), entry(1), entry(9)
    for one in (filling, begun, long):
        queue.add(one)
    queue.take()
    assert not queue.drop(begun, 0)
    assert not queue.drop(long, 8)
    assert (begun.total, long.total, queue.rows) == (1, 9, 7)


def test_no_row_is_taken_out_of_an_entry_that_is_partly_in_a_batch() -> None:
    queue = FairQueue(8)
    entries = [entry(count) for count in (1, 2, 2, 2, 2)]
    for one in entries:
        queue.add(one)
    queue.take()
    last = entries[-1]
    assert (last.taken, queue.rows) == (1, 1)
    assert not queue.drop(last, 1)
    assert (last.total, queue.rows) == (2, 1)
