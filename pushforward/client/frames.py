"""Tables to arrays: what pandas, polars and pyarrow call a data frame or a table, by its methods.

None of them is imported: what has columns with names is a table.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pushforward.client import wire
from pushforward.client.wire import Array


class Table(NamedTuple):
    """Rows (B, *event_shape), and the names of their columns where they have some."""

    values: Array
    columns: tuple[str, ...] | None


def is_frame(value: object) -> bool:
    """Whether a value is a data frame (pandas, polars) or a table (pyarrow)."""
    if isinstance(value, np.ndarray | list | tuple | dict | bytes):
        return False
    return hasattr(value, "column_names") or (hasattr(value, "columns") and hasattr(value, "shape"))


def read_table(value: ArrayLike, name: str, columns: Sequence[str] | None = None) -> Table:
    """Read rows, with the names of their columns.

    Args:
        value: an array or what becomes one, or a data frame, whose missing values become NaN.
        name: what messages call it.
        columns: names of the columns of an array.

    Raises:
        TypeError: it holds something that is not a real number.
        ValueError: a data frame has one name twice, or columns are named beside it.
    """
    if not is_frame(value):
        return Table(wire.numbers(value, name), None if columns is None else tuple(columns))
    if columns is not None:
        raise ValueError(f"columns: {name} is a table and has names; rename its columns instead")
    return _read_frame(value, name)


def _read_frame(frame: Any, name: str) -> Table:
    is_arrow = hasattr(frame, "column_names")
    labels = list(frame.column_names if is_arrow else frame.columns)
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ValueError(f"{name}: two columns are named {twice!r}; rename one")
    if not labels:
        raise ValueError(f"{name}: the table has no columns")
    read = frame.column if is_arrow else frame.__getitem__
    values = np.stack([_read_column(read(label), label, name) for label in labels], axis=1)
    # Of an array without names, pandas numbers the columns.
    has_names = not all(isinstance(label, int) for label in labels)
    return Table(values, tuple(map(str, labels)) if has_names else None)


def _read_column(column: Any, label: object, name: str) -> Array:
    values = np.asarray(column)
    if values.dtype.kind == "O":
        # None, or what else stands for a missing value.
        with suppress(TypeError, ValueError):
            values = np.array([_number(value) for value in values], np.float64)
    if values.dtype.kind not in "fiu":
        raise TypeError(
            f"{name}: column {label!r}: expected real numbers, got {values.dtype}; leave it out"
        )
    return values


def _number(value: object) -> float:
    """A number, or NaN for a missing one.

    Raises:
        TypeError: it is text or something else.
    """
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return float("nan")
    if isinstance(value, str | bytes | bool):
        raise TypeError(value)
    return float(value)  # type: ignore[arg-type]
