"""Explanations of rows whose cause is known: one feature has another row's value.

The exact replacement of `models.scoring.explain` beside two baselines that anybody could write:

- permutation, at the same cost: each feature takes the values of 16 other calibration rows; the one
  that gains most log p on average is named, and the mean of these values is what it expects;
- z-score: the feature farthest from its mean in standard deviations is named, the mean expected.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from benchmarks.scoring.flows import TrainedFlow, read_rows
from benchmarks.scoring.measures import halves
from models.scoring.calibration import calibrate
from models.scoring.conformal import p_values
from models.scoring.explain import GRID_SIZE, candidates, explain

Array: TypeAlias = NDArray[Any]

ALPHA = 0.01
MOST_ROWS = 1_000


class Blame(NamedTuple):
    """Which feature of each row is named first, and what is expected in its place.

    feature: (F,). expected: (F, D), of every feature.
    """

    feature: Array
    expected: Array


class Explained(TypedDict):
    """How often an explanation is right on flagged rows.

    named_first: the replaced feature. nearer: what is expected of the replaced feature lies nearer
    to its true value than the value that replaced it. newly_flagged: rows that were not flagged as
    they were, and the same two figures over them.
    """

    table: str
    method: str
    flagged: int
    named_first: float
    nearer: float
    newly_flagged: int
    named_first_of_new: float
    nearer_of_new: float


def explain_table(name: str) -> list[Explained]:
    """Measure every method on a table."""
    flow = TrainedFlow(name)
    normal = read_rows(name, "normal.csv")
    first, second = halves(len(normal))
    calibration, rows = normal[first], normal[second]
    random = np.random.default_rng(0)
    feature = random.integers(rows.shape[1], size=len(rows))
    each = np.arange(len(rows))
    changed = rows.copy()
    changed[each, feature] = rows[random.permutation(len(rows)), feature]
    scores = np.sort(-flow.log_prob(calibration))
    p = p_values(scores, -flow.log_prob(changed))
    flagged = np.flatnonzero((p <= ALPHA) & (changed[each, feature] != rows[each, feature]))
    flagged = flagged[:MOST_ROWS]
    is_new = p_values(scores, -flow.log_prob(rows[flagged])) > ALPHA
    truth = rows[flagged, feature[flagged]]
    wrong = changed[flagged, feature[flagged]]
    found = []
    for method, blame in METHODS.items():
        said = blame(flow, changed[flagged], calibration)
        named = said.feature == feature[flagged]
        expected = said.expected[np.arange(len(flagged)), feature[flagged]]
        nearer = np.abs(expected - truth) < np.abs(wrong - truth)
        found.append(
            Explained(
                table=name,
                method=method,
                flagged=len(flagged),
                named_first=float(named.mean()),
                nearer=float(nearer.mean()),
                newly_flagged=int(is_new.sum()),
                named_first_of_new=float(named[is_new].mean()),
                nearer_of_new=float(nearer[is_new].mean()),
            )
        )
    return found


def _replacement(flow: TrainedFlow, rows: Array, calibration: Array) -> Blame:
    made = calibrate(
        flow.evidence(calibration), statistic="neg_log_prob", weights="", dtype="", dataset=""
    )
    grid = made.grid
    assert grid is not None
    log_prob = flow.log_prob(candidates(rows, grid))
    reasons = explain(rows, flow.log_prob(rows), log_prob, grid, rows.shape[1])
    expected = np.empty_like(rows)
    for row, said in enumerate(reasons):
        for reason in said:
            expected[row, reason.feature] = reason.expected
    return Blame(np.array([said[0].feature for said in reasons]), expected)


def _permutation(flow: TrainedFlow, rows: Array, calibration: Array) -> Blame:
    random = np.random.default_rng(1)
    drawn = calibration[random.choice(len(calibration), GRID_SIZE, replace=False)]
    log_prob = flow.log_prob(candidates(rows, drawn)).reshape(*rows.shape, GRID_SIZE)
    expected = np.broadcast_to(drawn.mean(0), rows.shape)
    return Blame(log_prob.mean(2).argmax(1), expected)


def _z_score(flow: TrainedFlow, rows: Array, calibration: Array) -> Blame:
    mean, std = calibration.mean(0), calibration.std(0)
    return Blame((np.abs(rows - mean) / std).argmax(1), np.broadcast_to(mean, rows.shape))


METHODS: dict[str, Callable[[TrainedFlow, Array, Array], Blame]] = {
    "replacement (/score)": _replacement,
    "permutation": _permutation,
    "z-score": _z_score,
}
