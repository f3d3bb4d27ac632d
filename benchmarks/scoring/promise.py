"""The promise: false alarms of p <= alpha over random splits, against the law they should have.

A split draws n calibration rows and m test rows from rows that were scored once. How many of the m
are flagged follows from the ranks of these n + m scores alone, and a random split makes every order
of calibration and test rows among them equally likely, whatever the scores, as long as none tie. So
*given the pool*, the counts of the splits are independent draws of just Beta-binomial(m, k, n+1-k):
that splits share rows does not make their counts dependent, and the tests below are exact in that
respect. What they test is that thresholds, ties and p-values are right, and that rows held out are
as good as new ones: calibration rows that the flow was trained on are not, as the last rows show.
Ties make flags rarer, never more frequent.
"""

from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.scoring.conformal import flagged_ranks, p_values

Array: TypeAlias = NDArray[Any]

SPLITS = 300
# Of a chi-square test, the least expected count of a bin.
LEAST_EXPECTED = 8


class Promise(TypedDict):
    """False alarms of many splits against their law.

    expected_rate is k / (n + 1); standard_errors: how far the mean rate lies from it, in standard
    errors of the law; below_quantile: the share of splits at or below the law's 95 % quantile;
    chi_square_p: of the counts against the law.
    """

    table: str
    calibrated_on: str
    alpha: float
    calibration_rows: int
    test_rows: int
    expected_rate: float
    mean_rate: float
    standard_errors: float
    below_quantile: float
    chi_square_p: float
    holds: bool


def check_promise(
    table: str, pool: Array, alpha: float, sizes: tuple[int, int], training: Array | None = None
) -> Promise:
    """Count false alarms over random splits.

    Args:
        table: its name.
        pool: scores of rows that were held out.
        alpha: the rate.
        sizes: n calibration rows and m test rows of a split.
        training: scores of training rows, to calibrate on in the place of the pool's.
    """
    rows, tested = sizes
    counts = _count(pool, alpha, sizes, training)
    ranks = flagged_ranks(rows, alpha)
    law = stats.betabinom(tested, ranks, rows + 1 - ranks)
    expected = ranks / (rows + 1)
    errors = float((counts.mean() - tested * expected) / (law.std() / np.sqrt(len(counts))))
    below = float((counts <= law.ppf(0.95)).mean())
    chi_square_p = _chi_square(counts, law)
    return Promise(
        table=table,
        calibrated_on="held-out rows" if training is None else "training rows",
        alpha=alpha,
        calibration_rows=rows,
        test_rows=tested,
        expected_rate=expected,
        mean_rate=float(counts.mean() / tested),
        standard_errors=errors,
        below_quantile=below,
        chi_square_p=chi_square_p,
        holds=abs(errors) <= 3 and below >= 0.91 and chi_square_p >= 0.001,
    )


def _count(pool: Array, alpha: float, sizes: tuple[int, int], training: Array | None) -> Array:
    rows, tested = sizes
    random = np.random.default_rng(0)
    counts = np.empty(SPLITS, int)
    for split in range(SPLITS):
        order = random.permutation(len(pool))
        test = pool[order[:tested]]
        drawn = pool[order[tested : tested + rows]]
        if training is not None:
            drawn = random.choice(training, rows, replace=False)
        counts[split] = (p_values(np.sort(drawn), test) <= alpha).sum()
    return counts


def _chi_square(counts: Array, law: Any) -> float:
    """The p-value of Pearson's test, in bins that are expected to hold some counts each."""
    values = np.arange(law.support()[1] + 1)
    expected = law.pmf(values) * len(counts)
    observed = np.bincount(counts, minlength=len(values))
    ends = _bin_ends(expected)
    grouped = [np.add.reduceat(what, ends) for what in (observed, expected)]
    return float(stats.chisquare(grouped[0], grouped[1] * len(counts) / grouped[1].sum()).pvalue)


def _bin_ends(expected: Array) -> list[int]:
    """Where bins begin: each but the last is closed once enough is expected in it and beyond."""
    begins, held, beyond = [0], 0.0, float(expected.sum())
    for value, one in enumerate(expected):
        held, beyond = held + one, beyond - one
        if held >= LEAST_EXPECTED and beyond >= LEAST_EXPECTED:
            begins.append(value + 1)
            held = 0.0
    return begins
