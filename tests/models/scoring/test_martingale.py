"""Online p-values and their martingale, against crepes and scipy, and what they promise."""

import math
from typing import Any

import numpy as np
import pytest
from crepes.martingales import EpsilonBettingFunction, SimpleJumper, semi_online_p_values
from numpy.typing import NDArray
from scipy import stats

from models.scoring import martingale
from models.scoring.martingale import OnlineMartingale, OnlinePValues

Array = NDArray[np.float64]
LIMIT = -math.log(martingale.DELTA)


def _same_numbers(seed: int, skipped: int) -> Any:
    """Give what draws the numbers that crepes draws with this seed, after so many of them."""
    numbers = np.random.RandomState(seed)
    numbers.random(skipped)
    return numbers


def _stream(generator: np.random.Generator, rows: int) -> Array:
    return generator.normal(size=rows)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(20)


def test_p_values_and_martingale_are_those_of_crepes(generator: np.random.Generator) -> None:
    jumper = SimpleJumper(J=martingale.JUMP_RATE, bf=EpsilonBettingFunction([-1, 0, 1]))
    for case in range(1000):
        n, rows = generator.integers(1, 16, 2)
        # Half of them with many ties; some outside of every support.
        scores = np.round(_stream(generator, n + rows), 0 if case % 2 else 8)
        scores[generator.random(n + rows) < 0.02] = np.inf
        calibration = np.sort(scores[:n])
        ours = OnlinePValues(calibration, _same_numbers(case, n)).draw(scores[n:])
        theirs = semi_online_p_values(scores, seed=case)[n:]
        np.testing.assert_array_equal(ours, theirs)
        values = martingale.SimpleJumper().advance(ours)
        np.testing.assert_allclose(values, np.log(jumper.apply(theirs)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_long_streams_are_those_of_crepes(generator: np.random.Generator, decimals: int) -> None:
    scores = np.round(_stream(generator, 1400), decimals)
    ours = OnlinePValues(np.sort(scores[:300]), _same_numbers(7, 300)).draw(scores[300:])
    np.testing.assert_array_equal(ours, semi_online_p_values(scores, seed=7)[300:])


def test_many_calibration_rows_are_counted_as_few_are(generator: np.random.Generator) -> None:
    """They are kept apart from the rows that come."""
    scores = np.round(_stream(generator, 21_400), 3)
    ours = OnlinePValues(np.sort(scores[:21_000]), generator).draw(scores[21_000:])
    for t in range(21_000, 21_400, 13):
        greater = (scores[:t] > scores[t]).sum()
        equal = (scores[: t + 1] == scores[t]).sum()
        assert greater <= ours[t - 21_000] * (t + 1) < greater + equal


def test_rows_in_many_calls_are_the_rows_in_one(generator: np.random.Generator) -> None:
    calibration = np.sort(np.round(_stream(generator, 200), 1))
    stream = np.round(_stream(generator, 1500), 1)
    together, apart = (
        OnlinePValues(calibration, np.random.default_rng(3)) for _ in ("together", "apart")
    )
    cuts = [1, 2, 3, 67, 68, 500, 1012]
    values = np.concatenate([apart.draw(part) for part in np.split(stream, cuts)])
    np.testing.assert_array_equal(values, together.draw(stream))

    whole, split = martingale.SimpleJumper(), martingale.SimpleJumper()
    parts = np.concatenate([split.advance(part) for part in np.split(values, cuts)])
    np.testing.assert_allclose(parts, whole.advance(values), rtol=0, atol=1e-11)

    one, many = (OnlineMartingale(calibration, 400, seed=5) for _ in ("one", "many"))
    one.update(stream)
    for part in np.split(stream, cuts):
        many.update(part)
    assert many.log_value == pytest.approx(one.log_value, abs=1e-11)
    assert many.log_max == pytest.approx(one.log_max, abs=1e-11)
    assert (many.windows, many.crossings) == (one.windows, one.crossings)


@pytest.mark.parametrize("decimals", [0, 12])
def test_p_values_are_uniform_and_independent(
    generator: np.random.Generator, decimals: int
) -> None:
    """Also against few calibration rows, where those against them alone are not."""
    scores = np.round(_stream(generator, 8020), decimals)
    p_values = OnlinePValues(np.sort(scores[:20]), generator).draw(scores[20:])
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert abs(stats.spearmanr(p_values[1:], p_values[:-1]).statistic) < 3 / math.sqrt(8000)


def test_each_window_begins_anew_with_the_calibration_rows_alone(
    generator: np.random.Generator,
) -> None:
    calibration = np.sort(_stream(generator, 300))
    test = OnlineMartingale(calibration, 500)
    shifted = _stream(generator, 500) + 2
    test.update(shifted)
    assert (test.windows, test.crossings) == (1, 1)
    assert test.log_value > LIMIT
    peak = test.log_max
    test.update(_stream(generator, 1))
    assert abs(test.log_value) < math.log(1.5)
    # A reader that comes once a window misses no crossing.
    test.update(_stream(generator, 499))
    assert test.log_max == peak
    test.update(_stream(generator, 1))
    assert test.log_max < LIMIT
    # Had the rows of the first window stayed, they would hide the same shift.
    test.update(np.concatenate([_stream(generator, 499), shifted]))
    assert (test.windows, test.crossings) == (4, 2)


def test_a_crossing_is_counted_once_a_window(generator: np.random.Generator) -> None:
    test = OnlineMartingale(np.sort(_stream(generator, 300)), 1000)
    for row in _stream(generator, 600) + 1.5:
        test.update(np.array([row]))
    assert test.crossings == 1


def test_drift_is_found_and_no_drift_is_not(generator: np.random.Generator) -> None:
    calibration = np.sort(_stream(generator, 1000))
    test = OnlineMartingale(calibration)
    test.update(_stream(generator, 2000))
    assert test.log_max < LIMIT
    for towards in (0.5, -0.5):
        test = OnlineMartingale(calibration)
        test.update(_stream(generator, 300) + towards)
        assert test.log_value > LIMIT


def test_ville_holds_with_few_calibration_rows(generator: np.random.Generator) -> None:
    """1/20 is exceeded in at most 5 % of the windows and three standard errors."""
    windows = 300
    crossed = 0
    for _ in range(windows):
        test = OnlineMartingale(np.sort(_stream(generator, 50)), 500)
        test.update(_stream(generator, 500))
        crossed += test.log_max > math.log(20)
    assert crossed / windows < 0.05 + 3 * math.sqrt(0.05 * 0.95 / windows)


def test_the_calibration_is_not_written_to(generator: np.random.Generator) -> None:
    calibration = np.sort(_stream(generator, 300))
    calibration.setflags(write=False)
    OnlineMartingale(calibration, 100).update(_stream(generator, 250))


def test_no_rows_change_nothing() -> None:
    test = OnlineMartingale(np.arange(5.0))
    test.update(np.empty(0))
    assert (test.log_value, test.log_max, test.windows) == (0, 0, 0)
    assert len(OnlinePValues(np.arange(5.0), np.random.default_rng()).draw(np.empty(0))) == 0
    assert len(martingale.SimpleJumper().advance(np.empty(0))) == 0


def test_a_window_has_rows() -> None:
    with pytest.raises(ValueError, match="window of at least 1 row, got 0"):
        OnlineMartingale(np.arange(5.0), 0)
