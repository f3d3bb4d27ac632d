"""Batches of numpy columns to the rows of a call, and its answer to columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.datasets.dialect import MISSING as MISSING_TEXTS
from models.datasets.dialect import is_number
from pushforward.batch.calls import CallResult
from pushforward.batch.compute import compute_rows, draw_rows
from pushforward.batch.layout import Wanted, find_layout
from pushforward.batch.rows import Codes, InputRows, context_of
from pushforward.batch.session import Session
from pushforward.batch.status import TEXT, WRONG_LENGTH, texts_of
from service.codec.missing import MISSING
from service.codec.tensors import Array

_SOURCE = "the batch"


def answer_batch(
    session: Session,
    operation: str,
    fields: Mapping[str, Any],
    batch: Mapping[str, Array],
    *,
    columns: Sequence[str] | None,
    context: Sequence[str] | None,
    keep: Sequence[str],
) -> dict[str, Array]:
    """Compute the rows of a batch of columns.

    Raises:
        ValueError: the columns are not the model's.
    """
    batch = {name: np.asanyarray(values) for name, values in batch.items()}
    if session.operation(operation).tensor_name is None:
        (name,) = number_columns(tuple(batch), operation, keep)
        result = draw_rows(session, operation, fields, batch[name])
    else:
        wanted = Wanted.of(session, operation, columns=columns, context=context, keep=keep)
        result = _compute(session, operation, fields, batch, wanted)
    twice = {*keep} & {*result.outputs, "status"}
    if twice:
        raise ValueError(f"keep: an output is called {min(twice)!r} too; rename the column")
    kept = {name: batch[name] for name in keep}
    return {**kept, **result.outputs, "status": texts_of(result.codes)}


def number_columns(found: Sequence[str], operation: str, keep: Sequence[str]) -> Sequence[str]:
    """The column that holds the numbers of the rows to draw: the one that there is.

    Raises:
        ValueError: there are several, or none, or one to keep is not there.
    """
    absent = [name for name in keep if name not in found]
    numbers = found if len(found) == 1 else [name for name in found if name not in keep]
    if len(numbers) != 1 or absent:
        raise ValueError(
            f"{operation}: expected one column of whole numbers"
            f"{' beside ' + ', '.join(keep) if keep else ''}, got {[*found]}"
        )
    return numbers


def _compute(
    session: Session,
    operation: str,
    fields: Mapping[str, Any],
    batch: Mapping[str, Array],
    wanted: Wanted,
) -> CallResult:
    layout = find_layout(tuple(batch), wanted, _SOURCE)
    counts = {len(batch[name]) for name in layout.names}
    if len(counts) != 1:
        raise ValueError(f"{_SOURCE}: expected columns of one length, got {sorted(counts)}")
    total = counts.pop()
    codes: Codes = {}
    if layout.is_tensor:
        values = _tensor(batch[layout.features[0]], wanted, codes)
    else:
        values = np.empty((total, len(layout.features)))
        for index, name in enumerate(layout.features):
            values[:, index] = _numbers(name, batch[name], codes)
        values = values.reshape(total, *wanted.shape)
    given = [batch[name] for name in layout.context]
    rows = InputRows(values, context_of(given, session.card, codes, _numbers), codes)
    return compute_rows(session, operation, fields, wanted.tensor, rows)


def _tensor(values: Array, wanted: Wanted, codes: Codes) -> Array:
    if values.dtype == object:
        return _lists(values, wanted, codes)
    if values.shape[1:] != wanted.shape and values[0:1].size != np.prod(wanted.shape):
        raise ValueError(
            f"{wanted.tensor}: expected rows of shape {wanted.shape}, got {values.shape[1:]}"
        )
    return values.reshape(len(values), *wanted.shape).astype(np.float64, copy=False)


def _lists(values: Array, wanted: Wanted, codes: Codes) -> Array:
    """Rows of objects, a list or an array each; one of another length is a fault of its row."""
    rows = np.full((len(values), wanted.width), MISSING)
    for index, given in enumerate(values):
        if given is None:
            continue
        flat = _flat(given)
        if len(flat) != wanted.width:
            codes[index] = WRONG_LENGTH
        elif flat.dtype == object:
            rows[index] = [_number(value, index, codes) for value in flat]
        else:
            rows[index] = flat
    return rows.reshape(len(values), *wanted.shape)


def _flat(given: Any) -> Array:
    """The values of a row, whatever holds them; as they are where not all are numbers."""
    try:
        values = np.asarray(given)
    except ValueError:  # lists of several lengths
        return np.empty(0)
    return values.ravel() if values.dtype.kind in "fiu" else values.astype(object).ravel()


def _numbers(name: str, values: Any, codes: Codes) -> Array:
    """The numbers of a column; what is missing or none is told of in `codes`.

    Raises:
        ValueError: it holds something else than numbers throughout.
    """
    if isinstance(values, np.ma.MaskedArray):
        filled: Array = np.ma.filled(values.astype(np.float64), MISSING)
        return filled
    if values.ndim == 1 and values.dtype.kind in "fiu":
        converted: Array = values.astype(np.float64)
        return converted
    if values.ndim != 1 or values.dtype.kind not in "OUT":
        raise ValueError(f"column {name!r} holds {values.dtype}, expected numbers, one a row")
    return np.array([_number(value, row, codes) for row, value in enumerate(values)], np.float64)


def _number(value: Any, row: int, codes: Codes) -> float:
    if value is None:
        return MISSING
    if isinstance(value, str):
        text = value.strip()
        if text in MISSING_TEXTS:
            return MISSING
        if is_number(text) and "_" not in text:
            return float(text)
    elif not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    codes[row] = TEXT
    return MISSING
