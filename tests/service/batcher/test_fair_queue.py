"""The order of rows: full batches, first come first served, and nobody starved."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.fair_queue import FairQueue
from service.contracts import InferenceResult


def ticket(rows: int, arrived: float = 0.0) -> QueueEntry:
    slot: asyncio.Future[InferenceResult] = asyncio.Future(loop=LOOP)
    return QueueEntry(np.zeros((rows, 1)), None, deadline=9.0, arrived=arrived, slot=slot)


LOOP = asyncio.new_event_loop()
LOOP.close()


def sizes(pieces: list[EntrySlice]) -> list[tuple[int, int]]:
    return [(piece.start, piece.stop) for piece in pieces]


def test_a_batch_is_filled_in_order_of_arrival() -> None:
    lanes = FairQueue(4)
    tickets = [ticket(1) for _ in range(6)]
    for one in tickets:
        lanes.add(one)
    assert [piece.ticket for piece in lanes.take()] == tickets[:4]
    assert [piece.ticket for piece in lanes.take()] == tickets[4:]
    assert lanes.take() == []
    assert lanes.rows == 0


def test_a_large_request_is_cut_into_batches() -> None:
    lanes = FairQueue(4)
    lanes.add(ticket(10))
    assert [sizes(lanes.take()) for _ in range(3)] == [[(0, 4)], [(4, 8)], [(8, 10)]]


def test_a_short_request_passes_long_ones() -> None:
    lanes = FairQueue(8)
    for _ in range(3):
        lanes.add(ticket(1000))
    lanes.take()
    short = ticket(2)
    lanes.add(short)
    pieces = lanes.take()
    assert pieces[0].ticket is short
    assert sum(piece.stop - piece.start for piece in pieces) == 8


@pytest.mark.parametrize("max_rows", [1, 2, 8, 64])
def test_short_requests_do_not_starve_a_long_one(max_rows: int) -> None:
    lanes = FairQueue(max_rows)
    long = ticket(4 * max_rows)
    lanes.add(long)
    batches = 0
    while long.waiting:
        while lanes.rows - long.waiting < 2 * max_rows:
            lanes.add(ticket(1))
        pieces = lanes.take()
        batches += 1
        shorts = [piece for piece in pieces if piece.ticket is not long]
        assert shorts or max_rows < 4
    assert batches <= 4 * 4 + 1  # a quarter of each batch is the long one's


def test_long_requests_take_turns_of_one_batch() -> None:
    lanes = FairQueue(8)
    first, second = ticket(24), ticket(24)
    lanes.add(first)
    lanes.add(second)
    order = [lanes.take()[0].ticket for _ in range(6)]
    assert order == [first, second] * 3


def test_a_long_request_within_its_turn_is_not_interrupted() -> None:
    lanes = FairQueue(8)
    first, second = ticket(7), ticket(7)
    lanes.add(first)
    lanes.add(second)
    assert sizes(lanes.take()) == [(0, 7), (0, 1)]
    assert [piece.ticket for piece in lanes.take()] == [second]


def test_a_newcomer_knows_what_is_ahead_of_it() -> None:
    lanes = FairQueue(8)
    assert lanes.ahead_of(1) == lanes.ahead_of(100) == 0
    for _ in range(6):
        lanes.add(ticket(1))
    assert lanes.ahead_of(1) == lanes.ahead_of(100) == 6
    lanes.add(ticket(100))
    assert lanes.ahead_of(1) == 8  # three quarters of a batch are for the short lane
    assert lanes.ahead_of(100) == 106
    lanes.take()
    assert (lanes.ahead_of(1), lanes.ahead_of(100)) == (0, 98)


def test_a_discarded_ticket_is_never_taken() -> None:
    lanes = FairQueue(4)
    keep, drop, long = ticket(1), ticket(1), ticket(9)
    for one in (keep, drop, long):
        lanes.add(one)
    assert lanes.discard(drop) == 1
    assert lanes.rows == 10
    pieces = lanes.take()
    assert {piece.ticket for piece in pieces} == {keep, long}
    assert lanes.discard(long) == 6
    assert lanes.discard(long) == 0
    assert lanes.rows == 0
    assert lanes.take() == []


def test_the_oldest_is_found_in_either_lane() -> None:
    lanes = FairQueue(4)
    assert lanes.oldest() is None
    lanes.add(ticket(1, arrived=2.0))
    lanes.add(ticket(9, arrived=1.0))
    assert lanes.oldest() == 1.0


@given(
    max_rows=st.integers(1, 9),
    requests=st.lists(st.integers(1, 40), max_size=30),
    takes=st.lists(st.booleans(), max_size=60),
)
def test_every_row_is_taken_once_in_order(
    max_rows: int, requests: list[int], takes: list[bool]
) -> None:
    lanes = FairQueue(max_rows)
    waiting = [ticket(rows) for rows in requests]
    tickets = list(waiting)
    pieces: list[EntrySlice] = []
    # Arrivals and batches interleave in any way; then the rest is worked off.
    for is_take in [*takes, *[False] * len(waiting)]:
        if is_take or not waiting:
            pieces += lanes.take()
        else:
            lanes.add(waiting.pop())
    while batch := lanes.take():
        assert 0 < sum(piece.stop - piece.start for piece in batch) <= max_rows
        pieces += batch
    assert lanes.rows == 0
    for one in tickets:
        spans = sizes([piece for piece in pieces if piece.ticket is one])
        assert [row for start, stop in spans for row in range(start, stop)] == list(
            range(one.total)
        )


@pytest.mark.parametrize("with_context", [False, True])
def test_a_row_is_taken_out_of_a_waiting_ticket(with_context: bool) -> None:
    lanes = FairQueue(16)
    one = ticket(4)
    one.rows = np.arange(4.0)[:, None]
    one.context = 10 + one.rows if with_context else None
    lanes.add(one)
    assert lanes.drop(one, 1)
    assert lanes.rows == 3
    assert one.rows.ravel().tolist() == [0, 2, 3]
    assert one.context is None or one.context.ravel().tolist() == [10, 12, 13]
    assert sizes(lanes.take()) == [(0, 3)]
    assert lanes.rows == 0


def test_no_row_is_taken_out_of_what_a_batch_has() -> None:
    lanes = FairQueue(4)
    filling, begun, long = ticket(1), ticket(1), ticket(9)
    for one in (filling, begun, long):
        lanes.add(one)
    lanes.take()
    assert not lanes.drop(begun, 0)
    assert not lanes.drop(long, 8)
    assert (begun.total, long.total, lanes.rows) == (1, 9, 7)
