"""Keys take turns: each has its share, nobody starves, and one key alone notices nothing."""

import asyncio
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.fair_queue import FairQueue
from service.contracts import InferenceResult, QueueShare
from tests.service.batcher.batching import NoOwner
from tests.service.batcher.one_key import OneKeyQueue

LOOP = asyncio.new_event_loop()
LOOP.close()
A, B, C = QueueShare("a"), QueueShare("b"), QueueShare("c")


def entry(rows: int, share: QueueShare | None = None, arrived: float = 0.0) -> QueueEntry:
    sink: asyncio.Future[InferenceResult] = asyncio.Future(loop=LOOP)
    return QueueEntry(
        np.empty((rows, 0)),
        None,
        deadline=9.0,
        arrived=arrived,
        sink=sink,
        owner=NoOwner(),
        share=share,
    )


def filled(max_rows: int, *given: QueueEntry) -> FairQueue:
    queue = FairQueue(max_rows)
    for one in given:
        queue.add(one)
    return queue


def rows_by_key(parts: list[EntrySlice]) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for part in parts:
        assert part.entry.share is not None
        counts[part.entry.share.name] += part.stop - part.start
    return dict(counts)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 40)),
        st.tuples(st.just("take"), st.integers(1, 16)),
        st.tuples(st.just("discard"), st.integers(0, 30)),
        st.tuples(st.just("shrink"), st.integers(1, 16)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("share", [None, A], ids=["no_key", "one_key"])
@settings(max_examples=80, deadline=None)
@given(max_rows=st.integers(1, 16), steps=STEPS)
def test_with_one_key_batches_are_what_they_were(
    share: QueueShare | None, max_rows: int, steps: list[tuple[str, int]]
) -> None:
    queue, former = FairQueue(max_rows), OneKeyQueue(max_rows)
    pairs: list[tuple[QueueEntry, QueueEntry]] = []

    def shown(parts: list[EntrySlice], side: int) -> list[tuple[int, int, int]]:
        index = {id(pair[side]): number for number, pair in enumerate(pairs)}
        return [(index[id(part.entry)], part.start, part.stop) for part in parts]

    for what, number in [*steps, *[("take", 16)] * 40]:
        if what == "add":
            pairs.append((entry(number, share), entry(number, share)))
            queue.add(pairs[-1][0])
            former.add(pairs[-1][1])
        elif what == "take":
            assert shown(queue.take(number), 0) == shown(former.take(number), 1)
        elif what == "discard" and number < len(pairs):
            queue.discard(pairs[number][0])
            former.discard(pairs[number][1])
        elif what == "shrink" and number <= queue.max_rows:
            queue.shrink(number)
            former.shrink(number)
        assert queue.rows == former.rows
        assert queue.ahead_of(99, share) == queue.rows


WEIGHTS = st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=5)
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(weights=WEIGHTS, sizes=SIZES, most=st.integers(1, 64))
def test_keys_that_always_wait_get_their_shares(
    weights: list[float], sizes: list[int], most: int
) -> None:
    shares = [QueueShare(f"k{index}", weight) for index, weight in enumerate(weights)]
    queue = filled(
        *(128,),
        *(
            entry(sizes[(index + number) % len(sizes)], share)
            for index, share in enumerate(shares)
            for number in range(120 // min(sizes))
        ),
    )
    counts = dict.fromkeys((share.name for share in shares), 0)
    largest = max(sizes)
    while True:
        for name, rows in rows_by_key(queue.take(most)).items():
            counts[name] += rows
        served = {share.name: counts[share.name] / share.weight for share in shares}
        # No two are further apart than an entry of each.
        apart = 2 * largest / min(weights)
        assert max(served.values()) - min(served.values()) <= apart
        if max(counts.values()) > 60:
            return


@settings(max_examples=30, deadline=None)
@given(
    backlog=st.lists(st.tuples(st.sampled_from([A, C, None]), st.integers(1, 32)), max_size=60),
    taken=st.integers(0, 100),
)
def test_a_key_that_comes_waits_for_an_entry_of_each_other(
    backlog: list[tuple[QueueShare | None, int]], taken: int
) -> None:
    queue = filled(128, *(entry(rows, share) for share, rows in backlog))
    if taken:
        queue.take(taken)
    mine = entry(1, B)
    before = queue.ahead_of(1, B)
    queue.add(mine)
    waited = 0
    while mine.waiting:
        waited += sum(part.stop - part.start for part in queue.take(1))
    assert waited <= 3 * 32 + 1
    assert before <= 3


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from([A, B, C, None]), st.integers(1, 40), st.integers(0, 20)),
        max_size=60,
    )
)
def test_each_row_is_taken_once_and_short_ones_of_a_key_in_order(
    arrivals: list[tuple[QueueShare | None, int, int]],
) -> None:
    queue = FairQueue(32)
    entries: list[QueueEntry] = []
    parts: list[EntrySlice] = []
    for share, rows, most in arrivals:
        entries.append(entry(rows, share))
        queue.add(entries[-1])
        if most:
            parts += queue.take(most)
    while queue.rows:
        assert queue.oldest() == 0.0
        parts += queue.take()
    assert queue.oldest() is None
    rows = defaultdict(list)
    for part in parts:
        rows[part.entry] += range(part.start, part.stop)
    assert rows == {one: list(range(one.total)) for one in entries}
    for share in (A, B, C, None):
        short = [one for one in entries if one.share == share and one.total <= queue.short_rows]
        seen = [part.entry for part in parts if part.entry in short and part.start == 0]
        assert seen == short


def test_a_flood_does_not_delay_another_key() -> None:
    queue = filled(64, *(entry(1, A) for _ in range(10_000)))
    queue.take()
    mine = entry(1, B)
    queue.add(mine)
    assert queue.take()[0].entry is mine


def test_who_always_comes_back_gets_no_more_than_who_waits() -> None:
    """One large request at a time, asked again as soon as it is taken, beside many of one row."""
    queue = filled(64, *(entry(1, A) for _ in range(3000)))
    counts: defaultdict[str, int] = defaultdict(int)
    again = entry(16, B)
    queue.add(again)
    for _ in range(120):
        for name, rows in rows_by_key(queue.take(8)).items():
            counts[name] += rows
        if not again.waiting:
            again = entry(16, B)
            queue.add(again)
    assert counts["b"] <= counts["a"] + 32


def test_who_comes_anew_has_nothing_to_catch_up_on() -> None:
    queue = filled(64, *(entry(1, A) for _ in range(2000)))
    for _ in range(10):
        queue.take()
    for _ in range(500):
        queue.add(entry(1, B))
    assert rows_by_key(queue.take()) == {"a": 32, "b": 32}


def test_long_requests_of_keys_take_turns() -> None:
    queue = filled(16, entry(1000, A), entry(1000, A), entry(100, B))
    counts = [rows_by_key(queue.take()) for _ in range(12)]
    assert sum(one.get("b", 0) for one in counts) == 6 * 16


def test_a_weight_that_changes_counts_from_the_next_entry_on() -> None:
    queue = filled(64, *(entry(1, A) for _ in range(500)), *(entry(1, B) for _ in range(500)))
    assert rows_by_key(queue.take()) == {"a": 32, "b": 32}
    queue.add(entry(1, QueueShare("b", 3.0)))
    assert rows_by_key(queue.take())["b"] == pytest.approx(48, abs=2)


def test_a_row_that_is_dropped_is_ahead_of_nobody() -> None:
    queue = filled(64, entry(8, A), entry(4, B))
    first = entry(16, A)
    queue.add(first)
    assert queue.drop(first, 3)
    assert queue.ahead_of(1, A) == 8 + 15 + 4
    assert queue.ahead_of(1, B) == 4 + 5
    queue.discard(first)
    assert queue.ahead_of(1, A) == 8 + 4


def test_rows_that_are_ahead_are_those_of_its_share() -> None:
    queue = filled(64, *(entry(1, A) for _ in range(1000)), entry(10, QueueShare("b", 2.0)))
    assert queue.ahead_of(1, A) == 1010
    assert queue.ahead_of(10, QueueShare("b", 2.0)) == 10 + 10
    assert queue.ahead_of(5, C) == 5 + 10
    assert queue.ahead_of(5, None) == 5 + 10
    assert queue.ahead_of(1, QueueShare("d", 4.0)) == 0


@pytest.mark.parametrize(
    ("share", "rows", "fits"),
    [
        (A, 1, False),
        (B, 45, True),
        (B, 46, False),
        (QueueShare("c", 2.0), 50, True),
        (None, 34, False),
    ],
)
def test_one_key_cannot_keep_others_out(share: QueueShare | None, rows: int, fits: bool) -> None:
    queue = filled(16, *(entry(1, A) for _ in range(95)), *(entry(1, B) for _ in range(5)))
    assert queue.fits(rows, 100, share) is fits


def test_a_key_alone_may_fill_the_queue() -> None:
    queue = filled(16, *(entry(1, A) for _ in range(90)))
    assert queue.fits(10, 100, A)
    assert not queue.fits(11, 100, A)
    assert FairQueue(16).fits(100, 100, A)
    assert not FairQueue(16).fits(101, 100, A)
