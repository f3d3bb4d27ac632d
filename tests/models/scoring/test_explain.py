"""Explanations: exact, of one row alone, in the units of the caller."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.scoring.explain import (
    GRID_SIZE,
    Reason,
    candidate_count,
    candidates,
    explain,
    quantile_grid,
)

Array = NDArray[Any]
RNG = np.random.default_rng(0)
MEAN, STD = np.array([3.0, -100.0, 0.25]), np.array([2.0, 10.0, 0.01])
GRID = quantile_grid(MEAN + STD * RNG.standard_normal((1000, 3)))


def log_normal(rows: Array) -> Array:
    """log p of independent normal features."""
    standardised = (rows - MEAN) / STD
    log_p: Array = -0.5 * (standardised**2).sum(1) - np.log(STD * math.sqrt(2 * math.pi)).sum()
    return log_p


def explained(
    rows: Array,
    most: int = 3,
    grid: Array = GRID,
    log_prob: Callable[[Array], Array] = log_normal,
) -> list[list[Reason]]:
    """Ask a density about rows and their candidates."""
    return explain(rows, log_prob(rows), log_prob(candidates(rows, grid)), grid, most)


def test_grid_holds_values_that_occur_and_reaches_into_the_tails() -> None:
    rows = np.column_stack([RNG.integers(0, 4, 999), RNG.standard_normal(999)]).astype(float)
    grid = quantile_grid(rows)
    assert grid.shape == (GRID_SIZE, 2)
    assert np.isin(grid[:, 0], [0, 1, 2, 3]).all()
    assert np.isin(grid[:, 1], rows[:, 1]).all()
    assert (np.diff(grid, axis=0) >= 0).all()
    outside = (rows[:, 1] < grid[0, 1]).mean() + (rows[:, 1] > grid[-1, 1]).mean()
    assert outside < 0.006


def test_candidates_replace_one_feature_each() -> None:
    rows = RNG.standard_normal((4, 3)).astype(np.float32)
    made = candidates(rows, GRID)
    assert made.dtype == np.float32
    assert len(made) == candidate_count(4, 3) == 4 * 3 * 16
    made = made.reshape(4, 3, GRID_SIZE, 3)
    for row, feature, level in np.ndindex(4, 3, GRID_SIZE):
        expected = rows[row].copy()
        expected[feature] = GRID[level, feature]
        np.testing.assert_array_equal(made[row, feature, level], expected)


def test_independent_normal_features_have_the_answer_in_closed_form() -> None:
    rows = MEAN + STD * np.array([[6.0, 0.5, -4.0], [0.0, -5.0, 0.01]])
    for row, reasons in zip(rows, explained(rows), strict=True):
        gains = {}
        for feature in range(3):
            apart = np.abs(GRID[:, feature] - MEAN[feature])
            nearest = GRID[apart.argmin(), feature]
            gain = 0.5 * (
                ((row[feature] - MEAN[feature]) / STD[feature]) ** 2
                - ((nearest - MEAN[feature]) / STD[feature]) ** 2
            )
            gains[feature] = (nearest, gain) if gain > 0 else (row[feature], 0.0)
        assert [reason.nats for reason in reasons] == sorted(
            (reason.nats for reason in reasons), reverse=True
        )
        for reason in reasons:
            expected, gain = gains[reason.feature]
            assert reason.value == row[reason.feature]
            assert reason.expected == expected
            assert reason.nats == pytest.approx(gain, abs=1e-9)
    assert explained(rows)[0][0].feature == 0
    assert explained(rows)[1][0].feature == 1


def test_nats_are_never_negative_and_the_best_row_keeps_its_values() -> None:
    rows = MEAN[None]
    for reason in explained(rows)[0]:
        assert reason.nats >= 0
        assert reason.expected == reason.value or reason.nats > 0
    worse = explained(rows, log_prob=lambda x: -np.abs(x - MEAN).sum(1))[0]
    assert [(reason.feature, reason.nats) for reason in worse] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert [reason.expected for reason in worse] == MEAN.tolist()


def test_a_value_of_the_grid_gains_nothing_by_rounding() -> None:
    row = GRID[3][None]
    actual = log_normal(row)
    rounded = explain(row, actual, np.full(3 * GRID_SIZE, actual[0] - 1.0), GRID, 3)
    assert all(reason.nats == 0 for reason in rounded[0])
    of_itself = np.full((3, GRID_SIZE), -np.inf)
    of_itself[:, 3] = actual[0] + 1e-6
    assert all(reason.nats == 0 for reason in explain(row, actual, of_itself.ravel(), GRID, 3)[0])


def test_rows_without_density_are_explained_by_what_brings_them_in() -> None:
    def bounded(x: Array) -> Array:
        return np.where((x[:, 1] > 0) | (x[:, 1] < -150), -np.inf, log_normal(x))

    rows = MEAN + np.array([[0.0, 500.0, 0.0]])
    first, *others = explained(rows, log_prob=bounded)[0]
    assert first.feature == 1
    assert first.nats == math.inf
    assert first.expected < 0
    assert [(reason.nats, reason.expected == reason.value) for reason in others] == [
        (0.0, True)
    ] * 2


def test_of_infinite_gains_the_one_that_reaches_most_comes_first() -> None:
    row = np.array([[100.0, -1000.0, 1.0]])
    log_p = np.full((3, GRID_SIZE), -np.inf)
    log_p[0, 4], log_p[2, 9] = -20.0, -10.0
    reasons = explain(row, np.array([-np.inf]), log_p.ravel(), GRID, 3)[0]
    assert [(reason.feature, reason.nats) for reason in reasons] == [
        (2, math.inf),
        (0, math.inf),
        (1, 0.0),
    ]


def test_candidates_without_numbers_are_passed_over() -> None:
    row = np.array([[30.0, -100.0, 0.25]])
    log_p = np.full((3, GRID_SIZE), np.nan)
    log_p[0, 7] = -5.0
    log_p[1] = -np.inf
    reasons = explain(row, np.array([-50.0]), log_p.ravel(), GRID, 3)[0]
    assert reasons[0] == (0, 30.0, GRID[7, 0], 45.0)
    assert [reason.nats for reason in reasons[1:]] == [0.0, 0.0]


def test_of_equal_nats_the_lower_index_comes_first_and_most_cuts() -> None:
    grid = np.zeros((GRID_SIZE, 4))
    rows = np.full((1, 4), 2.0)
    reasons = explained(rows, 2, grid, lambda x: -np.abs(x).sum(1))
    assert [reason.feature for reason in reasons[0]] == [0, 1]


def test_a_row_is_explained_alike_alone_and_among_others() -> None:
    rows = MEAN + STD * 3 * RNG.standard_normal((20, 3))
    together = explained(rows)
    for index, row in enumerate(rows):
        assert explained(row[None])[0] == together[index]


def test_values_are_those_of_the_caller() -> None:
    rows = np.array([[0.31, -70.7, 0.1]], np.float32)
    grid = np.repeat(np.float64(np.float32([[3.3, -99.9, 0.25]])), GRID_SIZE, axis=0)
    reasons = explained(rows, grid=grid)[0]
    assert {reason.value for reason in reasons} == {0.31, -70.7, 0.1}
    assert {reason.expected for reason in reasons} == {3.3, -99.9, 0.25}


def test_discrete_columns_expect_values_that_occur() -> None:
    grid = quantile_grid(RNG.integers(0, 6, (2000, 2)) * 2.0)
    rows = np.array([[40.0, 4.0]])
    first = explained(rows, 1, grid, lambda x: -((x - 5.0) ** 2).sum(1))[0][0]
    assert first.feature == 0
    assert first.expected in (4.0, 6.0)


def test_no_row_has_no_reasons() -> None:
    rows = np.empty((0, 3))
    assert explain(rows, np.empty(0), np.empty(0), GRID, 2) == []
