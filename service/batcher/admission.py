"""Admission control: rows that fit into the queue, and whose answer can come in time."""

from collections.abc import Callable

from service.batcher.batch_queue import BatchQueue
from service.batcher.policy import QueuePolicy
from service.batcher.retry import RetrySchedule
from service.contracts import QueueShare
from service.errors import DeadlineExceeded, Overloaded, TooLarge
from service.telemetry import QueueMetrics

# Of the time that a queue may take, what is left for what the prediction misses.
_MARGIN = 0.2


class Admission:
    """Admission control of one queue: refuses at once what would only be refused later.

    The queue is bounded in rows and in time: a request that would wait for its first batch longer
    than `max_queue_seconds`, less a margin, is refused. How long it would is predicted from the
    pace of the batches before, first those of the warm-up; as long as nothing is known nothing is
    refused. However slow an engine is or seems, what finds nothing waiting and an instance free is
    accepted, and so are rows of the batch that comes next, if an instance is free in time for that.
    So a slow engine has work always, and one that was slow for a while is measured again.

    Args:
        policy: the limits.
        queue: where the rows wait.
        metrics: where refusals are counted.
        clock: monotonic seconds.

    max_rows: that may wait.
    """

    def __init__(
        self,
        policy: QueuePolicy,
        queue: BatchQueue,
        metrics: QueueMetrics,
        clock: Callable[[], float],
    ) -> None:
        self.max_rows = policy.max_queue_rows
        self._max_seconds = (1 - _MARGIN) * policy.max_queue_seconds
        self._queue = queue
        self._metrics = metrics
        self._clock = clock
        self._retries = RetrySchedule()

    def free_short_rows(self) -> int:
        """Count the rows a request may have that is short and fits, now; at least 1."""
        free = self.max_rows - self._queue.waiting_rows
        return max(1, min(self._queue.short_rows, free))

    def check(
        self, rows: int, seconds_left: float, requests: int, share: QueueShare | None = None
    ) -> None:
        """Admit rows that so many requests of a key send together, or refuse them.

        Raises:
            TooLarge: they would never fit.
            DeadlineExceeded: they come too late.
            Overloaded: they do not fit now, or could not be computed in time.
        """
        limit, throughput = self.max_rows, self._queue.throughput
        if rows > limit:
            raise TooLarge(f"expected at most {limit} rows a request, got {rows}: send fewer")
        if seconds_left <= 0:
            self._metrics.drop("deadline", requests)
            raise DeadlineExceeded("the deadline had passed on arrival")
        waiting, ahead = self._queue.rows_before(rows, share)
        if waiting + rows > limit and not self._queue.fits(rows, limit, share):
            problem = f"{waiting} of at most {limit} rows wait, {rows} more do not fit"
            least = throughput.retry_after(waiting)
        elif throughput.seconds_for(ahead) > seconds_left:
            # To accept it would only turn this 429 into a later 504, and waste the wait.
            problem = f"the {ahead} rows ahead take longer than this request may wait"
            least = throughput.retry_after(ahead)
        elif (seconds := self._queue.seconds_before(rows, share)) > self._max_seconds:
            problem = f"the {ahead} rows ahead take {seconds:.2g} s, longer than a queue may take"
            least = throughput.retry_after(ahead)
        else:
            return
        self._metrics.drop("overloaded", requests)
        raise Overloaded(problem, retry_after=self._retry_after(rows, least), is_counted=True)

    def _retry_after(self, rows: int, least: int) -> int:
        rate = self._queue.throughput.rows_per_second
        window = min(self._max_seconds, self.max_rows / rate) if rate else 0.0
        return self._retries.seconds(rows, self._clock(), least=least, rate=rate, window=window)
