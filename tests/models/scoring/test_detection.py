"""AUROC, average precision and TPR against scikit-learn; how often the interval covers."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from models.scoring.conformal import p_values
from models.scoring.detection import auroc, auroc_interval, average_precision, tpr_at
from models.scoring.errors import TooFewRows


def _pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores of both kinds, with ties in half of the cases."""
    sizes = rng.integers(1, 50, size=2)
    normal, anomalous = rng.normal(size=sizes[0]), rng.normal(loc=rng.normal(), size=sizes[1])
    return (normal.round(), anomalous.round()) if rng.random() < 0.5 else (normal, anomalous)


def test_measures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        normal, anomalous = _pair(rng)
        is_anomalous = np.repeat([0, 1], [len(normal), len(anomalous)])
        scores = np.concatenate([normal, anomalous])
        assert auroc(normal, anomalous) == pytest.approx(roc_auc_score(is_anomalous, scores))
        expected = average_precision_score(is_anomalous, scores)
        assert average_precision(normal, anomalous) == pytest.approx(expected)


def test_infinite_scores_are_the_highest() -> None:
    normal, anomalous = np.float64([1, 2, np.inf]), np.float64([3, np.inf])
    assert auroc(normal, anomalous) == pytest.approx((2 + 2.5) / 6)


def test_tpr_at_a_rate_is_of_the_rows_that_would_be_flagged() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        calibration, anomalous = rng.integers(0, 20, 60) / 2, rng.integers(5, 25, 30) / 2
        flagged = p_values(np.sort(calibration), anomalous) <= 0.05
        assert tpr_at(calibration, anomalous, 0.05) == flagged.mean()
    with pytest.raises(TooFewRows, match="needs 999"):
        tpr_at(calibration, anomalous, 0.001)


@pytest.mark.parametrize(("normal", "anomalous"), [(1000, 40), (60, 60), (20, 500)])
@pytest.mark.parametrize("shift", [-1.5, 0.0, 0.7, 2.5])
def test_the_interval_covers(normal: int, anomalous: int, shift: float) -> None:
    rng = np.random.default_rng(2)
    truth = norm.cdf(shift / np.sqrt(2))
    covered = []
    for _ in range(200):
        low, high = auroc_interval(rng.normal(size=normal), rng.normal(loc=shift, size=anomalous))
        covered.append(low <= truth <= high)
    # 0.95 less three standard errors of 200 trials.
    assert np.mean(covered) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)


def test_the_interval_has_a_width_at_the_ends() -> None:
    """Three blank images that all score lowest do not prove that every one does."""
    low, high = auroc_interval(np.arange(10.0, 30.0), np.zeros(3))
    assert low == 0
    assert 0.1 < high < 1
    assert auroc_interval(np.zeros(20), np.ones(3)) == pytest.approx((1 - high, 1))
    assert auroc_interval(np.zeros(1), np.ones(1)) == pytest.approx((0.2, 1), abs=0.1)


@pytest.mark.parametrize(
    ("normal", "anomalous", "side"),
    [([], [1.0], "normal"), ([1.0], [], "anomalous"), ([np.nan], [1.0], "normal")],
)
def test_scores_that_are_none(normal: list[float], anomalous: list[float], side: str) -> None:
    for measure in (auroc, auroc_interval, average_precision):
        with pytest.raises(ValueError, match=f"{side}: expected scores without NaN"):
            measure(np.float64(normal), np.float64(anomalous))
