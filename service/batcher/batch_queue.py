"""Where the event loop puts rows and the worker takes them: the one place two threads share."""

import contextlib
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.fair_queue import FairQueue


class BatchQueue:
    """The lanes behind a lock, and a bell for a worker that sleeps.

    The worker cuts its batch at the moment it is free, so rows that arrive while it computes join
    the next batch until the very last, and no round trip through the event loop stands between
    two batches. Nothing polls.

    Args:
        max_rows: rows in a batch.
        max_delay_seconds: how long the oldest row may wait for company; 0 takes what is there.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        max_rows: int,
        *,
        max_delay_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_rows = max_rows
        self._max_delay_seconds = max_delay_seconds
        self._clock = clock
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._guard = threading.Lock()
        # Below: only with the guard held, but for reading numbers.
        self._lanes = FairQueue(max_rows)
        self._running_rows = 0
        self._is_sleeping = False
        self._is_hurried = False
        self._is_closed = False

    @property
    def waiting_rows(self) -> int:
        """Rows in no batch yet."""
        return self._lanes.rows

    @property
    def short_rows(self) -> int:
        """How many rows a request may have that is not to wait behind others of its size."""
        return self._lanes.short_rows

    def rows_before(self, rows: int) -> tuple[int, int]:
        """Rows in no batch yet, and rows that a new request would see computed first.

        The latter include the batch that runs.
        """
        lanes = self._lanes
        return lanes.rows, lanes.ahead_of(rows) + self._running_rows

    def put(self, ticket: QueueEntry) -> bool:
        """Let a ticket wait.   -> whether to `ring`: the worker sleeps and this is news to it."""
        with self._guard:
            lanes = self._lanes
            is_first = lanes.rows == 0
            lanes.add(ticket)
            # A worker that waits for company needs to hear of the first row and of the last.
            if not self._is_sleeping or not (is_first or lanes.rows >= self._max_rows):
                return False
            self._is_sleeping = False
            return True

    def ring(self) -> None:
        """Wake the worker."""
        self._bell.put(None)

    def withdraw(self, ticket: QueueEntry) -> None:
        """Take a ticket back; rows already in a batch are not stopped."""
        with self._guard:
            self._lanes.discard(ticket)

    def drop(self, ticket: QueueEntry, row: int) -> bool:
        """Take one row back, from a ticket of which no batch has any.   -> whether that was so."""
        with self._guard:
            return self._lanes.drop(ticket, row)

    def clear(self) -> None:
        """Take everything back."""
        with self._guard:
            self._lanes.clear()

    def hurry(self) -> None:
        """Wait for company no longer."""
        with self._guard:
            self._is_hurried = True
        self.ring()

    def close(self) -> None:
        """Let `take` return None from now on."""
        with self._guard:
            self._is_closed = True
        self.ring()

    def take(self) -> list[EntrySlice] | None:
        """Wait for rows and cut a batch, in the worker thread.   -> None once closed."""
        while True:
            with self._guard:
                if self._is_closed:
                    return None
                pause = self._pause()
                if pause == 0:
                    waiting = self._lanes.rows
                    pieces = self._lanes.take()
                    self._running_rows = waiting - self._lanes.rows
                    return pieces
                self._running_rows = 0
                self._is_sleeping = True
            with contextlib.suppress(Empty):
                self._bell.get(timeout=pause)

    def _pause(self) -> float | None:
        """How long to wait for more rows: 0 to run now, None to wait for the bell."""
        oldest = self._lanes.oldest()
        if oldest is None:
            return None
        if self._is_hurried or self._lanes.rows >= self._max_rows:
            return 0
        return max(0.0, oldest + self._max_delay_seconds - self._clock())
