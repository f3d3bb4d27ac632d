"""The throughput of an engine on a backlog, estimated from its batches."""

import math

# Weight of the newest batch: about ten batches are remembered.
_NEWEST = 0.2


class ThroughputEstimator:
    """Rows per second of batches at least half full, as an exponential moving average.

    Smaller batches say nothing about a backlog: one row alone may cost as much as fifty. They count
    only where they are faster than what is known.
    """

    def __init__(self, max_rows: int) -> None:
        self._half_rows = max_rows / 2
        self._rows_per_second = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one batch."""
        if seconds <= 0.0:
            return
        rate = rows / seconds
        if not self._rows_per_second:
            self._rows_per_second = rate if rows >= self._half_rows else 0.0
        elif rows >= self._half_rows or rate > self._rows_per_second:
            self._rows_per_second += _NEWEST * (rate - self._rows_per_second)

    def seconds_for(self, rows: int) -> float:
        """Expected time for `rows` rows; 0 as long as nothing is known."""
        return rows / self._rows_per_second if self._rows_per_second else 0.0

    def retry_after(self, rows: int) -> int:
        """Whole seconds until a backlog of `rows` is worked off, at least 1 (RFC 9110, 10.2.3)."""
        return max(1, math.ceil(self.seconds_for(rows)))
