"""What decides which rows are anomalies: a rate of false alarms or discoveries, or a threshold.

Exactly one of them does, or none: there is no default.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from models.scoring.conformal import q_values
from service.codec.parameters import read_finite, read_rate
from service.codec.tensors import Array
from service.errors import InvalidParameter
from service.operations.fields import Field

_OPEN_UNIT = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}


def _deciding(
    name: str, schema: dict[str, Any], read: Callable[[Any, str], float], text: str
) -> Field:
    whole = {"anyOf": [schema, {"type": "null"}], "default": None, "description": text}
    return Field(name, whole, lambda value: None if value is None else read(value, name))


ALPHA = _deciding(
    "alpha",
    _OPEN_UNIT,
    read_rate,
    "False alarms a row: a row is an anomaly where p_value <= alpha. At least 1 / (n + 1) of n "
    "calibration rows.",
)
FDR = _deciding(
    "fdr",
    _OPEN_UNIT,
    read_rate,
    "Share of false alarms among the rows that are flagged (Benjamini-Hochberg over this request): "
    "a row is an anomaly where q_value <= fdr. It depends on the request's other rows.",
)
THRESHOLD = _deciding(
    "threshold",
    {"type": "number"},
    read_finite,
    "A row is an anomaly where score > threshold; needs no calibration.",
)
DECIDING = (ALPHA, FDR, THRESHOLD)
_NAMES = frozenset(field.name for field in DECIDING)


class Decision(NamedTuple):
    """What decides.

    name: the field that was given. limit: its value.
    is_lone: whether it is about one row: the q-value of that is its p-value, also where several
        such requests are answered together.
    """

    name: str
    limit: float
    is_lone: bool = False

    @property
    def needs_calibration(self) -> bool:
        """Whether it is about p-values."""
        return self.name != THRESHOLD.name

    def decide(self, outputs: dict[str, Array]) -> None:
        """Add to the scores and p-values of an answer what is decided."""
        if self.name == THRESHOLD.name:
            outputs["is_anomaly"] = outputs["score"] > self.limit
        elif self.name == ALPHA.name:
            outputs["is_anomaly"] = outputs["p_value"] <= self.limit
        else:
            p = outputs["p_value"]
            outputs["q_value"] = q = p if self.is_lone else q_values(p)
            outputs["is_anomaly"] = q <= self.limit


def read_decision(fields: Mapping[str, Any], rows: int) -> Decision | None:
    """Read what decides about so many rows; None where nothing does.

    Raises:
        InvalidParameter: two of them are given, or one is no number.
        OutOfRange: a rate is not between 0 and 1, or the threshold is not finite.
    """
    if _NAMES.isdisjoint(fields):
        return None
    given = [
        Decision(field.name, limit, rows == 1)
        for field in DECIDING
        if (limit := field.value(dict(fields))) is not None
    ]
    if len(given) > 1:
        first, second = given[:2]
        raise InvalidParameter(
            f"{second.name}: {first.name} is given too, expected one of "
            f"{', '.join(field.name for field in DECIDING)}; leave one out",
            at=f"/{second.name}",
        )
    return given[0] if given else None
