"""What a batch costs, as a line learned from batches."""

import pytest

from service.batcher.cost import CostEstimator


def learned(*batches: tuple[int, float]) -> CostEstimator:
    cost = CostEstimator(64)
    for rows, seconds in batches:
        cost.observe(rows, seconds)
    return cost


WARM_UP = ((32, 1.0 + 32 * 0.1), (1, 1.0 + 0.1), (64, 1.0 + 64 * 0.1))


def test_before_the_first_batch_nothing_is_known() -> None:
    assert CostEstimator(64).seconds(10) == 0.0


def test_one_batch_is_all_rows() -> None:
    assert learned((32, 3.2)).seconds(10) == pytest.approx(1.0)


def test_the_warm_up_gives_the_line() -> None:
    cost = learned(*WARM_UP)
    assert cost.cost_of(1) == pytest.approx((1.0, 0.1), rel=0.05)


def test_a_line_stays_where_all_batches_are_of_one_size() -> None:
    cost = learned(*WARM_UP, *[(16, 1.0 + 1.6)] * 200)
    assert cost.seconds(16) == pytest.approx(2.6, rel=0.01)
    assert cost.seconds(64) == pytest.approx(7.4, rel=0.1)


def test_an_engine_that_slows_down_is_believed_in_time() -> None:
    cost = learned(*WARM_UP, *[(16, 2 * 2.6)] * 60)
    assert cost.seconds(16) == pytest.approx(5.2, rel=0.02)


def test_a_pause_of_the_machine_is_not_believed_at_once() -> None:
    cost = learned(*WARM_UP, *[(16, 2.6)] * 20, (16, 1000.0))
    assert cost.seconds(16) < 2.6 * 1.5


def test_rows_of_several_batches_pay_for_each() -> None:
    cost = learned(*WARM_UP)
    fixed, per_row = cost.cost_of(640)
    assert fixed + 640 * per_row == pytest.approx(10 * cost.seconds(64), rel=0.01)


def test_a_batch_that_took_no_time_is_ignored() -> None:
    assert learned((10, 0.0), (0, 1.0)).seconds(10) == 0.0


def test_nothing_is_predicted_below_zero() -> None:
    cost = learned((1, 5.0), (64, 1.0), (32, 2.0))
    assert min(cost.seconds(rows) for rows in (1, 32, 64)) >= 0.0


def test_a_machine_that_slows_down_slows_full_batches_down_too() -> None:
    cost = learned(*WARM_UP, *[(8, 2 * 1.8)] * 60)
    assert cost.seconds(8) == pytest.approx(3.6, rel=0.02)
    assert cost.seconds(64) == pytest.approx(2 * 7.4, rel=0.25)
