"""Conformal p-values of scores, and what a false-alarm rate promises.

Reference: Vovk et al. 2005, Algorithmic Learning in a Random World; Angelopoulos and Bates 2021,
appendix C (arXiv 2107.07511) for the law of the rate given the calibration rows; Benjamini and
Hochberg 1995.
"""

import math
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.scoring.errors import TooFewRows

Array: TypeAlias = NDArray[Any]


def p_values(sorted_scores: Array, scores: Array) -> Array:
    """p = (1 + #{s_i >= s}) / (n + 1): how often a row like the calibration rows scores as high.

    Args:
        sorted_scores: (n,), of the calibration rows, ascending, without NaN.
        scores: (B,).

    Returns:
        (B,) float64; NaN where the score is NaN. A score of +inf has 1 / (n + 1), the least, unless
        calibration rows have it too.
    """
    rows = len(sorted_scores)
    below = sorted_scores.searchsorted(scores, side="left")
    p = (rows + 1 - below) / (rows + 1)
    is_nan = np.isnan(scores)
    # NaN is sorted behind everything: it would have the least p.
    if is_nan.any():
        p[is_nan] = np.nan
    return p


def flagged_ranks(rows: int, alpha: float) -> int:
    """k = floor(alpha (n + 1)): p <= alpha for the scores that would be among the k highest.

    Returns:
        The largest k for which k / (n + 1) <= alpha as float64 divides: the product can be off by
        one, 0.29 * 100 is less than 29.

    Raises:
        ValueError: alpha is not in (0, 1).
    """
    check_rate(alpha)
    ranks = math.floor(alpha * (rows + 1))
    if (ranks + 1) / (rows + 1) <= alpha:
        return ranks + 1
    return ranks - 1 if ranks / (rows + 1) > alpha else ranks


def check_rate(alpha: float) -> None:
    """Refuse what is no rate.

    Raises:
        ValueError: it is not in (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha: expected a rate above 0 and below 1, got {alpha}")


def threshold(sorted_scores: Array, alpha: float) -> float:
    """The score for which `score > threshold` says just what `p_value <= alpha` says.

    It is the k-th highest of the calibration rows. A score that ties with it is not above.

    Raises:
        TooFewRows: no score has so small a p-value.
        ValueError: alpha is not in (0, 1).
    """
    return float(sorted_scores[-_ranks(len(sorted_scores), alpha)])


def fpr_upper(rows: int, alpha: float, level: float = 0.95) -> float:
    """What the true false-alarm rate stays below in a share `level` of all calibration sets.

    The rate of a threshold at the k-th highest of n rows has the law Beta(k, n + 1 - k), or less
    where scores tie. It holds for an alpha that was fixed before the rows were seen.

    Raises:
        TooFewRows: no score has so small a p-value.
        ValueError: alpha is not in (0, 1).
    """
    ranks = _ranks(rows, alpha)
    # Not scipy.stats.beta, which is the same function: importing it takes 75 MB of every process.
    from scipy.special import betaincinv

    return float(betaincinv(ranks, rows + 1 - ranks, level))


def least_alpha(rows: int) -> float:
    """1 / (n + 1): the smallest p-value that n calibration rows can give."""
    return 1 / (rows + 1)


def rows_needed(alpha: float) -> int:
    """How many calibration rows a false-alarm rate needs: 999 for 0.001.

    Raises:
        ValueError: alpha is not in (0, 1).
    """
    check_rate(alpha)
    # Exact, since 1 / alpha may round up to a whole number, or overflow. What is then left is that
    # 1 / (n + 1) may round down to alpha, as for 1/3.
    rows = math.ceil(1 / Fraction(alpha)) - 1
    return rows - 1 if 1 / rows <= alpha else rows


def q_values(p: Array) -> Array:
    """The p-values of Benjamini and Hochberg: rows with q <= fdr hold that share of false alarms.

    Args:
        p: (B,); NaN is no row of the family and stays NaN.

    Returns:
        (B,) float64.
    """
    # Not scipy.stats.false_discovery_control, which gives the same: see `fpr_upper`.
    q = np.full(len(p), np.nan)
    counted = np.flatnonzero(~np.isnan(p))
    highest_first = counted[np.argsort(p[counted], kind="stable")[::-1]]
    count = len(counted)
    raised = p[highest_first] * (count / np.arange(count, 0, -1))
    q[highest_first] = np.minimum.accumulate(raised)
    return q


def _ranks(rows: int, alpha: float) -> int:
    ranks = flagged_ranks(rows, alpha)
    if ranks < 1:
        raise TooFewRows(rows, alpha, rows_needed(alpha))
    return ranks
