"""Rows by name: as objects, as lists beside the names of their columns, or as a tensor a column."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.codec.tensors import Array, kind_of
from service.errors import (
    BadDtype,
    Fault,
    InvalidParameter,
    InvalidRequest,
    MissingField,
    ShapeMismatch,
    UnknownField,
)

# The field that names the columns of lists.
FIELD = "columns"

_NUMBERS = (int, float)
_SHOWN = 40
_MOST_LISTED = 120
# What stands in a JSON pointer in the place of a character that means something there.
_ESCAPES = str.maketrans({"~": "~0", "/": "~1"})


class Table(NamedTuple):
    """Rows that named their columns, as an array.

    columns: the names, in the order of the values.
    values: (B, D).
    """

    columns: tuple[str, ...]
    values: Array


def read_names(value: Any) -> tuple[str, ...] | None:
    """Read the field `columns`: a list of names, or text with commas between them, or none.

    Text may be a JSON list as well, for names that hold a comma.

    Raises:
        InvalidParameter: something else, or a name twice.
    """
    if value is None:
        return None
    names = _split(value) if type(value) is str else value
    if type(names) is not list or not names or any(type(name) is not str for name in names):
        raise InvalidParameter(
            f"{FIELD}: expected the names of all columns, as a list or with commas between them, "
            f"got {_shown(value)}",
            at=f"/{FIELD}",
        )
    seen = set()
    for index, name in enumerate(names):
        if name in seen:
            raise InvalidParameter(
                f"{FIELD}: {_shown(name)} stands twice, expected each column once",
                at=f"/{FIELD}/{index}",
            )
        seen.add(name)
    return tuple(names)


def find_order(given: Sequence[str], wanted: Sequence[str], field: str, at: str) -> list[int]:
    """Find where each column that is wanted stands among those given, which are all different.

    Args:
        given, wanted: names of columns.
        field: what errors are about, for people.
        at: the same as a JSON pointer.

    Raises:
        UnknownField: a name that is not wanted, with the nearest that is.
        MissingField: a name that is not given.
    """
    places = {name: index for index, name in enumerate(given)}
    if places.keys() == set(wanted):
        return [places[name] for name in wanted]
    for index, name in enumerate(given):
        if name not in wanted:
            near = get_close_matches(name[:_MOST_LISTED], wanted, n=1)
            hint = f"; did you mean {_shown(near[0])}?" if near else ""
            place = index if field == FIELD else key_pointer(name)
            raise UnknownField(
                f"{field}: {_shown(name)} is no column of the model, expected "
                f"{_listed(wanted)}{hint}",
                at=f"{at}/{place}",
            )
    missing = next(name for name in wanted if name not in places)
    raise MissingField(
        f"{field}: column {_shown(missing)} is missing, expected {_listed(wanted)}", at=at
    )


def holds_objects(value: Any) -> bool:
    """Whether rows are objects, at least the first one that is there."""
    if type(value) is not list or not value:
        return False
    first = value[0]
    if first is None:
        first = next((row for row in value if row is not None), None)
    return type(first) is dict


def order_objects(
    rows: list[Any], name: str, wanted: Sequence[str], first_row: int = 0
) -> list[list[Any]]:
    """Make a list of each object, its values in the order wanted; they are not looked at.

    Args:
        rows: objects.
        name: the field that holds them.
        wanted: the names of the columns, one at least.
        first_row: how many rows stand before these.

    Raises:
        UnknownField, MissingField: naming the first row with other columns.
        BadDtype: naming the first row that is no object.
    """
    take = itemgetter(*wanted)
    try:
        taken = list(map(take, rows))
        if set(map(type, rows)) == {dict} and set(map(len, rows)) == {len(wanted)}:
            return list(map(list, taken)) if len(wanted) > 1 else [[value] for value in taken]
    except (KeyError, TypeError, IndexError):
        pass
    for index, row in enumerate(rows, first_row):
        _check_object(row, name, index)
        find_order(list(row), wanted, f"{name}: row {index}", f"/{name}/{index}")
    raise AssertionError("rows with the right columns were refused")


def check_objects(
    rows: list[Any], name: str, first_row: int = 0, *, takes_null: bool = False
) -> None:
    """Refuse whatever is no object of numbers.

    Args:
        rows: what is to be objects.
        name: the field that holds them.
        first_row: how many rows stand before these.
        takes_null: whether null may stand in the place of a number, or of a row.

    Raises:
        BadDtype: naming the first row and its column.
    """
    for index, row in enumerate(rows, first_row):
        if row is None and takes_null:
            continue
        _check_object(row, name, index)
        for key, value in row.items():
            if type(value) not in _NUMBERS and not (value is None and takes_null):
                raise BadDtype(
                    f"{name}: expected numbers, row {index} holds {kind_of(value)} in column "
                    f"{_shown(key)}",
                    at=f"/{name}/{index}/{key_pointer(key)}",
                )


def gather_tensors(
    tensors: Mapping[str, Array], wanted: Sequence[str], wholes: Sequence[str], beside: str
) -> dict[str, Any]:
    """Put tensors that are a column each together, as the first of the wholes.

    Args:
        tensors: of a request, by name.
        wanted: the names of the model's columns.
        wholes: tensors that hold all columns, where no column alone is called so.
        beside: a tensor that may stand beside either, where no column is called so.

    Returns:
        The tensors as they are where they are no columns.

    Raises:
        ShapeMismatch: a column that is not (B,) or (B, 1), or of another length than the first.
    """
    columns = {key: part for key, part in tensors.items() if key in wanted or key != beside}
    names = columns.keys()
    has_wholes = any(key not in wanted for key in names & set(wholes))
    if has_wholes or (names <= set(wholes) and (names != set(wanted) or len(names) < 2)):
        return dict(tensors)
    rows = len(next(iter(columns.values())))
    for key, values in columns.items():
        if values.shape not in ((rows,), (rows, 1)):
            raise ShapeMismatch(
                f"{_shown(key)}: expected a column of shape ({rows},) or ({rows}, 1), got "
                f"{values.shape}",
                at="/inputs",
            )
    table = Table(tuple(columns), np.column_stack([*columns.values()]))
    return {wholes[0]: table} | {key: part for key, part in tensors.items() if key not in columns}


def name_keys(error: InvalidRequest, names: Sequence[str]) -> None:
    """Say of each value that is wrong which key of its row it is.

    Args:
        error: its columns are places among the names.
        names: of the columns.
    """
    shown = [
        "" if each.column is None else f" in column {_shown(names[each.column])}"
        for each in error.faults
    ]
    error.detail += next(filter(None, shown), "")
    error.faults = tuple(
        each
        if each.column is None
        else Fault(f"{each.pointer}/{key_pointer(names[each.column])}", each.detail + column)
        for each, column in zip(error.faults, shown, strict=True)
    )


def key_pointer(name: str) -> str:
    """One step of a JSON pointer."""
    return name[:_SHOWN].translate(_ESCAPES)


def _check_object(row: Any, name: str, index: int) -> None:
    if type(row) is not dict:
        raise BadDtype(
            f"{name}: expected an object a row, as the first one is, row {index} is {kind_of(row)}",
            at=f"/{name}/{index}",
        )


def _split(text: str) -> Any:
    if not text.startswith("["):
        return text.split(",") if text else []
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= _MOST_LISTED else f"{text[:_MOST_LISTED]}..."


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}..."
