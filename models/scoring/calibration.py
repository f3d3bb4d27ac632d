"""A calibration: the scores of held-out rows, and all that an answer says of them."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.scoring import conformal
from models.scoring.errors import CalibrationError, TooFewRows
from models.scoring.explain import quantile_grid
from models.scoring.histogram import histogram, quantiles
from models.scoring.statistics import Evidence, parse_statistic

Array: TypeAlias = NDArray[Any]

DIRECTION = "higher_is_more_anomalous"
# The rates that `facts` states a threshold for.
STATED_ALPHAS = (0.05, 0.01, 0.001)
# As many as the least of them needs: a class with fewer is calibrated with all others.
CLASS_ROWS = 999
# Answers in memory, a calibration: requests may ask for any alpha.
_MAX_DESCRIPTIONS = 256


@dataclass(frozen=True, eq=False)
class Calibration:
    """The calibration of a model.

    statistic: as it was asked for, `ratio:NAME` with the name. parameters: of the statistic.
    weights: SHA-256 of the model's weights file; background: of that of the ratio's other model.
    dtype: what the scores were computed in, float32 or float64. scores: (n,) float64, ascending.
    class_scores: those of each class that has enough of them. grid: (16, D), quantiles of every
    feature in the units of the data, for events of one axis. dataset: what the rows are.
    created: ISO 8601, UTC. report: `probes`, `anomalies`, `warnings` and what else was found.
    id: the first 12 hex digits of a SHA-256 over all that a score, a p-value, or an explanation
    follows from; not over `created` and `report`.
    """

    statistic: str
    parameters: Mapping[str, Array]
    weights: str
    dtype: str
    scores: Array
    dataset: str
    created: str
    background: str | None = None
    class_scores: Mapping[int, Array] = field(default_factory=dict)
    grid: Array | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(init=False)
    _descriptions: dict[Any, dict[str, Any]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self._identity())

    @property
    def rows(self) -> int:
        """How many calibration rows there are, n."""
        return len(self.scores)

    def scores_of(self, label: int | None = None) -> Array:
        """The sorted scores that decide for a class: its own where there are, else all."""
        return self.scores if label is None else self.class_scores.get(label, self.scores)

    def p_values(self, scores: Array, labels: Array | None = None) -> Array:
        """The p-values of rows, see `models.scoring.conformal.p_values`.

        Args:
            scores: (B,).
            labels: (B,), the class of each row; left out, or of a class without scores of its own,
                all calibration rows decide.
        """
        if labels is None or not self.class_scores:
            return conformal.p_values(self.scores, scores)
        p = np.empty(len(scores))
        classes = np.asarray(labels)
        for label in np.unique(classes):
            chosen = classes == label
            p[chosen] = conformal.p_values(self.scores_of(int(label)), scores[chosen])
        return p

    def least_alpha(self, labels: Array | None = None) -> float:
        """The least false-alarm rate that can be promised to rows, those of `labels` if given."""
        if labels is None or not self.class_scores:
            return conformal.least_alpha(self.rows)
        classes = np.unique(np.asarray(labels))
        return max(conformal.least_alpha(len(self.scores_of(int(label)))) for label in classes)

    def describe(self, alpha: float | None = None, label: int | None = None) -> dict[str, Any]:
        """The member `calibration` of an answer; remembered, so that asking again costs nothing.

        Args:
            alpha: the false-alarm rate that decides, if one does.
            label: the class of the rows, where they have one class.

        Returns:
            A dict of its own for every caller. threshold, fpr_upper95: null without alpha.
            class: where scores of this class alone decide, and `rows` counts them. classes: the
            same facts of each class, where there are classes and no label is given.

        Raises:
            TooFewRows: for alpha.
            ValueError: alpha is not in (0, 1).
        """
        return self._remembered((alpha, label), lambda: self._describe(alpha, label))

    def facts(self) -> dict[str, Any]:
        """What `GET /models/NAME`, `inspect` and the model card say of it.

        Returns:
            As `describe`, with `thresholds`: for each of `STATED_ALPHAS` alpha, threshold and
            fpr_upper95, or nulls and why (`reason`); `probes`, `anomalies` and `warnings` of the
            report. Remembered as `describe` is.
        """
        return self._remembered("facts", self._facts)

    def distribution(self, label: int | None = None) -> dict[str, Any]:
        """The scores that decide for a class in short, or all: remembered as `describe` is.

        Returns:
            histogram, quantiles: as `models.scoring.histogram` makes them.
        """
        scores = self.scores_of(label)
        return self._remembered(
            ("distribution", label),
            lambda: {"histogram": histogram(scores), "quantiles": quantiles(scores)},
        )

    def _remembered(self, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        found = self._descriptions.get(key)
        if found is None:
            found = make()
            if len(self._descriptions) >= _MAX_DESCRIPTIONS:
                self._descriptions.clear()
            self._descriptions[key] = found
        return dict(found)

    def _facts(self) -> dict[str, Any]:
        return {
            **self._describe(None, None),
            "dtype": self.dtype,
            "thresholds": [_stated(self.scores, alpha) for alpha in STATED_ALPHAS],
            "probes": self.report.get("probes", []),
            "anomalies": self.report.get("anomalies"),
            "warnings": self.report.get("warnings", []),
        }

    def _describe(self, alpha: float | None, label: int | None) -> dict[str, Any]:
        scores = self.scores_of(label)
        description: dict[str, Any] = {
            "id": self.id,
            "rows": len(scores),
            "statistic": self.statistic,
            "direction": DIRECTION,
            **_promise(scores, alpha),
            "dataset": self.dataset,
            "created": self.created,
        }
        if label is not None and label in self.class_scores:
            description["class"] = int(label)
        elif self.class_scores and label is None:
            description["classes"] = {
                str(name): {"rows": len(own), **_promise_if_any(own, alpha)}
                for name, own in self.class_scores.items()
            }
        return description

    def _identity(self) -> str:
        named = [self.statistic, self.weights, self.background, self.dtype, self.dataset]
        content = hashlib.sha256(json.dumps(named).encode())
        for name, array in sorted(arrays_of(self).items()):
            content.update(f"{name} {array.dtype.str} {array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()[:12]


def arrays_of(calibration: Calibration) -> dict[str, Array]:
    """The arrays of a calibration by the names that they are stored under."""
    grid = {} if calibration.grid is None else {"grid": calibration.grid}
    return {
        "scores": calibration.scores,
        **grid,
        **{f"class.{label}": scores for label, scores in calibration.class_scores.items()},
        **{f"parameter.{name}": value for name, value in calibration.parameters.items()},
    }


def calibrate(
    evidence: Evidence,
    *,
    statistic: str,
    weights: str,
    dtype: str,
    dataset: str,
    labels: Array | None = None,
    background: str | None = None,
    created: str | None = None,
    report: Mapping[str, Any] | None = None,
    class_rows: int = CLASS_ROWS,
) -> Calibration:
    """Calibrate a model on rows that it was not trained on.

    Args:
        evidence: of those rows, computed as they will be when served.
        statistic: a key of `models.scoring.statistics.STATISTICS`, or ratio:NAME.
        weights: SHA-256 of the model's weights file.
        dtype: what the model computes in.
        dataset: what the rows are, in words or as a dataset's name.
        labels: (n,), the class of each row.
        background: SHA-256 of the weights of the ratio's other model.
        created: ISO 8601; left out, now.
        report: what was found beside.
        class_rows: how many rows a class needs for scores of its own.

    Raises:
        CalibrationError: there are no rows, or rows without a score.
        StatisticError: there is no such statistic, or it cannot score this model's rows.
    """
    kind, _ = parse_statistic(statistic)
    _check(evidence.log_prob)
    parameters = kind.fit(evidence)
    scores = kind.score(evidence, parameters)
    _check(scores)
    return Calibration(
        statistic=statistic,
        parameters=parameters,
        weights=weights,
        dtype=dtype,
        scores=np.sort(scores),
        dataset=dataset,
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        background=background,
        class_scores={} if labels is None else _by_class(scores, np.asarray(labels), class_rows),
        grid=_grid(evidence.x),
        report=dict(report or {}),
    )


def _check(scores: Array) -> None:
    values = np.asarray(scores)
    if not np.isfinite(values).any():
        raise CalibrationError(
            f"calibration: expected rows that the model gives a finite score, got none of "
            f"{len(values)}"
        )
    missing = int(np.isnan(values).sum())
    if missing:
        raise CalibrationError(
            f"calibration: {missing} of {len(values)} rows have no score (NaN); leaving them out "
            "would break the promised rate: repair the rows or the model"
        )


def _by_class(scores: Array, labels: Array, class_rows: int) -> dict[int, Array]:
    counted = zip(*np.unique(labels, return_counts=True), strict=True)
    return {
        int(label): np.sort(scores[labels == label])
        for label, rows in counted
        if rows >= class_rows
    }


def _grid(x: Array) -> Array | None:
    rows = np.asarray(x)
    # A row outside the support may hold infinities, which no quantile may be.
    return quantile_grid(rows[np.isfinite(rows).all(1)]) if rows.ndim == 2 else None


def _promise(scores: Array, alpha: float | None) -> dict[str, Any]:
    rows = len(scores)
    return {
        "threshold": None if alpha is None else _finite(conformal.threshold(scores, alpha)),
        "p_floor": conformal.least_alpha(rows),
        "fpr_upper95": None if alpha is None else conformal.fpr_upper(rows, alpha),
    }


def _promise_if_any(scores: Array, alpha: float | None) -> dict[str, Any]:
    try:
        return _promise(scores, alpha)
    except TooFewRows:
        return _promise(scores, None)


def _stated(scores: Array, alpha: float) -> dict[str, Any]:
    try:
        promise = _promise(scores, alpha)
    except TooFewRows as error:
        return {
            "alpha": alpha,
            "threshold": None,
            "fpr_upper95": None,
            "reason": f"needs {error.needed} rows",
        }
    return {
        "alpha": alpha,
        "threshold": promise["threshold"],
        "fpr_upper95": promise["fpr_upper95"],
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity: calibration rows outside the support can leave no threshold."""
    return value if math.isfinite(value) else None
