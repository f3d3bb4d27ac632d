"""One API key in use: its name, its share of the queues, and what is left of its limits."""

import math
import time
from collections.abc import Callable

from service.contracts import QueueShare
from service.errors import KeyLimitExceeded, TooLargeForKey
from service.keys.key_file import LIMITS, KeyRule
from service.keys.rate_limit import RateLimit

_REQUESTS, _ROWS, _IN_FLIGHT = LIMITS


class ApiKey:
    """An API key and its limits; used by the event loop alone.

    Args:
        rule: what the file says of it.
        processes: over how many processes of the service its limits are spread.
        on_limit: told its name and the limit when a request is refused.
        clock: monotonic seconds.

    share: of the queues.
    """

    def __init__(
        self,
        rule: KeyRule,
        processes: int = 1,
        on_limit: Callable[[str, str], None] = lambda name, limit: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = processes
        self._on_limit = on_limit
        self._clock = clock
        self._held = 0
        self._requests: RateLimit | None = None
        self._rows: RateLimit | None = None
        self.change(rule)

    @property
    def name(self) -> str:
        """What it is called in metrics, logs and answers."""
        return self._rule.name

    def change(self, rule: KeyRule) -> None:
        """Go on under another rule of the same name; what was used stays used."""
        self._rule = rule
        self.share = QueueShare(rule.name, rule.weight)
        self._requests = self._changed(self._requests, rule.requests_per_second)
        self._rows = self._changed(self._rows, rule.rows_per_second)

    def _changed(self, limit: RateLimit | None, rate: float | None) -> RateLimit | None:
        if rate is None:
            return None
        # Each process has its part: nobody waits for the others' counts.
        part = rate / self._processes
        if limit is None:
            return RateLimit(part)
        limit.change(part)
        return limit

    def take_request(self) -> None:
        """Count a request.

        Raises:
            KeyLimitExceeded: there were too many in the last second.
        """
        limit = self._requests
        if limit is None:
            return
        now = self._clock()
        wait = limit.seconds_until(1, now)
        if wait:
            allowed = self._rule.requests_per_second
            raise self._exceeded(_REQUESTS, f"it may send {allowed:g} requests a second", wait)
        limit.take(1, now)

    def take_rows(self, rows: int) -> None:
        """Count the rows of a request, which are in flight until `release_rows`.

        Raises:
            TooLargeForKey: they are more than a limit ever allows.
            KeyLimitExceeded: they are too many now.
        """
        rule, now = self._rule, self._clock()
        for limit, allowed in ((_ROWS, rule.rows_per_second), (_IN_FLIGHT, rule.rows_in_flight)):
            if allowed is not None and rows > max(1.0, allowed):
                self._on_limit(self.name, limit)
                raise TooLargeForKey(
                    f"key {self.name}: {limit} is {allowed:g}, so a request may have "
                    f"{int(max(1.0, allowed))} rows, got {rows}: send fewer at a time",
                    members=self._members(limit),
                )
        most = rule.rows_in_flight
        # One request alone may have more than the part of this process.
        if most is not None and self._held and self._held + rows > most / self._processes:
            problem = f"it may have {most} rows in flight, {self._held} are and {rows} more came"
            raise self._exceeded(_IN_FLIGHT, problem, 0.0)
        if self._rows is not None:
            wait = self._rows.seconds_until(min(rows, self._rows.most), now)
            if wait:
                problem = f"it may send {rule.rows_per_second:g} rows a second"
                raise self._exceeded(_ROWS, problem, wait)
        self.add_rows(rows)

    def add_rows(self, rows: int) -> None:
        """Count rows that a request which is under way needs more; nothing refuses them."""
        self._held += rows
        if self._rows is not None:
            self._rows.take(rows, self._clock())

    def release_rows(self, rows: int) -> None:
        """Rows were answered, or are computed no more."""
        self._held -= rows

    def _exceeded(self, limit: str, problem: str, wait: float) -> KeyLimitExceeded:
        self._on_limit(self.name, limit)
        seconds = max(1, math.ceil(wait))
        return KeyLimitExceeded(
            f"key {self.name}: {problem} ({limit}): send it again in {seconds} s",
            retry_after=seconds,
            members=self._members(limit),
        )

    def _members(self, limit: str) -> dict[str, str | float]:
        return {"key": self.name, "limit": limit, "allowed": getattr(self._rule, limit)}
