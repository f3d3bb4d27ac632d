"""Rows of which some may be invalid: the others are read, and of these is said what is wrong.

What concerns a whole request (its shape, ragged rows, strings) is refused as `read_rows` does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from service.codec.context import read_context
from service.codec.missing import fill_missing, fill_missing_rows, fill_overflows, is_missing
from service.codec.tensors import (
    Array,
    Shape,
    as_array,
    cast,
    check_shape,
    non_finite_rows,
    read_rows,
)
from service.errors import BadDtype, InvalidRequest, NonFinite, OutOfRange, TooLarge

# What can be wrong with a row.
MISSING_VALUE, NAN, INFINITE, TOO_LARGE = "missing", "nan", "infinite", "too_large"
OUT_OF_BOUNDS = "out_of_bounds"

# What is wrong with which row.
Reasons = dict[int, str]


def read_valid_rows(
    value: Any,
    name: str,
    event_shape: Shape,
    *,
    dtype: np.dtype[Any],
    max_rows: int,
    num_levels: int | None = None,
) -> tuple[Array, Reasons]:
    """Read a batch of events as `read_rows` does, but for rows that are invalid.

    Returns:
        All rows, those that are invalid as zeros; and what is wrong with these.

    Raises:
        TooLarge, ShapeMismatch, BadDtype: it is no batch of such events.
    """
    if type(value) is list and len(value) <= max_rows:
        value = fill_missing_rows(value, event_shape)
    try:
        rows = read_rows(
            value, name, event_shape, dtype=dtype, max_rows=max_rows, num_levels=num_levels
        )
    except (NonFinite, BadDtype, OutOfRange):
        values = read_array(value, name, event_shape)
    else:
        return rows, beyond_levels(rows, num_levels)
    check_shape(values, name, event_shape)
    if len(values) > max_rows:
        raise TooLarge(f"{name}: expected at most {max_rows} rows a request", at=f"/{name}")
    if values.dtype.kind not in "fiu":
        raise BadDtype(f"{name}: expected real numbers, got {values.dtype}", at=f"/{name}")
    rows = cast(values, dtype)
    reasons = {row: _reason(values[row]) for row in non_finite_rows(rows)}
    rows[list(reasons)] = 0
    return rows, beyond_levels(rows, num_levels) | reasons


def beyond_levels(rows: Array, num_levels: int | None) -> Reasons:
    """Find rows of pixels that are none: whole numbers, and one of them beyond the levels.

    Samples hold fractions, and lie a little beyond the levels: they are points of the density.
    """
    if num_levels is None or (rows.min() >= 0 and rows.max() < num_levels):
        return {}
    flat = rows.reshape(len(rows), -1)
    outside = np.flatnonzero(((flat < 0) | (flat >= num_levels)).any(1))
    is_whole = (flat[outside] == np.rint(flat[outside])).all(1)
    return dict.fromkeys(outside[is_whole].tolist(), OUT_OF_BOUNDS)


def read_valid_context(
    value: Any,
    context_shape: Shape | None,
    num_classes: int | None,
    *,
    dtype: np.dtype[Any],
    rows: int,
) -> tuple[Array | None, Reasons]:
    """Read a context as `read_context` does, but for rows of it that belong to one row each.

    Returns:
        The context, zeros where it is invalid; and what is wrong there.

    Raises:
        InvalidRequest: as `read_context`, also where one invalid context is for several rows.
    """

    def read(given: Any) -> Array | None:
        return read_context(given, context_shape, num_classes, dtype=dtype, rows=rows)

    try:
        return read(value), {}
    except InvalidRequest as error:
        refusal = error
    if context_shape is None or not isinstance(value, list | np.ndarray) or len(value) != rows:
        raise refusal
    if num_classes is not None and list not in set(map(type, value)) and np.ndim(value) < 2:
        return _read_labels(value, read, refusal)
    try:
        return read_valid_rows(value, "context", context_shape, dtype=dtype, max_rows=rows)
    except InvalidRequest:
        raise refusal from None


def _read_labels(
    value: Any, read: Callable[[Any], Array | None], refusal: InvalidRequest
) -> tuple[Array | None, Reasons]:
    """Read labels some of which are not there: of an array these are NaN among whole numbers."""
    values = np.array(fill_missing([list(value)])[0], np.float64)
    is_nan = np.isnan(values)
    reasons = {row: _reason(values[row]) for row in np.flatnonzero(is_nan).tolist()}
    whole = np.where(is_nan, 0, values)
    if type(value) is not list:
        if not reasons or (whole != np.rint(whole)).any():
            raise refusal
        return read(whole.astype(np.int64)), reasons
    return read([0 if row in reasons else label for row, label in enumerate(value)]), reasons


def read_array(value: Any, name: str, event_shape: Shape) -> Array:
    """Make an array of a client's tensor as `as_array` does, of nulls and of huge integers too.

    Raises:
        ShapeMismatch, BadDtype: no array can be made of it.
    """
    if type(value) is list:
        value = fill_missing_rows(value, event_shape)
    try:
        return as_array(value, name, event_shape)
    except NonFinite:
        return as_array(fill_overflows(value), name, event_shape)


def _reason(values: Array) -> str:
    wide = values.astype(np.float64)
    if is_missing(wide).any():
        return MISSING_VALUE
    if np.isnan(wide).any():
        return NAN
    return INFINITE if np.isinf(wide).any() else TOO_LARGE
