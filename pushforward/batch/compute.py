"""Rows of any batch through a session: what came of all of them, bad rows named."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pushforward.batch.calls import CallResult, RowCall, join
from pushforward.batch.rows import InputRows
from pushforward.batch.session import Session
from service.codec.tensors import Array


def compute_rows(
    session: Session, operation: str, fields: Mapping[str, Any], tensor: str, rows: InputRows
) -> CallResult:
    """Compute rows; what was wrong with some before is told too.

    Raises:
        ValueError: the fields are not what the operation takes, or the rows not the model's.
    """
    if not len(rows.values):
        return _empty(session, operation, fields)
    result = session.compute(rows.call(operation, fields, tensor))
    return result._replace(codes=rows.codes_with(result.codes))


def draw_rows(
    session: Session, operation: str, fields: Mapping[str, Any], numbers: Array
) -> CallResult:
    """Draw the rows that have these numbers in the seed's endless draw, run by run.

    Raises:
        ValueError: they are no whole numbers, or the fields are not what the operation takes.
    """
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"{operation}: expected one column of whole numbers, got {numbers.dtype} of shape "
            f"{numbers.shape}"
        )
    if not len(numbers):
        return _empty(session, operation, fields)
    # The difference alone is 1 too where it wraps: of uint8, from 255 to 0.
    is_next = (np.diff(numbers) == 1) & (numbers[1:] > numbers[:-1])
    runs = np.split(numbers, np.flatnonzero(~is_next) + 1)
    started = [session.start(RowCall(operation, fields, {}, len(run), int(run[0]))) for run in runs]
    return join([each.result() for each in started])


def _empty(session: Session, operation: str, fields: Mapping[str, Any]) -> CallResult:
    """What comes of no rows: the same columns."""
    one = session.try_fields(operation, fields)
    outputs = {name: values[:0] for name, values in one.outputs.items()}
    return CallResult(outputs, one.codes[:0], one.unknown[:0])
