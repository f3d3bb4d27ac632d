"""What the calibration of a model says to a request: its promise, to which classes, or why none."""

import json
from typing import NamedTuple

import numpy as np
import orjson

from models.scoring.calibration import Calibration
from models.scoring.conformal import rows_needed
from service.codec.tensors import Array
from service.contracts import ModelCard
from service.errors import NotCalibrated, OutOfRange, UnknownField
from service.operations.model_input import ModelInput

# Outputs that there are with a calibration only.
OF_P_VALUES = ("p_value", "q_value")
# More calibration rows than anybody has: a rate may ask for numbers of 300 digits.
_MOST_COUNTED = 10**9
# Calibrations and rates that were described.
_MAX_TEXTS = 256


class Described(NamedTuple):
    """The member `calibration` of answers: as text, and as JSON that is written already."""

    text: str
    json: orjson.Fragment


_described_before: dict[tuple[object, ...], Described] = {}


def described(calibration: Calibration, alpha: float | None, labels: Array | None) -> Described:
    """Say what a calibration promises to the rows of these classes; asked for by every request."""
    label = int(labels[0]) if labels is not None and (labels == labels[0]).all() else None
    key = calibration.id, calibration.created, alpha, label
    found = _described_before.get(key)
    if found is None:
        if len(_described_before) >= _MAX_TEXTS:
            _described_before.clear()
        text = json.dumps(calibration.describe(alpha, label), separators=(",", ":"))
        found = _described_before[key] = Described(text, orjson.Fragment(text))
    return found


def labels_of(card: ModelCard, calibration: Calibration, context: Array | None) -> Array | None:
    """The class of each row; None where classes make no difference.

    Returns:
        (B,), -1 for a context that is no class.
    """
    if context is None or card.num_classes is None or not calibration.class_scores:
        return None
    is_class = (np.count_nonzero(context, axis=1) == 1) & (context.max(1, initial=0) == 1)
    return np.where(is_class, context.argmax(1), -1)


def labels_of_all(card: ModelCard, calibration: Calibration, given: ModelInput) -> Array | None:
    """The same of all rows of a request, those that were rejected among them."""
    context = given.context if given.rejected is None else given.rejected.context
    return labels_of(card, calibration, context)


def labels_of_judged(card: ModelCard, calibration: Calibration, given: ModelInput) -> Array | None:
    """The same of the rows that get a p-value; None too where there are none of them."""
    labels, rejected = labels_of_all(card, calibration, given), given.rejected
    if labels is None or rejected is None:
        return labels
    judged = np.sort([*rejected.kept, *rejected.outside])
    return labels[judged] if len(judged) else None


def check_alpha(
    alpha: float, calibration: Calibration, labels: Array | None, card: ModelCard
) -> None:
    """Refuse what so few calibration rows cannot promise.

    Raises:
        OutOfRange: naming them.
    """
    least = calibration.least_alpha(labels)
    if alpha >= least:
        return
    rows, whose = calibration.rows, ""
    for label in () if labels is None else np.unique(labels).tolist():
        of_class = len(calibration.scores_of(label))
        if of_class < rows:
            rows, whose = of_class, f" of class {label}"
    raise OutOfRange(
        f"alpha: {card.name} has {rows} calibration rows{whose}, which promise {least:.6g} at "
        f"least, got {alpha:.6g}; that needs {_count(rows_needed(alpha))} rows: calibrate it on "
        "more",
        at="/alpha",
    )


def refuse_without(name: str, card: ModelCard) -> None:
    """Say what an output of scores needs that an answer lacks.

    Raises:
        NotCalibrated: it is about p-values.
        UnknownField: nothing that was sent gives it.
    """
    if name in OF_P_VALUES and card.calibration is None:
        raise not_calibrated(name, card, "/outputs", "ask for score")
    needed = "fdr" if name in OF_P_VALUES else "alpha, fdr or threshold"
    raise UnknownField(f"{name}: it is answered with {needed}; send that", at="/outputs")


def not_calibrated(
    name: str, card: ModelCard, at: str, instead: str = "send threshold"
) -> NotCalibrated:
    """Say how a model gets the calibration that is asked for."""
    return NotCalibrated(
        f"{name}: model {card.name} has no calibration; run `pushforward calibrate {card.name} "
        f"--data HELD-OUT` with rows that it never saw, or {instead}",
        at=at,
    )


def _count(rows: int) -> str:
    return str(rows) if rows < _MOST_COUNTED else f"more than {_MOST_COUNTED:,}"
