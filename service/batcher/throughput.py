"""The throughput of an engine on a backlog, estimated from its batches."""

import math

# Weight of the newest batch: about ten batches are remembered.
_NEWEST = 0.2
# What took longer than so many times what was expected is believed no more than that: the process
# may have been stopped. If the engine stays slow, a few batches show it.
_MOST_TIMES = 4.0


class ThroughputEstimator:
    """Rows per second on a backlog, as an exponential moving average.

    What one instance makes is learned from batches at least half full. Smaller ones say nothing
    about a backlog: one row alone may cost as much as fifty; they count only where they are faster
    than what is known, or where the cost of a full batch that follows from them is higher.

    What all instances make together, beside other models, is measured: the rows of a batch over the
    time since the batch before, where full batches waited all that time. As long as that has not
    happened it is taken for `instances` times as much as one makes. The warm-up gives the first
    estimate.

    Args:
        max_rows: of a batch.
        instances: that compute batches of the backlog.
    """

    def __init__(self, max_rows: int, instances: int = 1) -> None:
        self._max_rows = max_rows
        self._half_rows = max_rows / 2
        self._instances = instances
        self._rows_per_second = 0.0
        self._expected = math.inf
        # Of batches that ended with a backlog: moving averages, so that two that end together and
        # the gap after them make one rate.
        self._backlog_rows = self._backlog_seconds = 0.0
        self._backlogged_since: float | None = None

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one batch."""
        if seconds <= 0.0:
            return
        rate = rows / seconds
        if not self._rows_per_second:
            self._rows_per_second = rate if rows >= self._half_rows else 0.0
        elif rows >= self._half_rows or rate > self._rows_per_second:
            self._rows_per_second += _NEWEST * (rate - self._rows_per_second)

    def shrink(self, max_rows: int) -> None:
        """Learn from smaller batches from now on."""
        self._max_rows = max_rows
        self._half_rows = max_rows / 2

    def expect(self, seconds: float) -> None:
        """Take note of what a full batch is predicted to take, from batches of any size."""
        self._expected = self._max_rows / seconds if seconds > 0.0 else math.inf

    def complete(self, rows: int, now: float, *, is_backlogged: bool) -> None:
        """Learn from the moment at which a batch ended.

        Args:
            rows: that it computed.
            now: monotonic seconds.
            is_backlogged: whether a full batch waits.
        """
        since, self._backlogged_since = self._backlogged_since, now if is_backlogged else None
        if since is None:
            return
        seconds = now - since
        if rate := self.rows_per_second:
            seconds = min(seconds, _MOST_TIMES * self._max_rows / rate)
        weight = _NEWEST if self._backlog_seconds else 1.0
        self._backlog_rows += weight * (rows - self._backlog_rows)
        self._backlog_seconds += weight * (seconds - self._backlog_seconds)

    @property
    def rows_per_second(self) -> float:
        """Of all instances; 0 as long as nothing is known."""
        if self._backlog_seconds > 0.0:
            return self._backlog_rows / self._backlog_seconds
        return min(self._rows_per_second, self._expected) * self._instances

    def seconds_for(self, rows: int) -> float:
        """Expected time for `rows` rows; 0 as long as nothing is known."""
        rate = self.rows_per_second
        return rows / rate if rate else 0.0

    def retry_after(self, rows: int) -> int:
        """Whole seconds until a backlog of `rows` is worked off, at least 1 (RFC 9110, 10.2.3)."""
        return max(1, math.ceil(self.seconds_for(rows)))
