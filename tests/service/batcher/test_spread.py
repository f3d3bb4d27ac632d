"""When one more instance starts, and on how many rows: only where all are done earlier."""

import math

import pytest

from service.batcher.spread import (
    HAND_OVER_SECONDS,
    MIN_GAIN_SECONDS,
    BatchCost,
    predicted_finish,
    rows_to_start,
)

ROW = BatchCost(50e-6, 3.5e-6)  # a small RealNVP
IMAGE = BatchCost(0.8e-3, 2.6e-3)  # a Glow of 3 x 32 x 32


def test_one_instance_takes_what_waits() -> None:
    assert predicted_finish(1000, ROW, [0.0]) == pytest.approx(50e-6 + 3.5e-3)
    assert rows_to_start(1000, ROW, busy=(), free=1) == 1000


def test_without_instances_nothing_ends() -> None:
    assert predicted_finish(1, ROW, []) == math.inf


@pytest.mark.parametrize("rows", [1, 16, 64, 256])
@pytest.mark.parametrize("free", [2, 4, 64])
def test_tiny_batches_are_not_torn_apart(rows: int, free: int) -> None:
    assert rows_to_start(rows, ROW, busy=(), free=free) == rows
    running = ROW.fixed + ROW.per_row * rows
    for left in (0.0, running / 2, running):
        assert rows_to_start(rows, ROW, busy=[left], free=1, own=HAND_OVER_SECONDS) == 0


def test_two_share_a_large_request_so_that_both_end_together() -> None:
    first = rows_to_start(1000, ROW, busy=(), free=2)
    other = ROW.fixed + ROW.per_row * (1000 - first) + HAND_OVER_SECONDS
    assert 500 < first < 1000
    assert other == pytest.approx(ROW.fixed + ROW.per_row * first, abs=2 * ROW.per_row)


def test_all_share_ten_thousand_rows() -> None:
    left, busy = 10_000, list[float]()
    for awake in range(4):
        own = HAND_OVER_SECONDS if awake else 0.0
        share = rows_to_start(left, ROW, busy, free=4 - awake, own=own)
        assert 2400 < share < 2600
        busy.append(own + ROW.fixed + ROW.per_row * share)
        left -= share
    assert left == 0
    assert max(busy) - min(busy) < 2 * HAND_OVER_SECONDS


def test_what_computes_helps_as_soon_as_it_is_free() -> None:
    # 16 images, and another instance that computes for 21 ms more: as long as 8 of them take.
    assert rows_to_start(16, IMAGE, busy=[8 * IMAGE.per_row], free=1) == 12
    # For 16 of them it would compute until all are done.
    assert rows_to_start(16, IMAGE, busy=[16 * IMAGE.per_row + 1e-3], free=1) == 16


def test_one_that_is_soon_free_takes_the_rest_itself() -> None:
    soon = MIN_GAIN_SECONDS / 3
    assert rows_to_start(1, ROW, busy=[soon], free=1, own=HAND_OVER_SECONDS) == 0
    assert rows_to_start(1, ROW, busy=[2e-3], free=1, own=HAND_OVER_SECONDS) == 1


def test_an_instance_starts_exactly_where_it_brings_the_finish_forward() -> None:
    for rows in range(1, 64):
        for left in (0.0, 1e-3, 5e-3, 50e-3):
            without = predicted_finish(rows, IMAGE, [left])
            with_one = predicted_finish(rows, IMAGE, sorted([left, HAND_OVER_SECONDS]))
            share = rows_to_start(rows, IMAGE, busy=[left], free=1, own=HAND_OVER_SECONDS)
            assert (share > 0) == (without - with_one >= MIN_GAIN_SECONDS)
            assert share <= rows


def test_rows_that_cost_nothing_each_stay_together() -> None:
    padded = BatchCost(0.1, 0.0)
    assert rows_to_start(20, padded, busy=(), free=2) == 20
    assert rows_to_start(20, padded, busy=[0.05], free=1) == 20


def test_an_engine_nobody_knows_is_helped_when_it_takes_long() -> None:
    unknown = BatchCost(0.0, 0.0)
    assert rows_to_start(5, unknown, busy=(), free=2) == 5
    assert rows_to_start(5, unknown, busy=[0.0], free=1, own=HAND_OVER_SECONDS) == 0
    assert rows_to_start(5, unknown, busy=[0.01], free=1, own=HAND_OVER_SECONDS) == 5
