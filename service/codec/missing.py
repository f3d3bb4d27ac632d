"""Missing values: one NaN that says so, and the nested lists that hold JSON's null in its place.

R writes its NA so: a NaN whose lower half is 1954. It passes through arrays of float64 like any
other number, and what was missing can still be told from what was NaN.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from service.codec.tensors import Array

# The field by which a request says what becomes of rows that are invalid, and what it says then.
INVALID, NULL, REFUSE = "invalid", "null", "refuse"

_PAYLOAD = 1954
_LOWER_HALF = 0xFFFF_FFFF
_LARGEST = int(np.finfo(np.float64).max)
MISSING: float = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0000 | _PAYLOAD))[0]
# No array has more axes.
_MAX_DEPTH = 64


def asks_for_null(fields: Mapping[str, Any]) -> bool:
    """Whether a request wants its invalid rows answered null: its lists may then hold null."""
    return fields.get(INVALID) == NULL


def is_missing(values: Array) -> Array:
    """Which values are `MISSING`.

    Returns:
        Booleans of the same shape.
    """
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    found: Array = np.isnan(values) & (bits & _LOWER_HALF == _PAYLOAD)
    return found


def fill_missing(rows: list[Any]) -> list[Any]:
    """Put `MISSING` where null stands inside a row; rows that are null stay so."""
    return [
        _fill(row, 1) if type(row) is list else _fill_object(row) if type(row) is dict else row
        for row in rows
    ]


def complete_objects(rows: list[Any], names: Iterable[str]) -> list[Any]:
    """Put `MISSING` into each object that lacks a name; null is an object without any."""
    blank = dict.fromkeys(names, MISSING)
    return [blank | (row or {}) if row is None or type(row) is dict else row for row in rows]


def names_in(rows: list[Any]) -> set[str]:
    """The names that any of some objects has."""
    return set().union(*(row for row in rows if type(row) is dict))


def fill_missing_rows(rows: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """Put a row of `MISSING` in the place of each row that is null."""
    if None not in rows:
        return rows
    blank = np.full(shape, MISSING).tolist()
    return [blank if row is None else row for row in rows]


def _fill_object(row: dict[str, Any]) -> dict[str, Any]:
    return {name: MISSING if value is None else value for name, value in row.items()}


def fill_overflows(items: list[Any]) -> list[Any]:
    """Put an infinity where an integer stands that no float can hold, as for 1e400."""
    return [
        fill_overflows(item)
        if type(item) is list
        else (math.inf if item > 0 else -math.inf)
        if type(item) is int and abs(item) > _LARGEST
        else item
        for item in items
    ]


def _fill(items: list[Any], depth: int) -> list[Any]:
    kinds = set(map(type, items))
    if list in kinds and depth < _MAX_DEPTH:
        items = [_fill(item, depth + 1) if type(item) is list else item for item in items]
    if type(None) in kinds:
        items = [MISSING if item is None else item for item in items]
    return items
