"""Batches of numpy columns to the rows of a call, and its answer to columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.datasets.dialect import is_number
from pushforward.batch.calls import RowCall
from pushforward.batch.layout import Wanted, find_layout
from pushforward.batch.rows import Codes, InputRows, context_of
from pushforward.batch.session import Session
from pushforward.batch.status import TEXT, texts_of
from service.codec.missing import MISSING
from service.codec.tensors import Array


def answer_batch(
    session: Session,
    operation: str,
    fields: Mapping[str, Any],
    batch: Mapping[str, Array],
    *,
    columns: Sequence[str] | None,
    context: Sequence[str] | None,
) -> dict[str, Array]:
    """Compute the rows of a batch of columns.

    Raises:
        ValueError: the columns are not the model's.
    """
    batch = {name: np.asanyarray(values) for name, values in batch.items()}
    if session.operation(operation).tensor_name is None:
        return _draw(session, operation, fields, batch)
    wanted = Wanted.of(session, operation, columns=columns, context=context)
    layout = find_layout(tuple(batch), wanted, "the batch")
    counts = {len(batch[name]) for name in (*layout.features, *layout.context)}
    if len(counts) != 1:
        raise ValueError(f"the batch: expected columns of one length, got {sorted(counts)}")
    total = counts.pop()
    codes: Codes = {}
    if layout.is_tensor:
        values = _tensor(batch[layout.features[0]], wanted)
    else:
        values = np.empty((total, len(layout.features)))
        for index, name in enumerate(layout.features):
            values[:, index] = _numbers(name, batch[name], codes)
        values = values.reshape(total, *wanted.shape)
    given = [batch[name] for name in layout.context]
    rows = InputRows(values, context_of(given, session.card, codes, _numbers), codes)
    return answer_rows(session, operation, fields, wanted.tensor, rows)


def answer_rows(
    session: Session, operation: str, fields: Mapping[str, Any], tensor: str, rows: InputRows
) -> dict[str, Array]:
    """Compute rows, and name what came of them."""
    if not len(rows.values):
        answer = session.try_fields(operation, fields)
        return {name: values[:0] for name, values in answer.outputs.items()} | {
            "status": texts_of(answer.codes[:0])
        }
    answer = session.compute(rows.call(operation, fields, tensor))
    codes = rows.codes_with(answer.codes)
    return {**answer.outputs, "status": texts_of(codes)}


def _draw(
    session: Session, operation: str, fields: Mapping[str, Any], batch: Mapping[str, Array]
) -> dict[str, Array]:
    """Draw the rows of the numbers in the one column of a batch, run by run."""
    if len(batch) != 1 or (numbers := next(iter(batch.values()))).dtype.kind not in "iu":
        raise ValueError(f"{operation}: expected one column of whole numbers, got {[*batch]}")
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    answers = [
        session.start(RowCall(operation, fields, {}, len(run), int(run[0])))
        for run in runs
        if len(run)
    ]
    if not answers:
        empty = session.try_fields(operation, fields)
        found = [empty._replace(codes=empty.codes[:0], outputs=_none(empty.outputs))]
    else:
        found = [answer.result() for answer in answers]
    outputs = {
        name: np.concatenate([each.outputs[name] for each in found]) for name in found[0].outputs
    }
    return {**outputs, "status": texts_of(np.concatenate([each.codes for each in found]))}


def _none(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: values[:0] for name, values in outputs.items()}


def _tensor(values: Array, wanted: Wanted) -> Array:
    if values.dtype == object:
        values = np.stack([np.asarray(row, np.float64) for row in values])
    if values.shape[1:] != wanted.shape and values[0:1].size != np.prod(wanted.shape):
        raise ValueError(
            f"{wanted.tensor}: expected rows of shape {wanted.shape}, got {values.shape[1:]}"
        )
    return values.reshape(len(values), *wanted.shape).astype(np.float64, copy=False)


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
        if is_number(value):
            return float(value)
    elif not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    codes[row] = TEXT
    return MISSING
