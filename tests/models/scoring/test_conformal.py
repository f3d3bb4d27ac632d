"""p-values, thresholds and bounds, against crepes, scipy and counting by hand."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
from crepes.base import p_values_batch
from scipy import stats

from models.scoring.conformal import (
    flagged_ranks,
    fpr_upper,
    least_alpha,
    p_values,
    q_values,
    rows_needed,
    threshold,
)
from models.scoring.errors import TooFewRows

CASES = 1000
# Whole numbers make ties; some alphas are k / (n + 1) up to the last bit.
ALPHAS = (0.5, 1 / 3, 0.29, 0.1, 0.07, 0.05, 0.01, 0.001)


def _scores(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Continuous ones, tied ones, or all the same."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.normal(size=rows)
    return rng.integers(0, 8 if kind == 1 else 1, size=rows) / 4


def test_p_values_are_those_of_crepes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(CASES):
        calibration = _scores(rng, int(rng.integers(1, 60)))
        # Half of the rows tie with calibration rows.
        scores = np.concatenate([_scores(rng, 4), rng.choice(calibration, 4)])
        expected = p_values_batch(calibration, scores, smoothing=False)
        assert (p_values(np.sort(calibration), scores) == expected).all()


def test_a_tie_never_makes_a_p_value_smaller() -> None:
    """It counts all calibration rows that score as high: p is no smaller than any smoothed one."""
    rng = np.random.default_rng(1)
    for _ in range(CASES):
        calibration = rng.integers(0, 5, size=int(rng.integers(1, 40))) / 2
        scores = rng.integers(0, 5, size=6) / 2
        p = p_values(np.sort(calibration), scores)
        by_hand = [
            (1 + sum(s >= score for s in calibration)) / (len(calibration) + 1) for score in scores
        ]
        assert p.tolist() == by_hand
        smoothed = p_values_batch(calibration, scores, smoothing=True, seed=int(rng.integers(99)))
        assert (p >= smoothed).all()


def test_p_values_of_what_is_no_number() -> None:
    p = p_values(np.float64([1, 2, 3]), np.float64([np.inf, -np.inf, np.nan, 2]))
    assert p[[0, 1, 3]].tolist() == [1 / 4, 1, 3 / 4]
    assert math.isnan(p[2])
    # Calibration rows outside the support are rows like any other: the promise counts them.
    assert p_values(np.float64([1, np.inf]), np.float64([np.inf])).tolist() == [2 / 3]


def test_above_the_threshold_is_p_at_most_alpha() -> None:
    rng = np.random.default_rng(2)
    for _ in range(CASES):
        calibration = np.sort(_scores(rng, int(rng.integers(1, 60))))
        scores = np.concatenate([_scores(rng, 4), rng.choice(calibration, 4), [np.inf, -np.inf]])
        rows = len(calibration)
        exact = rng.integers(1, rows + 1) / (rows + 1)
        for alpha in (
            exact,
            float(rng.uniform(least_alpha(rows), 0.999)),
            math.nextafter(exact, 1),
        ):
            flagged = p_values(calibration, scores) <= alpha
            assert (flagged == (scores > threshold(calibration, alpha))).all()


def test_every_rank_is_its_own() -> None:
    """k / (n + 1) as a float is asked for and k ranks are flagged, however the product rounds."""
    for rows in (1, 2, 9, 98, 99, 100, 999):
        for rank in range(1, rows + 1):
            alpha = rank / (rows + 1)
            assert flagged_ranks(rows, alpha) == rank
            assert flagged_ranks(rows, math.nextafter(alpha, 0)) == rank - 1


@pytest.mark.parametrize(("rows", "bound"), [(1000, 0.0157), (5000, 0.0124), (10_000, 0.0117)])
def test_the_bound_is_that_of_the_beta_law(rows: int, bound: float) -> None:
    assert round(fpr_upper(rows, 0.01), 4) == bound
    ranks = math.floor(0.01 * (rows + 1))
    for level in (0.5, 0.95, 0.99):
        expected = stats.beta(ranks, rows + 1 - ranks).ppf(level)
        assert fpr_upper(rows, 0.01, level) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("alpha", "rows"),
    [(0.001, 999), (0.01, 99), (0.05, 19), (0.1, 9), (1 / 3, 2), (1 / 49, 48), (0.3, 3), (0.9, 1)],
)
def test_rows_needed(alpha: float, rows: int) -> None:
    assert rows_needed(alpha) == rows


def test_rows_needed_is_the_least() -> None:
    for rows in range(2, 3000):
        alpha = 1 / (rows + 1)
        assert rows_needed(alpha) == rows
        assert rows_needed(math.nextafter(alpha, 0)) == rows + 1


def test_rows_needed_of_the_smallest_rate() -> None:
    tiny = math.ulp(0.0)
    assert abs(rows_needed(tiny) - 1 / Fraction(tiny)) <= 2
    assert rows_needed(sys.float_info.min) > 10**300


@pytest.mark.parametrize("alpha", [0.001, math.nextafter(0.01, 0)])
def test_too_few_rows_names_what_is_needed(alpha: float) -> None:
    scores = np.arange(99.0)
    for call in (lambda: threshold(scores, alpha), lambda: fpr_upper(99, alpha)):
        with pytest.raises(TooFewRows, match=r"rows, got 99; .*least alpha is 0\.01$") as e:
            call()
        assert (e.value.rows, e.value.needed) == (99, rows_needed(alpha))
        assert e.value.least_alpha == least_alpha(99) == 0.01


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_no_rate(alpha: float) -> None:
    calls = (lambda: threshold(np.arange(9.0), alpha), lambda: rows_needed(alpha))
    for call in (*calls, lambda: fpr_upper(9, alpha)):
        with pytest.raises(ValueError, match="alpha: expected a rate above 0 and below 1"):
            call()


def test_q_values_are_those_of_scipy() -> None:
    rng = np.random.default_rng(3)
    for _ in range(CASES):
        count = int(rng.integers(1, 40))
        rows = int(rng.integers(3, 30))
        p = rng.integers(1, rows + 1, size=count) / rows  # ties
        expected = stats.false_discovery_control(p)
        assert q_values(p) == pytest.approx(expected, rel=1e-14)
        mixed = np.full(count + 5, np.nan)
        places = np.sort(rng.choice(count + 5, count, replace=False))
        mixed[places] = p
        q = q_values(mixed)
        assert (q[places] == q_values(p)).all()
        assert np.isnan(np.delete(q, places)).all()


def test_q_values_of_no_rows() -> None:
    assert q_values(np.empty(0)).shape == (0,)
    assert np.isnan(q_values(np.float64([np.nan]))).all()
