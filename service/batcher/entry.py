"""Queue entries, and the parts of them that go into one batch."""

from typing import NamedTuple, Protocol

import numpy as np

from service.contracts import Array, InferenceResult, QueueShare, ReplySink, SolverStats
from service.errors import ServiceError


class Owner(Protocol):
    """What can cancel an entry: the batcher that took it."""

    def cancel(self, entry: "QueueEntry") -> None:
        """Drop all rows that are not computed yet."""
        ...

    def cancel_row(self, entry: "QueueEntry", row: int) -> bool:
        """Cancel one of several requests; see `service.contracts.QueueHandle`."""
        ...


class QueueEntry:
    """A queue entry: the rows of one request, how far they are, and where the reply goes.

    It is also the `QueueHandle` by which they are cancelled.

    The event loop makes it and fills `sink`; the threads of instances write results and `error`,
    one at a time (`BatchExecutor`). `taken` and `turn` belong to the `FairQueue` and are guarded
    with it.

    Args:
        rows: (n, ...) in the model's dtype.
        context: (n, *context_shape), None for an unconditional model.
        deadline: when the answer is worth nothing any more, by the batcher's clock.
        arrived: when the request was admitted, by the same clock.
        sink: where the answer goes.
        owner: what took it.
        requests: whose rows these are, as they are counted: of one, or one row of each.
        share: of the queue, where it is shared by keys.

    is_coalesced: whether there were several requests.
    error: of the whole entry. errors: of single rows of a coalesced one.
    """

    __slots__ = (
        "_computed",
        "_log_det",
        "_owner",
        "_stats",
        "_value",
        "arrived",
        "compute_seconds",
        "context",
        "deadline",
        "error",
        "errors",
        "is_coalesced",
        "requests",
        "rows",
        "share",
        "sink",
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
        sink: ReplySink,
        owner: Owner,
        requests: int = 1,
        share: QueueShare | None = None,
    ) -> None:
        self.rows = rows
        self.context = context
        self.total = len(rows)
        self.deadline = deadline
        self.arrived = arrived
        self.sink = sink
        self._owner = owner
        self.requests = requests
        self.share = share
        self.taken = 0
        self.turn = 0
        self.started: float | None = None
        self.compute_seconds = 0.0
        self.error: ServiceError | None = None
        self.errors: dict[int, ServiceError] = {}
        self.is_coalesced = requests > 1
        self._computed = 0
        self._value: Array | None = None
        self._log_det: Array | None = None
        self._stats: SolverStats | None = None

    @property
    def waiting(self) -> int:
        """Rows no batch has taken yet."""
        return self.total - self.taken

    @property
    def is_gone(self) -> bool:
        """Whether computing further rows would help nobody: cancelled, expired or failed."""
        return self.error is not None or self.sink.done()

    def cancel(self) -> None:
        """Drop all rows that are not computed yet; see `QueueHandle`."""
        self._owner.cancel(self)

    def cancel_row(self, row: int) -> bool:
        """Cancel one of several requests; see `QueueHandle`."""
        return self._owner.cancel_row(self, row)

    def drop(self, row: int) -> None:
        """Take out one row, before any is taken."""
        self.rows = np.delete(self.rows, row, 0)
        if self.context is not None:
            self.context = np.delete(self.context, row, 0)
        self.total -= 1

    def add_results(self, start: int, value: Array, log_det: Array) -> bool:
        """Store the results of rows `start`, `start + 1`, ...

        A request that comes back whole is kept uncopied.

        Returns:
            Whether all rows have their results, and the entry has not failed before.
        """
        if self.error is not None:
            return False
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

    def add_error(self, start: int, stop: int, error: ServiceError) -> bool:
        """Note that rows start .. stop - 1 have no results; without several requests, none has.

        Returns:
            Whether all rows have their results or an error.
        """
        self.errors.update(dict.fromkeys(range(start, stop), error))
        self._computed += stop - start
        if not self.is_coalesced or len(self.errors) == self.total:
            self.error = error
        return self.error is not None or self._computed == self.total

    def add_stats(self, start: int, stats: SolverStats) -> None:
        """Store the solver statistics of rows `start`, `start + 1`, ..."""
        if self._stats is None:
            self._stats = SolverStats(*(np.zeros(self.total, column.dtype) for column in stats))
        for own, column in zip(self._stats, stats, strict=True):
            own[start : start + len(column)] = column

    def result(self) -> InferenceResult:
        """Give the results of a complete entry.

        Raises:
            RuntimeError: rows are missing.
        """
        if self._value is None or self._log_det is None or self._computed < self.total:
            raise RuntimeError(f"entry: {self._computed} of {self.total} rows have a result")
        started = self.arrived if self.started is None else self.started
        wait = started - self.arrived
        return InferenceResult(
            self._value, self._log_det, wait, self.compute_seconds, self._stats, self.errors
        )


class EntrySlice(NamedTuple):
    """A slice of an entry: its rows start .. stop - 1, going into one batch together."""

    entry: QueueEntry
    start: int
    stop: int
