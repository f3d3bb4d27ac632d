"""The cost of a batch on one instance, estimated from the batches it computed."""

from service.batcher.spread import BatchCost

# Weight of the newest batch: about ten batches are remembered.
_NEWEST = 0.1
# From this many batches on, one that took longer than so many times what was expected is believed
# no more than that: the machine paused. If batches stay slow, a few of them show it.
_KNOWN_BATCHES = 8
_MOST_TIMES = 4.0
# Sizes that differ by less than this part tell nothing of what a row costs.
_SPREAD = 0.1


class CostEstimator:
    """A line through the seconds of batches over their rows, by least squares that forget.

    The warm-up gives three points far apart. Where later batches are all of one size the line is
    steeper or flatter as they take more or less than expected: a busy machine slows all down alike.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._batches = 0
        self._rows = self._seconds = self._variance = self._covariance = 0.0
        self._line = BatchCost(0.0, 0.0)

    def shrink(self, max_rows: int) -> None:
        """Spread the fixed cost of a batch over fewer rows from now on."""
        self._max_rows = max_rows

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from one batch."""
        if rows <= 0 or seconds <= 0.0:
            return
        if self._batches >= _KNOWN_BATCHES:
            seconds = min(seconds, _MOST_TIMES * self.seconds(rows))
        self._batches += 1
        weight = max(_NEWEST, 1 / self._batches)
        known = self._batches > 1
        scale = 1 + weight * (seconds / self.seconds(rows) - 1) if known else 1.0
        from_mean, from_seconds = rows - self._rows, seconds - self._seconds
        self._rows += weight * from_mean
        self._seconds += weight * from_seconds
        self._variance = (1 - weight) * (self._variance + weight * from_mean**2)
        new = weight * from_mean * from_seconds
        self._covariance = (1 - weight) * (scale * self._covariance + new)
        # The slope so far has the weight of sizes that differ by a tenth.
        trust = (_SPREAD * self._rows) ** 2
        before = scale * self._line.per_row if known else seconds / rows
        slope = (self._covariance + trust * before) / (self._variance + trust)
        slope = min(max(slope, 0.0), self._seconds / self._rows)
        self._line = BatchCost(self._seconds - slope * self._rows, slope)

    def seconds(self, rows: int) -> float:
        """Predict one batch; 0 as long as nothing is known."""
        return self._line.fixed + self._line.per_row * rows

    def cost_of(self, rows: int) -> BatchCost:
        """The cost of rows that wait: those of more than one batch pay for each of them."""
        fixed, per_row = self._line
        if rows <= self._max_rows:
            return self._line
        return BatchCost(0.0, per_row + fixed / self._max_rows)
