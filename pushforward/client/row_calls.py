"""Calls on rows: of any number, asked for in pieces that a server takes, and joined again."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, Literal, TypedDict, TypeVar

from numpy.typing import ArrayLike

from pushforward.client import answers, wire
from pushforward.client.answers import Decoded, Encoded, RowOutputs, Scores, read_outputs
from pushforward.client.calls import CHUNK_ROWS, Call, ask, check_options, is_one_each
from pushforward.client.errors import ResponseError, VersionChanged
from pushforward.client.failures import (
    OUTSIDE_SUPPORT,
    Failed,
    RowsFailed,
    check_failed,
    mask,
    read_failures,
)
from pushforward.client.frames import Table, read_table
from pushforward.client.wire import Array

T = TypeVar("T")

Invalid = Literal["refuse", "null"]
# What becomes an array, a data frame, or one PNG or JPEG picture.
Rows = Any
# The same, or an iterator over such parts.
RowParts = Any
Progress = Callable[[int, int], object]

# A quarter of what a server takes by default: a body of it is not long on the way.
_PIECE_BYTES = 16 * 2**20
# By the server, or by a proxy before it, which gives no code.
_TOO_LARGE = ((413, "too_large"), (413, ""))


class ChunkOptions(TypedDict, total=False):
    """What may be said of a call on rows beside the rows.

    context: of a conditional model: a label, labels, or rows of numbers; one for all, or one each.
    columns: names of the columns of an array, in its order; a data frame brings its own. Of
        decode, in which order the columns of x are wanted.
    invalid: of rows that hold NaN: "refuse" the call, or "null" for no answer to these alone.
    failed: of rows without an answer: "values" (NaN or an infinity), "mask" or "raise".
    chunk_rows: at most so many rows a request.
    """

    context: ArrayLike | None
    columns: Sequence[str] | None
    invalid: Invalid
    failed: Failed
    chunk_rows: int


class RowOptions(ChunkOptions, total=False):
    """What may be said of a call on rows beside the rows; see also `ChunkOptions`.

    progress: called after each request with the rows done, and those in all.
    """

    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a client says in all its calls."""

    model: str | None
    failed: Failed
    invalid: Invalid


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """What a client knows of an operation on rows.

    Args:
        name: as the server has it.
        tensor: what the rows are called, "x" or "z".
        outputs: the arrays that are read.
        finish: makes of the arrays of an answer, its model and version, what the caller gets.
        optional: arrays that an answer may have.
        scalars: what else it may have, of which `finish` gets that of the first piece.
        join: joins the answers of the pieces.
        is_answered_outside: whether a row outside of the support has an answer too.
    """

    name: str
    tensor: str
    outputs: tuple[str, ...]
    finish: Callable[[Mapping[str, Array], str, str], T]
    optional: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    join: Callable[[Sequence[RowOutputs]], RowOutputs] = answers.join
    is_answered_outside: bool = False


LOG_PROB: Operation[Array] = Operation(
    "log_prob", "x", ("log_prob",), lambda given, *_: given["log_prob"]
)
SCORES = Operation(
    "log_prob", "x", ("log_prob",), lambda given, *origin: Scores(given["log_prob"], *origin)
)
ENCODE = Operation(
    "encode",
    "x",
    ("z", "log_det"),
    lambda given, *origin: Encoded(given["z"], given["log_det"], *origin),
)
DECODE = Operation(
    "decode",
    "z",
    ("x", "log_det"),
    lambda given, *origin: Decoded(given["x"], given["log_det"], *origin),
)


@dataclass(slots=True)
class RowCall(Generic[T]):
    """An operation on rows; `spans` are the pieces in which a server is asked for it.

    Args:
        operation: which.
        table: the rows, or one picture.
        fields: what else is sent.
        context: one for all rows, or one each.
        failed: what the caller wants of rows without an answer.
        chunk_rows: rows in a piece; fewer once a server has refused as many.
        progress: told after each piece.
        first_row: index of the first row, where these are part of a stream.
    """

    operation: Operation[T]
    table: Table | bytes
    fields: Mapping[str, Any]
    context: Array | None
    failed: Failed
    chunk_rows: int
    progress: Progress | None = None
    first_row: int = 0

    @property
    def rows(self) -> int:
        """How many rows there are; what is no array of rows counts as one, and is not split."""
        if isinstance(self.table, bytes) or self.table.values.ndim < 2:
            return 1
        return len(self.table.values)

    def spans(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Split the rows: first and last plus one of each piece, read as they are needed."""
        end = self.rows if end is None else end
        while True:
            stop = min(start + self.chunk_rows, end)
            yield start, stop
            if stop == end:
                return
            start = stop

    def piece(self, start: int, stop: int) -> Call[RowOutputs]:
        """Ask for some of the rows."""
        is_whole = stop - start == self.rows
        operation, fields = self.operation, dict(self.fields)
        if isinstance(self.table, bytes):
            fields[operation.tensor] = self.table
        else:
            values = self.table.values
            fields[operation.tensor] = values if is_whole else values[start:stop]
            fields["columns"] = self.table.columns
        if self.context is not None:
            is_split = not is_whole and is_one_each(self.context, self.rows)
            fields["context"] = self.context[start:stop] if is_split else self.context
        # npy is cheaper, and does not say of each row what became of it.
        is_plain = len(operation.outputs) == 1 and self.failed == "values"
        accept = wire.NPY if is_plain else wire.NPZ
        read = partial(
            read_outputs,
            names=operation.outputs,
            optional=operation.optional,
            scalars=operation.scalars,
        )
        return ask(operation.name, fields, accept, read)

    def halve(self, start: int, stop: int, error: ResponseError) -> Iterator[tuple[int, int]]:
        """Split a piece that the server refused; those that follow are no larger.

        Raises:
            ResponseError: the error, where smaller pieces do not help.
        """
        rows = stop - start
        if (error.status_code, error.code) not in _TOO_LARGE or rows < 2:
            error.first_row = self.first_row + start
            raise error
        self.chunk_rows = min(self.chunk_rows, math.ceil(rows / 2))
        return self.spans(start, stop)

    def result(self, answer: RowOutputs, first_row: int) -> T:
        """Give an answer the form that the caller chose.

        Args:
            answer: of all rows, or of a piece.
            first_row: index of its first row.

        Raises:
            RowsFailed: a row has no answer, and the caller chose "raise".
        """
        failures = read_failures(answer.status, first_row)
        if self.operation.is_answered_outside:
            failures = tuple(one for one in failures if one.status != OUTSIDE_SUPPORT)
        arrays = answer.arrays
        if self.failed == "mask":
            arrays = {n: mask(values, failures, first_row) for n, values in arrays.items()}
        result = self.operation.finish({**arrays, **answer.said}, answer.model, answer.version)
        if failures and self.failed == "raise":
            raise RowsFailed(failures, len(answer), result)
        return result


@dataclass(slots=True)
class Joiner(Generic[T]):
    """Collects the answers of the pieces of one call, all by one version of the model."""

    call: RowCall[T]
    _parts: list[RowOutputs] = field(default_factory=list)
    _rows: int = 0

    def add(self, part: RowOutputs) -> None:
        """Take the answer of the next piece.

        Raises:
            VersionChanged: the model was replaced since the first.
        """
        self._parts.append(part)
        first = self._parts[0]
        if part.version != first.version:
            raise VersionChanged(part.model, first.version, part.version)
        self._rows += len(part)
        if self.call.progress is not None:
            self.call.progress(self._rows, self.call.rows)

    def result(self) -> T:
        """Join the answers."""
        return self.call.result(self.call.operation.join(self._parts), self.call.first_row)


def row_call(
    operation: Operation[T], rows: Rows, defaults: Defaults, options: RowOptions
) -> RowCall[T]:
    """Make a call on rows, or on one picture given as bytes.

    Raises:
        TypeError, ValueError: rows are no numbers, or an option is none.
    """
    check_options(options, RowOptions)
    invalid = options.get("invalid", defaults.invalid)
    context = options.get("context")
    table = _read(operation, rows, options.get("columns"))
    return RowCall(
        operation,
        table,
        # The default is not sent: a server that does not know the field does the same.
        {"model": defaults.model, "invalid": None if invalid == "refuse" else invalid},
        None if context is None else wire.numbers(context, "context"),
        check_failed(options.get("failed", defaults.failed)),
        _chunk_rows(table, options.get("chunk_rows", CHUNK_ROWS)),
        options.get("progress"),
    )


def stream_calls(
    operation: Operation[T], rows: RowParts, defaults: Defaults, options: ChunkOptions
) -> Iterator[RowCall[T]]:
    """Make the calls of a stream: one, or one each for the parts that an iterator gives."""
    check_options(options, ChunkOptions)
    given: RowOptions = {"progress": None, **options}
    first = 0
    for part in rows if isinstance(rows, Iterator) else (rows,):
        call = replace(row_call(operation, part, defaults, given), first_row=first)
        yield call
        first += call.rows


def _read(operation: Operation[Any], rows: Rows, columns: Sequence[str] | None) -> Table | bytes:
    if isinstance(rows, bytes):
        return rows
    if operation.tensor == "x":
        return read_table(rows, "x", columns)
    # The names of a table of latents are not the model's: named columns are those of the answer.
    named = None if columns is None else tuple(columns)
    return read_table(rows, operation.tensor)._replace(columns=named)


def _chunk_rows(table: Table | bytes, asked: int) -> int:
    """Rows in a piece: as many as asked for, if they are no long body.

    Raises:
        ValueError: pieces of no rows.
    """
    if asked < 1:
        raise ValueError(f"chunk_rows: expected at least 1, got {asked}")
    if isinstance(table, bytes) or not len(table.values):
        return asked
    return min(asked, max(1, _PIECE_BYTES // max(1, table.values[:1].nbytes)))
