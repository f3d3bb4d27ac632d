"""When refused rows are told to come back: no more of them at a time than the queue then takes."""

import math

# Of what is computed in a step of time; the rest is for those who come unasked.
_SHARE = 0.7
# Nobody is told to wait longer than this beyond what is waiting now: our clients wait for a minute.
_MOST_SECONDS = 30
# An overload is over when nothing has been refused for this long.
_PAUSE_SECONDS = 1.0
# For how long it is remembered where room was found: refusals come by the thousand.
_HINT_SECONDS = 0.25


class RetrySchedule:
    """The rows that were told when to come back, counted by steps of time.

    A time at which as many others were told to come as are computed then is told to nobody more:
    those who come back find room, as long as not too many new ones come with them. An overload is
    expected to go on for as long as it has lasted and a second more: who came back within it would
    mostly be refused again.
    """

    def __init__(self) -> None:
        self._promised: dict[int, float] = {}
        self._overload = (-math.inf, -math.inf)
        self._step = 0.0
        # When, for how many rows and after how many seconds there was room.
        self._hint = (-math.inf, 0, 0)

    @property
    def promises(self) -> int:
        """Steps of time for which rows were told to come back."""
        return len(self._promised)

    def seconds(self, rows: int, now: float, *, least: int, rate: float, window: float) -> int:
        """Whole seconds after which rows should come back, and count them there.

        Args:
            rows: that were refused.
            now: monotonic seconds.
            least: seconds, at least 1.
            rate: rows per second that are computed; 0 where it is not known.
            window: for how many seconds of them the queue has room.
        """
        if rate <= 0.0 or not 0.0 < window < math.inf:
            return least
        least = max(least, min(math.ceil(self._seconds_overloaded(now)) + 1, _MOST_SECONDS))
        # Two steps fit into the queue, so it does not matter where one ends and the next begins.
        self._use_step(max(window / 2, 1 / (_SHARE * rate)), now)
        room, most = _SHARE * rate * self._step, least + _MOST_SECONDS
        found_at, found_for, found = self._hint
        if rows >= found_for and now - found_at < _HINT_SECONDS:
            first_to_try = min(max(least, found - 1), most)
        else:
            first_to_try, found_at = least, now
        for seconds in range(first_to_try, most):
            first = int((now + seconds) / self._step)
            steps = range(first, first + math.ceil(rows / room))
            taken = sum(self._promised.get(step, 0.0) for step in steps)
            if taken + rows <= room * len(steps):
                for step in steps:
                    self._promised[step] = self._promised.get(step, 0.0) + rows / len(steps)
                break
        else:
            seconds = most
        self._hint = (found_at, rows, seconds)
        return seconds

    def _seconds_overloaded(self, now: float) -> float:
        """Since when rows have been refused, but for pauses that are short."""
        first, last = self._overload
        if now - last > _PAUSE_SECONDS:
            first = now
        self._overload = (first, now)
        return now - first

    def _use_step(self, step: float, now: float) -> None:
        """Count by steps of about this length; the pace changes a little all the time."""
        if not 0.5 * self._step <= step <= 1.5 * self._step:
            self._promised.clear()
            self._step = step
        if len(self._promised) > 4 * _MOST_SECONDS / self._step + _MOST_SECONDS:
            past = int(now / self._step)
            self._promised = {at: rows for at, rows in self._promised.items() if at >= past}
