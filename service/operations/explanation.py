"""What explains the rows that were flagged: the field `explain`, and the rows that it costs.

Each feature of a flagged row is replaced by each of 16 quantiles of the calibration rows, and log p
of these rows is asked of the same queue; see `models.scoring.explain`.
"""

import json
import math
from typing import Any, NamedTuple

import numpy as np

from models.scoring.calibration import Calibration
from models.scoring.explain import Reason, candidate_count, candidates, explain
from service.codec.image import is_picture
from service.codec.media import NPY, NPZ
from service.codec.parameters import read_integer
from service.codec.tensors import Array
from service.contracts import ModelCard
from service.errors import InvalidParameter, NotCalibrated, TooLarge
from service.operations.fields import Field, Output
from service.operations.log_prob import log_density
from service.operations.model_input import FollowUp, ModelInput
from service.operations.response import Scalars, Tensors

_NAME = "explanation"
_AT = "/explain"

EXPLAIN = Field(
    "explain",
    {
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}],
        "default": None,
        "description": "How many features to name that explain a row, of tables: of each flagged "
        "row, or of all rows where nothing decides. Each such row costs 16 rows a feature of the "
        "model.",
    },
    lambda value: value,
)

_REASON = {
    "type": "object",
    "properties": {
        "feature": {"type": "string", "description": "Its name, or its index as text."},
        "value": {"type": "number", "description": "Of the row."},
        "expected": {
            "type": "number",
            "description": "The value that makes the row most likely with all others as they are, "
            "of 16 quantiles of the calibration rows and its own.",
        },
        "nats": {
            "type": ["number", "null"],
            "description": "What log_prob gains by it; null where it is infinite.",
        },
    },
}
OUTPUTS = (
    Output(
        _NAME,
        {
            "type": "array",
            "items": {"anyOf": [{"type": "array", "items": _REASON}, {"type": "null"}]},
            "description": "With explain: the features of each flagged row, largest nats first; "
            "null of other rows.",
        },
        is_always=False,
    ),
    Output(
        "explained_nats",
        {
            "type": "array",
            "items": {"type": ["number", "null"]},
            "description": "With explain: the sum of these nats, a row each.",
        },
        is_always=False,
    ),
)


class ExplainLimits(NamedTuple):
    """What bounds explanations: the rows of one request, and whether some rows will be flagged."""

    max_request_rows: int
    decides: bool


def read_explain(
    fields: dict[str, Any], card: ModelCard, given: ModelInput, media: str, limits: ExplainLimits
) -> int:
    """Read how many features are to be named; 0 where none are.

    Raises:
        InvalidParameter: rows have no features, or the answer has no place for them.
        OutOfRange: rows have fewer features, or none is asked for.
        NotCalibrated: nothing is known that features could be replaced by.
        TooLarge: of rows all of which are explained, saying how many fit.
    """
    value = EXPLAIN.value(fields)
    if value is None:
        return 0
    if len(card.event_shape) != 1:
        raise InvalidParameter(_no_features(card), at=_AT)
    most = read_integer(value, EXPLAIN.name, 1, card.features)
    if card.calibration is None or card.calibration.grid is None:
        raise NotCalibrated(
            f"explain: model {card.name} has no calibration, by whose quantiles features are "
            f"replaced; run `pushforward calibrate {card.name} --data HELD-OUT` with rows that it "
            "never saw",
            at=_AT,
        )
    if media == NPY:
        raise InvalidParameter(
            "explain: an answer as npy is one array; ask for application/json or application/x-npz",
            at=_AT,
        )
    _check_rows(1 if limits.decides else len(given.rows), card, limits.max_request_rows)
    return most


def ask_candidates(
    card: ModelCard, given: ModelInput, outputs: Tensors, max_rows: int
) -> FollowUp | None:
    """Ask for log p of the rows that flagged ones might have been; None where no row is flagged.

    Args:
        card: of the model.
        given: the request.
        outputs: its scores, and what was decided.
        max_rows: of a request.

    Raises:
        TooLarge: saying how many rows fit.
    """
    chosen = _chosen(given, outputs)
    if _NAME in given.followed or not len(chosen):
        return None
    _check_rows(len(chosen), card, max_rows)
    grid = _grid(card.calibration)
    context = None
    if given.context is not None:
        context = np.repeat(given.context[chosen], candidate_count(1, card.features), axis=0)
    return FollowUp(_NAME, given.queue, candidates(given.rows[chosen], grid), context)


def add_explanation(
    card: ModelCard, given: ModelInput, outputs: Tensors, scalars: Scalars, media: str
) -> None:
    """Add to the scalars of an answer what explains its rows.

    JSON has them as lists; npz as one JSON text and an array.
    """
    rows: list[list[dict[str, Any]] | None] = [None] * given.total
    sums = np.full(given.total, np.nan)
    found = given.followed.get(_NAME)
    if found is not None:
        chosen = _chosen(given, outputs)
        kept = np.arange(given.total) if given.rejected is None else given.rejected.kept
        log_prob = outputs["log_prob"][kept[chosen]]
        tried = log_density(found.value, found.log_det)
        reasons = explain(
            given.rows[chosen], log_prob, tried, _grid(card.calibration), given.explain
        )
        for row, named in zip(kept[chosen].tolist(), reasons, strict=True):
            rows[row] = [_as_json(reason, card) for reason in named]
            sums[row] = sum(reason.nats for reason in named)
    if media == NPZ:
        scalars |= {_NAME: json.dumps(rows, separators=(",", ":")), "explained_nats": sums}
    else:
        scalars |= {_NAME: rows, "explained_nats": list(map(_finite, sums.tolist()))}


def _chosen(given: ModelInput, outputs: Tensors) -> Array:
    """Which of the rows that were computed are explained."""
    flagged = outputs.get("is_anomaly")
    if flagged is None:
        flagged = ~np.isnan(outputs["log_prob"])
    if given.rejected is not None:
        flagged = flagged[given.rejected.kept]
    return np.flatnonzero(flagged)


def _check_rows(count: int, card: ModelCard, max_rows: int) -> None:
    each = candidate_count(1, card.features)
    if count * each <= max_rows:
        return
    fitting = max_rows // each
    mend = f"{fitting} of them fit: send fewer, or leave explain out"
    if not fitting:
        mend = "not one fits: leave explain out, or serve with a larger max_request_rows"
    raise TooLarge(
        f"explain: {count} rows of {card.features} features take {count * each} rows to explain, "
        f"expected at most {max_rows}; {mend}"
    )


def _no_features(card: ModelCard) -> str:
    if is_picture(card.event_shape, card.num_levels):
        return (
            f"explain: the rows of {card.name} are pictures, which a heat map explains: leave "
            "explain out and send Accept: image/png"
        )
    return (
        f"explain: the rows of {card.name} have shape {card.event_shape}; features of tables "
        "are explained, leave it out"
    )


def _grid(calibration: Calibration | None) -> Array:
    assert calibration is not None
    assert calibration.grid is not None
    return calibration.grid


def _as_json(reason: Reason, card: ModelCard) -> dict[str, Any]:
    names = card.feature_names
    return {
        "feature": str(reason.feature) if names is None else names[reason.feature],
        "value": reason.value,
        "expected": reason.expected,
        "nats": _finite(reason.nats),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
