"""A limit of so many a second, with what one second of quiet leaves over.

Reference: the generic cell rate algorithm, ITU-T I.371, annex A; a token bucket in one number.
"""

# Of what the additions of floats lose.
_SLACK_SECONDS = 1e-9


class RateLimit:
    """A token bucket that holds one second's worth, at least one.

    Args:
        rate: how many a second.

    most: how many may come at once.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self.most = max(1.0, rate)
        # When all that was taken is paid for, on the clock of the caller.
        self._paid_at = 0.0

    def change(self, rate: float) -> None:
        """Go on at another rate; what was taken stays taken."""
        self._rate, self.most = rate, max(1.0, rate)

    def seconds_until(self, count: float, now: float) -> float:
        """How long it takes until `count` may come; 0 where they may now."""
        wait = max(self._paid_at, now) - now + (count - self.most) / self._rate
        return wait if wait > _SLACK_SECONDS else 0.0

    def take(self, count: float, now: float) -> None:
        """Take so many, whether they may come or not: who comes next waits for it."""
        self._paid_at = max(self._paid_at, now) + count / self._rate
