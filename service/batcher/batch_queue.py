"""The queue between the event loop, which puts rows, and the worker thread, which takes batches."""

import contextlib
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.fair_queue import FairQueue


class BatchQueue:
    """A `FairQueue` behind a lock, with a wake-up for a worker that sleeps.

    The worker cuts its batch at the moment it is free, so rows that arrive while it computes join
    the next batch until the very last, and no round trip through the event loop stands between
    two batches. Nothing polls. It is the one place that two threads share.

    Args:
        queue: the entries; changed by nobody else from now on.
        max_delay_seconds: how long the oldest row may wait for a full batch; 0 takes what is there.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        queue: FairQueue,
        *,
        max_delay_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_delay_seconds = max_delay_seconds
        self._clock = clock
        self._wake_ups: SimpleQueue[None] = SimpleQueue()
        self._lock = threading.Lock()
        # Below: only with the lock held, but for reading numbers.
        self._queue = queue
        self._running_rows = 0
        self._is_sleeping = False
        self._is_flushing = False
        self._is_closed = False

    @property
    def waiting_rows(self) -> int:
        """Rows in no batch yet."""
        return self._queue.rows

    @property
    def short_rows(self) -> int:
        """Rows of the largest request that does not wait behind others of its size."""
        return self._queue.short_rows

    @property
    def is_closed(self) -> bool:
        """Whether no batch is cut any more."""
        return self._is_closed

    def rows_before(self, rows: int) -> tuple[int, int]:
        """Count what a new request would find before it.

        Returns:
            Rows in no batch yet, and rows that it would see computed first, those of the running
            batch included.
        """
        return self._queue.rows, self._queue.ahead_of(rows) + self._running_rows

    def put(self, entry: QueueEntry) -> bool:
        """Append an entry.

        Returns:
            Whether to `wake` the worker: it sleeps, and this entry changes how long.
        """
        with self._lock:
            queue = self._queue
            is_first = queue.rows == 0
            queue.add(entry)
            # A worker that waits for a full batch needs to see the first row and the last.
            if not self._is_sleeping or not (is_first or queue.rows >= queue.max_rows):
                return False
            self._is_sleeping = False
            return True

    def wake(self) -> None:
        """Wake the worker."""
        self._wake_ups.put(None)

    def discard(self, entry: QueueEntry) -> None:
        """Take an entry out; rows already in a batch are not stopped."""
        with self._lock:
            self._queue.discard(entry)

    def drop(self, entry: QueueEntry, row: int) -> bool:
        """Take one row out of an entry.

        Returns:
            False where it is still in: some rows of the entry are in a batch.
        """
        with self._lock:
            return self._queue.drop(entry, row)

    def clear(self) -> None:
        """Take everything out."""
        with self._lock:
            self._queue.clear()

    def flush(self) -> None:
        """Wait for full batches no longer."""
        with self._lock:
            self._is_flushing = True
        self.wake()

    def close(self) -> None:
        """Let `take` return None from now on."""
        with self._lock:
            self._is_closed = True
        self.wake()

    def take(self) -> list[EntrySlice] | None:
        """Wait for rows and cut a batch; called by the worker thread.

        Returns:
            The parts of the batch; None once the queue is closed.
        """
        while True:
            with self._lock:
                if self._is_closed:
                    return None
                delay = self._delay()
                if delay == 0:
                    waiting = self._queue.rows
                    parts = self._queue.take()
                    self._running_rows = waiting - self._queue.rows
                    return parts
                self._running_rows = 0
                self._is_sleeping = True
            with contextlib.suppress(Empty):
                self._wake_ups.get(timeout=delay)

    def _delay(self) -> float | None:
        """Seconds to wait for more rows: 0 to run now, None to wait for a wake-up."""
        oldest = self._queue.oldest()
        if oldest is None:
            return None
        if self._is_flushing or self._queue.rows >= self._queue.max_rows:
            return 0
        return max(0.0, oldest + self._max_delay_seconds - self._clock())
