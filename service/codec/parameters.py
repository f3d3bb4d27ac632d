"""The small fields of a request: whole numbers, numbers and names, with their bounds."""

import math
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl

import orjson

from service.codec.mends import suggest_scalar
from service.codec.tensors import kind_of
from service.errors import InvalidParameter, OutOfRange, UnknownField

# More than any request has; a query string of thousands is refused before it is taken apart.
_MAX_QUERY_FIELDS = 32
_SHOWN = 40
_LARGEST = sys.float_info.max
# What others call what a call has under another name.
_MEANT = {
    "contamination": (
        "alpha",
        "use 'alpha', the share of normal rows that may be flagged, fixed beforehand",
    )
}


def read_integer(value: Any, name: str, low: int, high: int) -> int:
    """Take a whole number in low .. high; not 1.0, not "1", not true.

    Raises:
        InvalidParameter: it is no whole number.
        OutOfRange: it is outside.
    """
    if type(value) is not int:
        # orjson makes floats of integers beyond 64 bits: those are whole, but out of range.
        if type(value) is float and value.is_integer() and abs(value) >= 2**63:
            raise OutOfRange(f"{name}: expected {low} .. {high}, got {value:g}", at=f"/{name}")
        raise InvalidParameter(
            f"{name}: expected a whole number {low} .. {high}, got {_shown(value)}"
            f"{suggest_scalar(value, int)}",
            at=f"/{name}",
        )
    if not low <= value <= high:
        raise OutOfRange(f"{name}: expected {low} .. {high}, got {_shown(value)}", at=f"/{name}")
    return value


def read_number(value: Any, name: str, low: float, high: float) -> float:
    """Take a finite number in low .. high; not "1", not true.

    Raises:
        InvalidParameter: it is no number.
        OutOfRange: it is outside, or not finite.
    """
    if type(value) not in (int, float):
        raise InvalidParameter(
            f"{name}: expected a number {low:g} .. {high:g}, got {_shown(value)}"
            f"{suggest_scalar(value, (int, float))}",
            at=f"/{name}",
        )
    if not (low <= value <= high and math.isfinite(value)):
        raise OutOfRange(
            f"{name}: expected {low:g} .. {high:g}, got {_shown(value)}", at=f"/{name}"
        )
    return float(value)


def read_rate(value: Any, name: str) -> float:
    """Take a number between 0 and 1, neither of them.

    Raises:
        InvalidParameter: it is no number.
        OutOfRange: it is outside.
    """
    if type(value) not in (int, float):
        raise InvalidParameter(
            f"{name}: expected a number above 0 and below 1, got {_shown(value)}"
            f"{suggest_scalar(value, (int, float))}",
            at=f"/{name}",
        )
    if not 0 < value < 1:
        raise OutOfRange(
            f"{name}: expected a number above 0 and below 1, got {_shown(value)}", at=f"/{name}"
        )
    return float(value)


def read_finite(value: Any, name: str) -> float:
    """Take any finite number.

    Raises:
        InvalidParameter: it is no number.
        OutOfRange: it is not finite.
    """
    if type(value) not in (int, float):
        raise InvalidParameter(
            f"{name}: expected a finite number, got {_shown(value)}"
            f"{suggest_scalar(value, (int, float))}",
            at=f"/{name}",
        )
    if not abs(value) <= _LARGEST:
        raise OutOfRange(f"{name}: expected a finite number, got {_shown(value)}", at=f"/{name}")
    return float(value)


def read_flag(value: Any, name: str) -> bool:
    """Take true or false; not 1, not "true".

    Raises:
        InvalidParameter: it is neither.
    """
    if type(value) is not bool:
        raise InvalidParameter(
            f"{name}: expected true or false, got {_shown(value)}{suggest_scalar(value, bool)}",
            at=f"/{name}",
        )
    return value


def read_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """Take one of some words.

    Raises:
        InvalidParameter: it is none of them.
    """
    if type(value) is str and value in choices:
        return value
    expected = " or ".join(f'"{choice}"' for choice in choices)
    raise InvalidParameter(f"{name}: expected {expected}, got {_shown(value)}", at=f"/{name}")


def read_name(value: Any, name: str) -> str | None:
    """Take a name, or none.

    Raises:
        InvalidParameter: it is no string.
    """
    if value is None or type(value) is str:
        return value
    raise InvalidParameter(
        f"{name}: expected a string, got {_shown(value)}{suggest_scalar(value, str)}",
        at=f"/{name}",
    )


def read_query(
    query: bytes, known: Sequence[str], texts: Sequence[str] = ("model",)
) -> dict[str, Any]:
    """Read the fields in a query string: those of text as they are, every other as JSON.

    Args:
        query: as it stands behind the question mark.
        known: the names it may hold.
        texts: those whose values are text.

    Raises:
        InvalidParameter: not a query string, a field twice, or a value that is not JSON.
        UnknownField: a name this call does not have.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MAX_QUERY_FIELDS,
        )
    except ValueError:
        raise InvalidParameter(
            f"query string: expected at most {_MAX_QUERY_FIELDS} fields as name=value&name=value"
        ) from None
    check_known((name for name, _ in pairs), known)
    fields: dict[str, Any] = {}
    for name, text in pairs:
        if name in fields:
            raise InvalidParameter(f"{name}: given twice in the query string", at=f"/{name}")
        fields[name] = text if name in texts else _from_text(name, text)
    return fields


def check_known(fields: Iterable[str], known: Sequence[str]) -> None:
    """Refuse fields that a call does not have.

    Raises:
        UnknownField: with the nearest name that the call has.
    """
    for name in fields:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            meant, mend = _MEANT.get(name, ("", ""))
            if meant in known:
                hint = f"; {mend}"
            raise UnknownField(
                f"{_shown(name)}: no such field, expected {', '.join(known)}{hint}",
                at=f"/{name[:_SHOWN]}",
            )


def _from_text(name: str, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidParameter(
            f"{name}: expected a number, true or false in the query string, got {_shown(text)}",
            at=f"/{name}",
        ) from None


def _shown(value: Any) -> str:
    if type(value) in (list, dict, type(None), bool):
        return kind_of(value)
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
