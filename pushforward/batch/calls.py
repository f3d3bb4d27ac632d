"""What is asked of some rows, and what came of it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from service.codec.missing import INVALID, NULL
from service.codec.tensors import Array


class ComputeError(RuntimeError):
    """Rows that could not be computed for no fault of theirs, nor of what was asked of them."""


class CallResult(NamedTuple):
    """What came of some rows, in their order.

    outputs: by name, a row each; NaN where a number is not finite.
    codes: of each row, 0 where it has its numbers, else an index into
        `service.operations.failures.CODES`.
    unknown: rows of which nothing is known, not even what is no number.
    """

    outputs: dict[str, Array]
    codes: Array
    unknown: Array


class RowCall(NamedTuple):
    """What is asked of some rows.

    operation: its name.
    fields: of the request, the same for all rows.
    rows: fields with a row each.
    total: how many rows.
    first_row: of a draw, where it begins; None of other operations.
    """

    operation: str
    fields: Mapping[str, Any]
    rows: Mapping[str, Array]
    total: int
    first_row: int | None = None

    def part(self, start: int, stop: int) -> dict[str, Any]:
        """The fields of a request for some of the rows."""
        cut = {name: values[start:stop] for name, values in self.rows.items()}
        if self.first_row is None:
            return {**self.fields, **cut, INVALID: NULL}
        drawn = {"num_samples": stop - start, "first_row": self.first_row + start}
        return {**self.fields, **cut, **drawn}


class PendingCall:
    """Rows that are being computed.

    Args:
        parts: of the call, in the order of their rows.
    """

    def __init__(self, parts: "Sequence[Future[CallResult]]") -> None:
        self._parts = parts

    def result(self) -> CallResult:
        """Wait for what comes of the rows.

        Raises:
            ValueError: the call is refused.
            ComputeError: the engine failed.
        """
        return join([part.result() for part in self._parts])


def finite(values: Array) -> Array:
    """Put NaN in the place of infinities; a row of several numbers is all there or not at all."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return values
    is_bad: Array = ~np.isfinite(values)
    if values.ndim > 1:
        is_bad = np.asarray(is_bad.reshape(len(values), -1).any(1))
    values = values.copy()
    values[is_bad] = np.nan
    return values


def join(answers: Sequence[CallResult]) -> CallResult:
    """The result of all rows, of the results of their parts."""
    if len(answers) == 1:
        return answers[0]
    names = answers[0].outputs.keys()
    joined = {
        name: np.concatenate([each.outputs[name] for each in answers])
        for name in names
        if all(name in each.outputs for each in answers)
    }
    codes = np.concatenate([each.codes for each in answers])
    return CallResult(joined, codes, np.concatenate([each.unknown for each in answers]))
