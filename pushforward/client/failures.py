"""Rows without an answer: as values, as a mask, or as an exception, as the caller chooses."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from pushforward.client.errors import ClientError
from pushforward.client.wire import Array

T = TypeVar("T")

Failed = Literal["values", "mask", "raise"]
FAILED: tuple[Failed, ...] = ("values", "mask", "raise")

OUTSIDE_SUPPORT = "outside_support"
# What the array `status` of an answer holds for each row, where it is not 0: status and reason.
STATUSES = {
    1: ("solver_failed", "budget_spent"),
    2: ("solver_failed", "step_underflow"),
    3: ("solver_failed", "non_finite"),
    4: (OUTSIDE_SUPPORT, "out_of_bounds"),
    5: (OUTSIDE_SUPPORT, "density_underflow"),
    6: ("not_a_number", "nan"),
    7: ("not_a_number", "infinite"),
    8: ("invalid_input", "missing"),
    9: ("invalid_input", "nan"),
    10: ("invalid_input", "infinite"),
    11: ("invalid_input", "too_large"),
}


class Failure(NamedTuple):
    """A row without an answer.

    row: its index among the rows of the call.
    status: solver_failed, outside_support, not_a_number or invalid_input; "" of a picture's.
    reason: what is known beside it, such as missing or budget_spent.
    """

    row: int
    status: str
    reason: str


class MaskedRows(np.ma.MaskedArray[Any, Any]):
    """An array whose rows without an answer are masked; `failures` says what became of them."""

    failures: tuple[Failure, ...] = ()

    def __array_finalize__(self, other: Any) -> None:
        super().__array_finalize__(other)
        self.failures = getattr(other, "failures", ())


class RowsFailed(ClientError):
    """Rows have no answer, and the caller asked for an exception (`failed="raise"`).

    Args:
        failures: the rows, with status and reason.
        rows: how many there were in all; None where not known.
        answer: the whole answer; the numbers of the failed rows are NaN or infinite.
    """

    def __init__(self, failures: Sequence[Failure], rows: int | None, answer: object) -> None:
        shown = ", ".join(
            f"{row} ({status}: {reason})" if status else str(row)
            for row, status, reason in failures[:5]
        )
        more = f" and {len(failures) - 5} more" if len(failures) > 5 else ""
        of = "" if rows is None else f" of {rows}"
        super().__init__(f"{len(failures)}{of} rows have no answer: rows {shown}{more}")
        self.failures = tuple(failures)
        self.answer = answer


def check_failed(value: str) -> Failed:
    """Read what a caller wants of rows without an answer.

    Raises:
        ValueError: it is none of the choices.
    """
    for choice in FAILED:
        if value == choice:
            return choice
    raise ValueError(f"failed: expected {', '.join(map(repr, FAILED))}, got {value!r}")


def read_failures(status: Array | None, first_row: int = 0) -> tuple[Failure, ...]:
    """The rows that have no answer, by their status."""
    if status is None:
        return ()
    return tuple(
        Failure(first_row + int(row), *STATUSES.get(code, (f"status {code}", "")))
        for row in np.flatnonzero(status)
        if (code := int(status[row]))
    )


def mask(values: Array, failures: Sequence[Failure], first_row: int = 0) -> MaskedRows:
    """Mask the rows that have no answer."""
    masked = np.ma.array(values, mask=np.zeros(values.shape, bool)).view(MaskedRows)
    masked[[failure.row - first_row for failure in failures]] = np.ma.masked
    masked.failures = tuple(failures)
    return masked


def join_masked(parts: Sequence[Any]) -> Array:
    """Join arrays of rows whose failures count from the first of them all."""
    joined = np.concatenate([np.ma.getdata(part) for part in parts])
    found = [failure for part in parts for failure in getattr(part, "failures", ())]
    return mask(joined, found) if isinstance(parts[0], MaskedRows) else joined
