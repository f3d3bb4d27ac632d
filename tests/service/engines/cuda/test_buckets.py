"""The batch sizes that are captured, as a function of what batches take."""

import pytest

from service.engines.cuda.buckets import candidate_sizes, choose_sizes, size_for


def test_candidates_are_powers_of_two_and_the_largest_batch() -> None:
    assert candidate_sizes(1) == [1]
    assert candidate_sizes(8) == [8, 4, 2, 1]
    assert candidate_sizes(100) == [100, 64, 32, 16, 8, 4, 2, 1]


def linear(fixed: float, per_row: float, max_rows: int) -> dict[int, float]:
    return {size: fixed + per_row * size for size in candidate_sizes(max_rows)}


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        # A small flow: 64 rows cost what one does; two sizes more at equal ratios of cost.
        (linear(100.0, 0.1, 8192), (64, 1024, 4096, 8192)),
        # An image flow: each row counts from the start.
        (linear(1.0, 0.5, 256), (1, 8, 64, 256)),
        # Nothing lies between that would save a third.
        (linear(10.0, 0.1, 64), (8, 64)),
        # All cost the same.
        (linear(1.0, 0.0, 1024), (1024,)),
        # One row alone.
        ({1: 1.0}, (1,)),
        # A tenth more is allowed, more is not; four rows would cost four times as much on eight.
        ({1: 10.0, 2: 11.0, 4: 11.1, 8: 40.0}, (2, 4, 8)),
        # Noise: a larger batch that was faster.
        ({1: 1.0, 2: 1.3, 4: 1.05, 8: 3.0}, (4, 8)),
        ({1: 1.0, 2: 1.0, 4: 1.2, 8: 0.9}, (8,)),
    ],
)
def test_the_smallest_size_costs_no_more_than_a_row(
    seconds: dict[int, float], wanted: tuple[int, ...]
) -> None:
    assert choose_sizes(seconds) == wanted


@pytest.mark.parametrize(("rows", "size"), [(1, 4), (4, 4), (5, 64), (64, 64), (65, None)])
def test_a_batch_takes_the_smallest_size_that_holds_it(rows: int, size: int | None) -> None:
    assert size_for(rows, (4, 64)) == size
