"""Which features make a row unlikely: each one replaced, the others as they are.

    row ──candidates──> a row for each feature and value of the grid ──flow──> their log p
        <── explain <── per feature: the best of them, and what it gains

Exact: no sampling, no surrogate. A feature's nats are what log p gains where that feature alone
takes the best value of the grid, or keeps its own; so they are never negative.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

GRID_SIZE = 16


class Reason(NamedTuple):
    """What one feature of a row has to do with its log p.

    feature: its index. value: of the row. expected: the best value of the grid, or its own where
    none is better. nats: log p with that value less log p of the row; inf where the row has no
    density and the other has.
    """

    feature: int
    value: float
    expected: float
    nats: float


def quantile_grid(rows: Array) -> Array:
    """Values to try in the place of each feature: quantiles of the rows, denser at the ends.

    Levels lie as the nodes of Chebyshev: tails, where neighbouring quantiles are far apart, get
    more of them than the middle. Each value occurs in the rows, so discrete columns stay so.

    Args:
        rows: (n, D), finite.

    Returns:
        (16, D) float64.
    """
    levels = (1 - np.cos(np.pi * (np.arange(GRID_SIZE) + 0.5) / GRID_SIZE)) / 2
    return np.quantile(np.asarray(rows, np.float64), levels, axis=0, method="inverted_cdf")


def candidate_count(rows: int, features: int, grid_size: int = GRID_SIZE) -> int:
    """How many rows `candidates` makes of `rows` rows."""
    return rows * features * grid_size


def candidates(rows: Array, grid: Array) -> Array:
    """Replace each feature of each row by each value of the grid.

    Args:
        rows: (F, D).
        grid: (G, D).

    Returns:
        (F * D * G, D) in the dtype of the rows: row by row, of one row feature by feature.
    """
    count, features = rows.shape
    made = np.repeat(rows, features * len(grid), axis=0).reshape(count, features, -1, features)
    each = np.arange(features)
    # Advanced indices apart come first: (D, F, G).
    made[:, each, :, each] = grid.T[:, None, :]
    return made.reshape(-1, features)


def explain(
    rows: Array, log_prob: Array, candidate_log_prob: Array, grid: Array, most: int
) -> list[list[Reason]]:
    """Read off which features make rows unlikely.

    Args:
        rows: (F, D).
        log_prob: (F,) of them.
        candidate_log_prob: (F * D * G,) of `candidates(rows, grid)`. NaN is passed over.
        grid: (G, D).
        most: how many features of a row are named.

    Returns:
        For each row its reasons, largest nats first; of equal ones the lower index first.
    """
    best, chosen = _best(rows, candidate_log_prob, grid)
    tried = grid.astype(rows.dtype)
    actual = np.asarray(log_prob, np.float64)[:, None]
    is_better = best > actual
    best = np.where(is_better, best, -np.inf)
    # By what is reached: where the row has no density all gains are infinite.
    order = (-best).argsort(axis=1, kind="stable")[:, :most]
    return [
        [
            Reason(
                feature,
                _plain(row[feature]),
                _plain(tried[where[feature], feature] if better[feature] else row[feature]),
                float(reached[feature] - own) if better[feature] else 0.0,
            )
            for feature in first.tolist()
        ]
        for row, own, reached, where, better, first in zip(
            rows, actual[:, 0], best, chosen, is_better, order, strict=True
        )
    ]


def _best(rows: Array, log_prob: Array, grid: Array) -> tuple[Array, Array]:
    """For each feature of each row the highest log p of its candidates, and which one has it."""
    log_p = np.asarray(log_prob, np.float64).reshape(*rows.shape, len(grid))
    # A value that the row has already gains nothing, whatever another batch rounds to.
    is_other = grid.T.astype(rows.dtype) != rows[:, :, None]
    log_p = np.where(is_other & ~np.isnan(log_p), log_p, -np.inf)
    chosen = log_p.argmax(2)
    return np.take_along_axis(log_p, chosen[:, :, None], 2)[:, :, 0], chosen


def _plain(value: Any) -> float:
    """A number as its shortest decimals read, as clients sent it: 0.31, not 0.3100000024."""
    return float(str(value))
