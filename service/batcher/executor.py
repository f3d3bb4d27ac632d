"""The execution of one batch: assemble, compute, check, split, isolate what fails."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.started_batch import StartedBatch
from service.contracts import Array, EngineOutput, SolverStats
from service.engines.device_errors import release_frames
from service.engines.engine import EngineLost, EngineOutOfMemory, PendingBatch
from service.errors import EngineError, NotReady, ServiceError

# Bisection finds one culprit among n requests in 2 log2(n) further calls; this allows about four
# culprits a batch, and bounds what an engine that fails on everything can cost.
_CALLS_A_LEVEL = 8


@dataclass(frozen=True, slots=True)
class EngineCall:
    """An engine function with the shapes of one row in and out: what a batcher runs.

    call: (rows (B, *takes), context (B, *context_shape) | None) -> (value (B, *gives), log_det),
        and how the rows were solved if the flow is continuous.
    start: begins what `call` does, where the engine can; None where it computes at once.
    """

    call: Callable[[Array, Array | None], EngineOutput]
    takes: tuple[int, ...]
    gives: tuple[int, ...]
    context_shape: tuple[int, ...] | None
    dtype: str
    start: Callable[[Array, Array | None], PendingBatch] | None = None


@dataclass(slots=True)
class BatchResult:
    """The result of one batch; `rows` and `seconds` count successful engine calls only.

    evaluations: of the vector field of a continuous flow, one number a row.
    fitting_rows: where memory ran out, half of the fewest rows that it ran out for; else None.
    """

    rows: int = 0
    seconds: float = 0.0
    non_finite_rows: int = 0
    evaluations: list[int] = field(default_factory=list)
    first_error: Exception | None = None
    fitting_rows: int | None = None

    def note_out_of_memory(self, rows: int, error: Exception) -> None:
        """Note that memory ran out for so many rows."""
        self.first_error = self.first_error or error
        half = max(1, rows // 2)
        self.fitting_rows = half if self.fitting_rows is None else min(half, self.fitting_rows)


class ComputedRows(NamedTuple):
    """What came of rows that were computed alone, at once.

    began: when the engine was called. seconds: that it took.
    stats: how the rows were solved, of a continuous flow.
    """

    value: Array
    log_det: Array
    stats: SolverStats | None
    began: float
    seconds: float
    non_finite_rows: int


class BatchExecutor:
    """Executes batches of up to `max_rows` rows; an engine error costs its culprit only.

    Args:
        engine_call: the engine function and its shapes.
        max_rows: rows the batch buffer holds.
        is_fixed: run every batch at exactly `max_rows` rows, padded with copies of its first row.
            An engine whose rounding depends on the batch size then gives a row the same bits
            whatever arrives beside it.
        clock: monotonic seconds.
        lock: guards entries of which several executors compute a part.
    """

    def __init__(
        self,
        engine_call: EngineCall,
        max_rows: int,
        *,
        is_fixed: bool = False,
        clock: Callable[[], float] = time.monotonic,
        lock: "threading.Lock | None" = None,
    ) -> None:
        self._engine_call = engine_call
        self.max_rows = max_rows
        self._lock = lock or threading.Lock()
        self._is_fixed = is_fixed
        self._clock = clock
        self._rows = np.zeros((max_rows, *engine_call.takes), engine_call.dtype)
        shape = engine_call.context_shape
        self._context = None if shape is None else np.zeros((max_rows, *shape), engine_call.dtype)
        self._finished = -math.inf  # when the last batch that was started was computed

    @property
    def is_pipelined(self) -> bool:
        """Whether a batch can be started while another one computes."""
        return self._engine_call.start is not None

    def start(self, parts: list[EntrySlice]) -> StartedBatch | None:
        """Assemble a batch and have it computed, for `run`; None where the engine computes at once.

        Raises:
            EngineLost: the engine will never work again.
        """
        start = self._engine_call.start
        group = [part for part in parts if not part.entry.is_gone]
        if start is None or not group:
            return None
        rows, context, count = self._assemble(group)
        started = StartedBatch(group, count, len(rows), self._clock())
        try:
            started.pending = start(rows, context)
        except EngineLost:
            raise
        except Exception as error:  # told by `run`, which finds the culprit
            release_frames(error)
            started.error = error
        return started

    def run(
        self, parts: list[EntrySlice], started: StartedBatch | None = None
    ) -> tuple[list[QueueEntry], BatchResult]:
        """Compute a batch; every entry ends with its results, or with an error.

        Args:
            parts: of the batch.
            started: what `start` gave for them.

        Returns:
            The entries that have all their results, or an error; and what the batch came to.

        Raises:
            EngineLost: the engine will never work again.
        """
        result = BatchResult()
        finished: list[QueueEntry] = []
        calls_left = 1 + _CALLS_A_LEVEL * math.ceil(math.log2(sum(map(_requests, parts)) + 1))
        groups = [(parts if started is None else started.group, False)]
        while groups:
            group, is_retry = groups.pop()
            if started is None:
                group = [part for part in group if not part.entry.is_gone]
            if not group:  # nobody is left to answer
                continue
            calls_left -= 1
            try:
                if started is None:
                    finished += self._compute(group, result)
                else:
                    finishing, started = started, None
                    finished += self._finish(finishing, result)
            except EngineLost:
                raise
            except (EngineOutOfMemory, MemoryError) as error:
                release_frames(error)
                result.note_out_of_memory(sum(map(_rows, group)), error)
                if is_retry or sum(map(_rows, group)) == 1:
                    finished += self._fail(group, NotReady, "the device has too little memory now")
                else:
                    groups += [(half, True) for half in _halve(group, _rows)]
            except Exception as error:  # whatever an engine raises must not end the worker
                release_frames(error)  # of all rows, while parts of them are tried again
                result.first_error = result.first_error or error
                if calls_left <= 0 or sum(map(_requests, group)) == 1:
                    finished += self._fail(group, EngineError, "the engine failed on these rows")
                else:
                    first, second = _halve(group, _requests)
                    groups += [(second, is_retry), (first, is_retry)]
        return finished, result

    def compute(self, rows: Array, context: Array | None) -> ComputedRows:
        """Compute rows as one batch of their number that nobody else is in.

        Raises:
            Exception: whatever the engine raises.
        """
        began = self._clock()
        value, log_det, *more = self._engine_call.call(rows, context)
        seconds = self._clock() - began
        self._check(value, log_det, len(rows))
        stats = more[0] if more else None
        return ComputedRows(value, log_det, stats, began, seconds, _non_finite_rows(value, log_det))

    def _compute(self, group: list[EntrySlice], result: BatchResult) -> list[QueueEntry]:
        rows, context, count = self._assemble(group)
        began = self._clock()
        output = self._engine_call.call(rows, context)
        return self._add_results(group, output, result, rows=len(rows), count=count, began=began)

    def _finish(self, batch: StartedBatch, result: BatchResult) -> list[QueueEntry]:
        output = batch.finish()
        # The device came to it when it had done the one before: that is its pace.
        began = max(batch.began, self._finished)
        self._finished = self._clock()
        return self._add_results(
            batch.group, output, result, rows=batch.rows, count=batch.count, began=began
        )

    def _add_results(
        self,
        group: list[EntrySlice],
        output: EngineOutput,
        result: BatchResult,
        *,
        rows: int,
        count: int,
        began: float,
    ) -> list[QueueEntry]:
        """Check what the engine gave, and share it out to the entries.

        Args:
            group: the parts of the batch.
            output: of the engine.
            result: gets what the batch came to.
            rows: of the batch, with padding.
            count: of the parts.
            began: when the engine came to it.
        """
        value, log_det, *more = output
        seconds = self._clock() - began
        self._check(value, log_det, rows)
        result.non_finite_rows += _non_finite_rows(value[:count], log_det[:count])
        result.rows += count
        result.seconds += seconds
        finished, offset = [], 0
        with self._lock:
            if more:
                self._add_stats(more[0], group, count, result)
            for entry, start, stop in group:
                end = offset + stop - start
                if entry.started is None or began < entry.started:
                    entry.started = began
                entry.compute_seconds += seconds
                if entry.add_results(start, value[offset:end], log_det[offset:end]):
                    finished.append(entry)
                offset = end
        return finished

    def _fail(
        self, group: list[EntrySlice], kind: type[ServiceError], detail: str
    ) -> list[QueueEntry]:
        with self._lock:
            return [
                entry
                for entry, start, stop in group
                if entry.error is None and entry.add_error(start, stop, kind(detail))
            ]

    def _add_stats(
        self, stats: SolverStats, group: list[EntrySlice], count: int, result: BatchResult
    ) -> None:
        """Split the solver statistics of a batch over its entries."""
        result.evaluations += stats.evaluations[:count].tolist()
        offset = 0
        for entry, start, stop in group:
            end = offset + stop - start
            entry.add_stats(start, SolverStats(*(column[offset:end] for column in stats)))
            offset = end

    def _assemble(self, group: list[EntrySlice]) -> tuple[Array, Array | None, int]:
        """Copy the parts into the batch's memory.

        Returns:
            Rows, context, and how many of the rows are no padding.
        """
        blocks = [
            entry.rows if stop - start == entry.total else entry.rows[start:stop]
            for entry, start, stop in group
        ]
        count = sum(map(len, blocks))
        np.concatenate(blocks, out=self._rows[:count])
        if self._context is not None:
            blocks = [_context(entry)[start:stop] for entry, start, stop in group]
            np.concatenate(blocks, out=self._context[:count])
        if self._is_fixed:
            self._rows[count:] = self._rows[0]
            if self._context is not None:
                self._context[count:] = self._context[0]
            return self._rows, self._context, count
        context = None if self._context is None else self._context[:count]
        return self._rows[:count], context, count

    def _check(self, value: Array, log_det: Array, rows: int) -> None:
        expected = (rows, *self._engine_call.gives)
        if value.shape != expected or log_det.shape != (rows,):
            raise RuntimeError(
                f"engine: expected value {expected} and log_det ({rows},), "
                f"got {value.shape} and {log_det.shape}"
            )
        if value.dtype != self._rows.dtype or log_det.dtype != self._rows.dtype:
            raise RuntimeError(
                f"engine: expected {self._rows.dtype}, got {value.dtype} and {log_det.dtype}"
            )


def _rows(part: EntrySlice) -> int:
    return part.stop - part.start


def _requests(part: EntrySlice) -> int:
    """How many requests a slice has rows of: each row of a coalesced entry is one of its own."""
    return part.stop - part.start if part.entry.is_coalesced else 1


def _context(entry: QueueEntry) -> Array:
    if entry.context is None:
        raise RuntimeError("entry: a conditional model's rows came without context")
    return entry.context


def _halve(
    group: list[EntrySlice], size_of: Callable[[EntrySlice], int]
) -> tuple[list[EntrySlice], list[EntrySlice]]:
    """Split a batch in the middle, through a slice where it must be.

    Args:
        group: the batch.
        size_of: what is halved: rows, or requests; a slice of size 1 stays whole.
    """
    first: list[EntrySlice] = []
    second: list[EntrySlice] = []
    room = sum(map(size_of, group)) // 2
    for part in group:
        entry, start, stop = part
        size = size_of(part)
        middle = stop if size <= room else start + room if size > 1 else start
        if middle > start:
            first.append(EntrySlice(entry, start, middle))
        if middle < stop:
            second.append(EntrySlice(entry, middle, stop))
        room = max(0, room - size)
    return first, second


def _non_finite_rows(value: Array, log_det: Array) -> int:
    # A sum of squares that is finite has finite terms, and takes a fifth of the time to make.
    if math.isfinite(np.vdot(value, value)) and math.isfinite(np.vdot(log_det, log_det)):
        return 0
    is_finite = np.isfinite(value)
    if is_finite.all() and np.isfinite(log_det).all():
        return 0
    per_row = is_finite.reshape(len(value), -1).all(1) & np.isfinite(log_det)
    return int((~per_row).sum())
