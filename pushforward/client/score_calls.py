"""Anomaly scores: what is asked for, and what becomes of the pieces of one call."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypedDict

import numpy as np

from pushforward.client.answers import RowOutputs, join
from pushforward.client.calls import check_options
from pushforward.client.errors import VersionChanged
from pushforward.client.row_calls import (
    ChunkOptions,
    Defaults,
    Operation,
    RowCall,
    RowOptions,
    RowParts,
    Rows,
    row_call,
    stream_calls,
)
from pushforward.client.wire import Array

_EXPLAINED = "explanation"
# What differs between the classes of a calibration.
_PROMISE = ("rows", "threshold", "p_floor", "fpr_upper95")


class Decision(TypedDict, total=False):
    """What decides which rows are anomalies: one of these, or nothing.

    alpha: the rate of false alarms a row.
    fdr: the share of false alarms among the flagged rows of this call.
    threshold: of the score.
    """

    alpha: float | None
    fdr: float | None
    threshold: float | None


class Explaining(Decision, total=False):
    """What decides, and what is to be explained.

    explain: how many features to name of each flagged row, of all rows where nothing decides.
    """

    explain: int | None


class ScoreStreamOptions(ChunkOptions, Explaining, total=False):
    """What may be said of a stream of scores; see `ChunkOptions` and `Explaining`."""


class ScoreOptions(RowOptions, Explaining, total=False):
    """What may be said of a call for scores; see `RowOptions` and `Explaining`."""


class Scored(NamedTuple):
    """Anomaly scores (B,), higher is more anomalous; rows outside of the support have +inf.

    p_value: None without calibration. q_value: with fdr. is_anomaly: with alpha, fdr or threshold.
    calibration: what the p-values promise.
    explanation: with explain, a list a row: features as dicts of feature, value, expected and nats,
        largest nats first; None of rows that are not explained. explained_nats: the sum of each.
    """

    score: Array
    log_prob: Array
    p_value: Array | None
    q_value: Array | None
    is_anomaly: Array | None
    calibration: dict[str, Any] | None
    model: str
    version: str
    explanation: list[list[dict[str, Any]] | None] | None = None
    explained_nats: Array | None = None


def score_call(rows: Rows, defaults: Defaults, options: ScoreOptions) -> RowCall[Scored]:
    """Make a call for scores of rows, or of one picture given as bytes.

    In several pieces, fdr is over all of them: q-values follow from the p-values of every row.

    Raises:
        TypeError, ValueError: rows are no numbers, or an option is none.
    """
    check_options(options, ScoreOptions)
    decision, others = _split(options)
    call = row_call(_operation(decision), rows, defaults, others)
    return _decided(call, decision)


def score_stream(
    rows: RowParts, defaults: Defaults, options: ScoreStreamOptions
) -> Iterator[RowCall[Scored]]:
    """Make the calls of a stream of scores.

    Raises:
        TypeError: an option is none.
        ValueError: fdr, which is about rows that a stream has not seen yet.
    """
    check_options(options, ScoreStreamOptions)
    decision, others = _split(options)
    if decision.get("fdr") is not None:
        raise ValueError(
            "fdr: it is about all rows of a call, and a stream answers before it has seen them; "
            "use alpha, or score them in one call"
        )
    calls = stream_calls(_operation(decision), rows, defaults, others)
    return (_decided(call, decision) for call in calls)


def q_values(p: Array) -> Array:
    """The q-values of Benjamini and Hochberg, as the server has them; NaN is no row of the family.

    Reference: Benjamini and Hochberg 1995.
    """
    q = np.full(len(p), np.nan)
    counted = np.flatnonzero(~np.isnan(p))
    highest_first = counted[np.argsort(p[counted], kind="stable")[::-1]]
    count = len(counted)
    raised = p[highest_first] * (count / np.arange(count, 0, -1))
    q[highest_first] = np.minimum.accumulate(np.minimum(raised, 1.0))
    return q


def _operation(decision: Mapping[str, float]) -> Operation[Scored]:
    return Operation(
        "score",
        "x",
        ("score", "log_prob"),
        _finish,
        optional=("p_value", "q_value", "is_anomaly", "explained_nats"),
        scalars=("calibration", _EXPLAINED),
        join=partial(_join, fdr=decision.get("fdr")),
        is_answered_outside=True,
    )


def _split(options: Mapping[str, Any]) -> tuple[dict[str, float], Any]:
    """Take what decides out of the options."""
    own = Explaining.__annotations__
    decision = {name: value for name, value in options.items() if name in own}
    return decision, {name: value for name, value in options.items() if name not in own}


def _decided(call: RowCall[Scored], decision: Mapping[str, float]) -> RowCall[Scored]:
    return replace(call, fields={**call.fields, **decision})


def _finish(given: Mapping[str, Any], model: str, version: str) -> Scored:
    said = given.get("calibration")
    return Scored(
        given["score"],
        given["log_prob"],
        given.get("p_value"),
        given.get("q_value"),
        given.get("is_anomaly"),
        None if said is None else json.loads(str(said)),
        model,
        version,
        None if _EXPLAINED not in given else json.loads(str(given[_EXPLAINED])),
        given.get("explained_nats"),
    )


def _join(parts: Sequence[RowOutputs], fdr: float | None) -> RowOutputs:
    """Join pieces; what was decided by fdr of each piece is decided again, by all rows.

    Raises:
        VersionChanged: the calibration was replaced between two pieces.
        ValueError: rows flagged by fdr were to be explained, which are known when all are scored.
    """
    joined = join(parts)
    if len(parts) == 1:
        return joined
    explained = [json.loads(str(one.said[_EXPLAINED])) for one in parts if _EXPLAINED in one.said]
    if explained and fdr is not None:
        raise ValueError(
            f"explain: fdr is over all rows of a call, and these went in {len(parts)} pieces; "
            "explain by alpha, or the flagged rows in a second call"
        )
    told = [json.loads(str(part.said["calibration"])) for part in parts if part.said]
    first = parts[0]
    for part, one in zip(parts, told, strict=False):
        if one["id"] != told[0]["id"]:
            names = [f"{first.version} with calibration {each['id']}" for each in (told[0], one)]
            raise VersionChanged(part.model, *names)
    said = {"calibration": json.dumps(_join_calibrations(told))} if told else {}
    if explained:
        said[_EXPLAINED] = json.dumps(list(chain.from_iterable(explained)))
    arrays = dict(joined.arrays)
    if fdr is not None:
        arrays["q_value"] = q_values(arrays["p_value"])
        arrays["is_anomaly"] = arrays["q_value"] <= fdr
    return replace(joined, arrays=arrays, said=said)


def _join_calibrations(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say what one calibration promises to all pieces, as an answer to several classes does.

    Where every piece was of a class of its own, what holds for the others is None.
    """
    of_all = next((one for one in told if "classes" in one), None)
    if of_all is not None or len({one.get("class") for one in told}) == 1:
        return of_all or told[0]
    of_all = next((one for one in told if "class" not in one), None)
    joined = {name: value for name, value in (of_all or told[0]).items() if name != "class"}
    if of_all is None:
        joined |= dict.fromkeys(_PROMISE)
    classes = {str(one["class"]): one for one in told if "class" in one}
    joined["classes"] = {
        label: {name: one[name] for name in _PROMISE} for label, one in classes.items()
    }
    return joined
