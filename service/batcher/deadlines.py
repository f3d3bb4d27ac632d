"""The timer of a queue's deadlines."""

import asyncio
import math
from asyncio import TimerHandle
from collections.abc import Callable

# Deadlines closer together than this are answered together: it bounds the cost of many of them.
_STEP_SECONDS = 0.002


class DeadlineTimer:
    """One timer of the event loop for the deadlines of all entries.

    Args:
        expire: called with the time when the earliest deadline has passed; returns the next one.
        clock: monotonic seconds; deadlines are given in it.
    """

    def __init__(self, expire: Callable[[float], float], clock: Callable[[], float]) -> None:
        self._expire = expire
        self._clock = clock
        self._timer: TimerHandle | None = None
        self._at = math.inf

    def add(self, deadline: float) -> None:
        """Schedule one more deadline, on the running event loop."""
        if deadline < self._at:
            self._schedule(deadline)

    def cancel(self) -> None:
        """Call nobody any more: a timer keeps alive whoever it would call."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._at = None, math.inf

    def _schedule(self, deadline: float) -> None:
        self.cancel()
        if deadline < math.inf:
            delay = deadline - self._clock()
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)
            self._at = deadline

    def _fire(self) -> None:
        now = self._clock()
        self._schedule(max(self._expire(now), now + _STEP_SECONDS))
