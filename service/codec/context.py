"""The context of a conditional model: class labels, or one row of numbers a row."""

from typing import Any

import numpy as np

from service.codec.tensors import Array, Shape, as_array, cast_finite, check_shape
from service.errors import BadDtype, InvalidParameter, MissingField, OutOfRange, ShapeMismatch

_UNBOXED = "; a label is a whole number without an axis of its own: send [2, 0], not [[2], [0]]"


def read_context(
    value: Any,
    context_shape: Shape | None,
    num_classes: int | None,
    *,
    dtype: np.dtype[Any],
    rows: int,
) -> Array | None:
    """Check a request's context.

    One row a row or one for all; the one may come without its batch axis. For a model with
    classes a whole number, or a list of them, is a label 0 .. num_classes - 1 and becomes a
    one-hot row; rows of numbers (soft labels) need their batch axis there.

    Returns:
        (rows, *context_shape), None for an unconditional model.

    Raises:
        MissingField: a conditional model without context.
        InvalidParameter: an unconditional model with context.
        ShapeMismatch, BadDtype, NonFinite, OutOfRange: the context is not what the model takes.
    """
    if context_shape is None:
        if value is None:
            return None
        raise InvalidParameter("context: this model is unconditional, leave it out", at="/context")
    if value is None:
        raise MissingField(
            f"context: this model needs {_wanted(context_shape, num_classes)}", at="/context"
        )
    values = as_array(value, "context", context_shape)
    if num_classes is not None and values.ndim <= 1:
        context = _one_hot(_labels(value, values, num_classes), num_classes, dtype)
    else:
        batch = values[None] if values.shape == context_shape else values
        try:
            check_shape(batch, "context", context_shape)
        except ShapeMismatch as error:
            if num_classes is not None and batch.shape[1:] == (1,):
                error.suggest(_UNBOXED)
            raise
        context = cast_finite(batch, "context", dtype)
    if len(context) == rows:
        return context
    if len(context) != 1:
        raise ShapeMismatch(
            f"context: expected {rows} rows or 1 for all, got {len(context)}", at="/context"
        )
    return np.repeat(context, rows, axis=0)


def _labels(value: Any, values: Array, num_classes: int) -> Array:
    """Take whole numbers only: 2.0 is no label, and neither is a soft label without its axis."""
    items = value if isinstance(value, list) else [value]
    is_whole = (
        values.dtype.kind in "iu"
        if isinstance(value, np.ndarray)
        else all(type(item) is int for item in items)
    )
    if not is_whole:
        raise BadDtype(
            f"context: expected whole numbers 0 .. {num_classes - 1} as labels, "
            f"or rows of {num_classes} numbers as [[...]]",
            at="/context",
        )
    labels = np.atleast_1d(values)
    outside = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(outside):
        row = int(outside[0])
        raise OutOfRange(
            f"context: expected labels 0 .. {num_classes - 1}, row {row} has {labels[row]:.0f}",
            at=f"/context/{row}",
        )
    return labels.astype(np.intp)


def _one_hot(labels: Array, num_classes: int, dtype: np.dtype[Any]) -> Array:
    """Write each label of (B,) as a row of zeros with a one: (B, num_classes)."""
    rows = np.zeros((len(labels), num_classes), dtype)
    rows[np.arange(len(labels)), labels] = 1
    return rows


def _wanted(context_shape: Shape, num_classes: int | None) -> str:
    rows = f"one row of shape {context_shape} a row, or one for all"
    return rows if num_classes is None else f"labels 0 .. {num_classes - 1}, or {rows}"
