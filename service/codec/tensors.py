"""Nested lists and arrays of clients to checked rows.

A tensor of a request is a nested list (JSON) or an array (npy, npz, pictures). `read_rows` makes
of either a writable, C-contiguous array in the model's dtype, or says what is wrong with which row.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import BadDtype, Fault, NonFinite, OutOfRange, ShapeMismatch, TooLarge

Array = NDArray[Any]
Shape = tuple[int, ...]

_MAX_FAULTS = 16
# BLAS starts threads for longer vectors; below, a dot product costs half of isfinite().all().
_SHORT = 8192
# A sum of squares below this proves that every value is finite and that the dtype can hold it.
_SAFE_ENERGY = {
    np.dtype(np.float32): float(np.finfo(np.float32).max) ** 2,
    np.dtype(np.float64): float(np.finfo(np.float64).max),
}
_LARGEST = int(np.finfo(np.float64).max)
_NUMBERS = frozenset((int, float))
_NUMBERS_AND_LISTS = frozenset((int, float, list))
_KINDS = {
    str: "a string",
    bool: "true or false",
    type(None): "null",
    dict: "an object",
    list: "a list",
    int: "a number",
    float: "a number",
    np.ndarray: "a tensor",
}


def read_rows(
    value: Any,
    name: str,
    event_shape: Shape,
    *,
    dtype: np.dtype[Any],
    max_rows: int,
    num_levels: int | None = None,
) -> Array:
    """Check a batch of events.

    Args:
        value: an array, or nested lists of numbers.
        name: the field that holds it.
        event_shape: of one event.
        dtype: the model's.
        max_rows: how many are taken.
        num_levels: of pixels: an array of whole numbers holds pixels, as one of bytes does; what is
            fractional (samples are) is a point of the density and is taken wherever it lies.

    Returns:
        (B, *event_shape) in `dtype`, B >= 1.

    Raises:
        OutOfRange: whole numbers that are no pixels.
        TooLarge: more than max_rows rows.
        ShapeMismatch: no batch axis, no rows, ragged rows or another event shape.
        BadDtype: something that is not a real number.
        NonFinite: NaN, an infinity, or a number that `dtype` cannot hold.
    """
    if type(value) is list:
        # Counted before the conversion, which is the expensive part.
        if len(value) > max_rows:
            raise _too_many_rows(name, len(value), max_rows)
        rows = read_few_rows(value, event_shape, dtype)
        if rows is not None:
            return rows
    values = as_array(value, name, event_shape)
    check_shape(values, name, event_shape)
    if len(values) > max_rows:
        raise _too_many_rows(name, len(values), max_rows)
    if num_levels is not None and values.dtype.kind in "iu":
        _check_levels(values, name, num_levels)
    return cast_finite(values, name, dtype)


def as_array(value: Any, name: str, event_shape: Shape) -> Array:
    """Take an array as it is; make a float64 one of a number or nested lists of numbers.

    Raises:
        ShapeMismatch, BadDtype, NonFinite: no array can be made of it.
    """
    if isinstance(value, np.ndarray):
        return value
    if type(value) is not list and type(value) not in _NUMBERS:
        raise BadDtype(f"{name}: expected numbers, got {kind_of(value)}", at=f"/{name}")
    try:
        return np.array(value, dtype=np.float64)
    except OverflowError:
        raise _too_large_integer(value, name) from None
    except (TypeError, ValueError):
        check_leaves(value, name)
        raise _ragged(value, name, event_shape) from None


def check_leaves(value: Any, name: str, *, takes_null: bool = False) -> None:
    """Refuse whatever is not a number in nested lists: numpy reads true as 1 and "2" as 2.

    Args:
        value: the lists.
        name: the field that holds them.
        takes_null: whether null may stand in the place of a number.

    Raises:
        BadDtype: naming the first row that holds something else.
    """
    for index, row in enumerate(value if type(value) is list else [value]):
        for leaf in _odd_leaves(row):
            if leaf is None and takes_null:
                continue
            detail = f"{name}: expected numbers, row {index} holds {kind_of(leaf)}"
            fault = Fault(f"/{name}/{index}", detail, _column(row, leaf))
            raise BadDtype(detail, faults=[fault])


def check_shape(values: Array, name: str, event_shape: Shape) -> None:
    """Ask for (B, *event_shape) with B >= 1.

    Raises:
        ShapeMismatch: saying what came and, where that is clear, what to do.
    """
    shape = values.shape
    if shape[1:] == event_shape and shape and shape[0]:
        return
    detail = f"{name}: expected {_starred(event_shape)}, got {shape}"
    if len(event_shape) == 3 and shape[1:] == (*event_shape[1:], event_shape[0]):
        detail += "; channels come first: transpose the axes to (rows, C, H, W)"
    if shape == event_shape:
        detail += "; put one row in a list of its own, as [[...]]"
    elif shape and not shape[0]:
        detail = f"{name}: expected {_starred(event_shape)} with at least one row, got none"
    raise ShapeMismatch(detail, at=f"/{name}")


def _check_levels(values: Array, name: str, num_levels: int) -> None:
    is_wrong = ((values < 0) | (values >= num_levels)).reshape(len(values), -1).any(1)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise OutOfRange(
            f"{name}: expected pixels 0 .. {num_levels - 1}, row {row} holds "
            f"{int(values[row].min())} .. {int(values[row].max())}; scale them as in training",
            at=f"/{name}/{row}",
        )


def cast_finite(values: Array, name: str, dtype: np.dtype[Any]) -> Array:
    """Cast to `dtype`, C-contiguous and writable.

    Raises:
        BadDtype: the values are not real numbers.
        NonFinite: naming the rows that hold NaN, an infinity, or a number too large for `dtype`.
    """
    if values.dtype.kind not in "fiu":
        raise BadDtype(f"{name}: expected real numbers, got {values.dtype}", at=f"/{name}")
    if _fits(values, dtype):
        return _narrow(values, dtype)
    narrow = cast(values, dtype)
    if is_finite(narrow):
        return narrow
    rows = non_finite_rows(narrow)
    columns = [int(np.isfinite(narrow[row].reshape(-1)).argmin()) for row in rows[:_MAX_FAULTS]]
    worst = values[rows[0]].reshape(-1)[columns[0]]
    raise NonFinite(
        f"{name}: expected finite {dtype} numbers, row {rows[0]} holds {worst}",
        faults=[
            Fault(f"/{name}/{row}", "not finite", column)
            for row, column in zip(rows, columns, strict=False)
        ],
    )


def cast(values: Array, dtype: np.dtype[Any]) -> Array:
    """Cast to `dtype`, writable and C-contiguous; what is too large for it becomes infinite."""
    if _fits(values, dtype):
        return _narrow(values, dtype)
    # Entering this context costs more than the cast of a short array.
    with np.errstate(over="ignore", invalid="ignore"):
        return _narrow(values, dtype)


def is_finite(values: Array) -> bool:
    """Whether no value is NaN or infinite."""
    if values.size <= _SHORT and math.isfinite(np.vdot(values, values)):
        return True
    # Squares of large finite values overflow: then, and for long arrays, every value is looked at.
    return bool(np.isfinite(values).all())


def non_finite_rows(values: Array) -> list[int]:
    """Which rows hold a NaN or an infinity, in order."""
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    rows: list[int] = np.flatnonzero(bad).tolist()
    return rows


def read_few_rows(value: list[Any], event_shape: Shape, dtype: np.dtype[Any]) -> Array | None:
    """Read what most requests are: a few good rows of numbers. None for all else, good or bad."""
    try:
        wide = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    if wide.shape[1:] != event_shape or not 0 < wide.size <= _SHORT:
        return None
    return wide.astype(dtype) if np.vdot(wide, wide) < _SAFE_ENERGY[dtype] else None


def kind_of(value: Any) -> str:
    """Say in words of JSON what a value is."""
    return _KINDS.get(type(value), "something else")


def _fits(values: Array, dtype: np.dtype[Any]) -> bool:
    """Prove cheaply that every value is finite in `dtype`; False means that nothing is known."""
    is_short = values.dtype == np.float64 and values.size <= _SHORT
    return is_short and bool(np.vdot(values, values) < _SAFE_ENERGY[dtype])


def _narrow(values: Array, dtype: np.dtype[Any]) -> Array:
    return values.astype(dtype, order="C", copy=not values.flags.writeable)


def _odd_leaves(row: Any) -> Iterator[Any]:
    # A stack, not recursion: a body may be nested a thousand levels deep.
    pending = [[row]]
    while pending:
        items = pending.pop()
        kinds = set(map(type, items))
        if not kinds <= _NUMBERS_AND_LISTS:
            yield from (item for item in items if type(item) not in _NUMBERS_AND_LISTS)
        if list in kinds:
            pending.extend(item for item in items if type(item) is list)


def _column(row: Any, value: Any) -> int | None:
    """Where a value stands in its row; None where rows are not plain lists."""
    items = row if type(row) is list else []
    return next((index for index, item in enumerate(items) if item is value), None)


def _too_large_integer(value: Any, name: str) -> NonFinite:
    what = "an integer no float can hold"
    for index, row in enumerate(value if type(value) is list else []):
        for column, item in enumerate(row if type(row) is list else []):
            if type(item) is int and abs(item) > _LARGEST:
                return NonFinite(
                    f"{name}: expected finite numbers, row {index} holds {what}",
                    faults=[Fault(f"/{name}/{index}", "not finite", column)],
                )
    return NonFinite(f"{name}: holds {what}", at=f"/{name}")


def _ragged(value: Any, name: str, event_shape: Shape) -> ShapeMismatch:
    expected = _starred(event_shape)
    for index, row in enumerate(value):
        try:
            shape = np.array(row, dtype=np.float64).shape
        except ValueError:
            problem = "is ragged"
        else:
            if shape == event_shape:
                continue
            problem = f"has shape {shape}"
        return ShapeMismatch(
            f"{name}: expected {expected}, row {index} {problem}", at=f"/{name}/{index}"
        )
    return ShapeMismatch(f"{name}: expected {expected}, got ragged rows", at=f"/{name}")


def _too_many_rows(name: str, rows: int, limit: int) -> TooLarge:
    return TooLarge(
        f"{name}: expected at most {limit} rows a request, got {rows}; send them in several",
        at=f"/{name}",
    )


def _starred(event_shape: Shape) -> str:
    return f"({', '.join(('*', *map(str, event_shape)))})"
