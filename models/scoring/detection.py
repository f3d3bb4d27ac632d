"""How well scores tell anomalous rows from normal ones: AUROC, average precision, TPR at a rate."""

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.scoring.conformal import threshold

Array: TypeAlias = NDArray[Any]

# Of the normal distribution, two-sided 95 %.
_QUANTILE_95 = 1.959963984540054
# Halvings of an interval in [0, 1]: float64 has no more.
_BISECTIONS = 60


def auroc(normal: Array, anomalous: Array) -> float:
    """The probability that an anomalous row scores higher than a normal one; a tie counts half.

    Raises:
        ValueError: one side is empty or holds NaN.
    """
    below, ties = _compare(normal, anomalous)
    return float((below + ties / 2).sum() / (len(normal) * len(anomalous)))


def auroc_interval(normal: Array, anomalous: Array) -> tuple[float, float]:
    """A 95 % interval of the AUROC: Hanley and McNeil's variance, as a score interval.

    The bounds are the values that lie 1.96 of *their own* standard deviations from the estimate.
    Unlike estimate ± 1.96 deviations (DeLong's too) it keeps a width at 0 and 1, and on few rows.

    Reference: Hanley and McNeil 1982; Newcombe 2006, part 2, method 5.

    Raises:
        ValueError: one side is empty or holds NaN.
    """
    estimate = auroc(normal, anomalous)
    sizes = len(normal), len(anomalous)
    return _bound(estimate, 0.0, sizes), _bound(estimate, 1.0, sizes)


def average_precision(normal: Array, anomalous: Array) -> float:
    """The mean precision at the anomalous rows, highest score first; ties are one step.

    Raises:
        ValueError: one side is empty or holds NaN.
    """
    _check(normal, anomalous)
    values = np.unique(anomalous)[::-1]
    found = _at_least(anomalous, values)
    precision = found / (found + _at_least(normal, values))
    return float((np.diff(found, prepend=0) * precision).sum() / len(anomalous))


def tpr_at(calibration: Array, anomalous: Array, alpha: float) -> float:
    """The share of anomalous rows that is flagged at a false-alarm rate.

    Args:
        calibration: scores of the calibration rows; they set the threshold.
        anomalous: scores.
        alpha: the rate.

    Raises:
        TooFewRows: calibration rows for this alpha.
        ValueError: one side is empty or holds NaN, or alpha is not in (0, 1).
    """
    _check(calibration, anomalous)
    return float((anomalous > threshold(np.sort(calibration), alpha)).mean())


def _check(normal: Array, anomalous: Array) -> None:
    for name, scores in (("normal", normal), ("anomalous", anomalous)):
        if not len(scores) or np.isnan(scores).any():
            raise ValueError(f"{name}: expected scores without NaN, at least one")


def _compare(normal: Array, anomalous: Array) -> tuple[Array, Array]:
    """How many normal rows score lower than each anomalous row, and how many tie with it."""
    _check(normal, anomalous)
    ordered = np.sort(normal)
    below = ordered.searchsorted(anomalous, side="left")
    return below, ordered.searchsorted(anomalous, side="right") - below


def _at_least(scores: Array, values: Array) -> Array:
    return len(scores) - np.sort(scores).searchsorted(values, side="left")


def _bound(estimate: float, end: float, sizes: tuple[int, int]) -> float:
    """The farthest value toward an end that the estimate does not speak against."""
    inside, outside = estimate, end
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if abs(middle - estimate) <= _QUANTILE_95 * _deviation(middle, sizes):
            inside = middle
        else:
            outside = middle
    return inside


def _deviation(area: float, sizes: tuple[int, int]) -> float:
    rows = sum(sizes) / 2 - 1
    spread = 1 + rows * (1 - area) / (2 - area) + rows * area / (1 + area)
    return math.sqrt(area * (1 - area) * spread / math.prod(sizes))
