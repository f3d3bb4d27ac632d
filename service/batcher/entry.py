"""One request on its way through a batcher, and the pieces it is cut into."""

from typing import NamedTuple

import numpy as np

from service.contracts import Array, InferenceResult, ReplySink, SolverStats
from service.errors import ServiceError


class QueueEntry:
    """The rows of one request, how far they are, and whom to tell.

    The event loop makes it and fills `slot`; the worker thread alone writes results and
    `error`. `taken` and `turn` belong to the lanes and are guarded with them.

    Args:
        rows: (n, ...) in the model's dtype.
        context: (n, *context_shape), None for an unconditional model.
        deadline: when the answer is worth nothing any more, by the batcher's clock.
        arrived: when the request was admitted, by the same clock.
        slot: where the answer goes.
        requests: whose rows these are, as they are counted.
    """

    __slots__ = (
        "_computed",
        "_log_det",
        "_solves",
        "_value",
        "arrived",
        "compute_seconds",
        "context",
        "deadline",
        "error",
        "requests",
        "rows",
        "slot",
        "started",
        "taken",
        "total",
        "turn",
    )

    def __init__(
        self,
        rows: Array,
        context: Array | None,
        *,
        deadline: float,
        arrived: float,
        slot: ReplySink,
        requests: int = 1,
    ) -> None:
        self.rows = rows
        self.context = context
        self.total = len(rows)
        self.deadline = deadline
        self.arrived = arrived
        self.slot = slot
        self.requests = requests
        self.taken = 0
        self.turn = 0
        self.started: float | None = None
        self.compute_seconds = 0.0
        self.error: ServiceError | None = None
        self._computed = 0
        self._value: Array | None = None
        self._log_det: Array | None = None
        self._solves: SolverStats | None = None

    @property
    def waiting(self) -> int:
        """Rows no batch has taken yet."""
        return self.total - self.taken

    @property
    def is_gone(self) -> bool:
        """Whether computing further rows would help nobody: cancelled, expired or failed."""
        return self.error is not None or self.slot.done()

    def drop(self, row: int) -> None:
        """Take out one row, before any is taken."""
        self.rows = np.delete(self.rows, row, 0)
        if self.context is not None:
            self.context = np.delete(self.context, row, 0)
        self.total -= 1

    def accept(self, start: int, value: Array, log_det: Array) -> bool:
        """Take the results of rows `start`, `start + 1`, ...   -> whether all rows have theirs.

        A request that comes back whole is kept uncopied.
        """
        count = len(value)
        self._computed += count
        if count == self.total:
            self._value, self._log_det = value, log_det
            return True
        if self._value is None or self._log_det is None:
            self._value = np.empty((self.total, *value.shape[1:]), value.dtype)
            self._log_det = np.empty(self.total, log_det.dtype)
        self._value[start : start + count] = value
        self._log_det[start : start + count] = log_det
        return self._computed == self.total

    def note_solves(self, start: int, solves: SolverStats) -> None:
        """Take how rows `start`, `start + 1`, ... were solved."""
        if self._solves is None:
            self._solves = SolverStats(*(np.zeros(self.total, column.dtype) for column in solves))
        for mine, column in zip(self._solves, solves, strict=True):
            mine[start : start + len(column)] = column

    def answer(self) -> InferenceResult:
        """Join the results of a complete ticket.

        Raises:
            RuntimeError: if rows are missing.
        """
        if self._value is None or self._log_det is None or self._computed < self.total:
            raise RuntimeError(f"ticket: {self._computed} of {self.total} rows have a result")
        started = self.arrived if self.started is None else self.started
        wait = started - self.arrived
        return InferenceResult(self._value, self._log_det, wait, self.compute_seconds, self._solves)


class EntrySlice(NamedTuple):
    """Rows start .. stop - 1 of a ticket, going into one batch together."""

    ticket: QueueEntry
    start: int
    stop: int
