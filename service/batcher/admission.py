"""Admission control: rows that fit into the queue, and whose answer can come in time."""

from service.batcher.batch_queue import BatchQueue
from service.batcher.throughput import ThroughputEstimator
from service.errors import DeadlineExceeded, Overloaded, TooLarge
from service.telemetry import QueueMetrics


class Admission:
    """Admission control of one queue: refuses at once what would only be refused later.

    Args:
        max_rows: that wait, at most.
        queue: where they wait.
        throughput: how fast they are computed.
        metrics: where refusals are counted.
    """

    def __init__(
        self,
        max_rows: int,
        queue: BatchQueue,
        throughput: ThroughputEstimator,
        metrics: QueueMetrics,
    ) -> None:
        self._max_rows = max_rows
        self._queue = queue
        self._throughput = throughput
        self._metrics = metrics

    def free_short_rows(self) -> int:
        """Count the rows a request may have that is short and fits, now; at least 1."""
        free = self._max_rows - self._queue.waiting_rows
        return max(1, min(self._queue.short_rows, free))

    def check(self, rows: int, seconds_left: float, requests: int) -> None:
        """Admit rows that so many requests send together, or refuse them.

        Raises:
            TooLarge: they would never fit.
            DeadlineExceeded: they come too late.
            Overloaded: they do not fit now, or could not be computed in time.
        """
        limit = self._max_rows
        if rows > limit:
            raise TooLarge(f"expected at most {limit} rows a request, got {rows}: send fewer")
        if seconds_left <= 0:
            self._metrics.drop("deadline", requests)
            raise DeadlineExceeded("the deadline had passed on arrival")
        waiting, ahead = self._queue.rows_before(rows)
        if waiting + rows > limit:
            problem = f"{waiting} of at most {limit} rows wait, {rows} more do not fit"
            ahead = waiting
        elif self._throughput.seconds_for(ahead) > seconds_left:
            # To accept it would only turn this 429 into a later 504, and waste the wait.
            problem = f"the {ahead} rows ahead take longer than this request may wait"
        else:
            return
        self._metrics.drop("overloaded", requests)
        raise Overloaded(problem, retry_after=self._throughput.retry_after(ahead))
