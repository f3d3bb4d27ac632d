"""The two loads: a closed loop of so many clients, and an open loop at a rate."""

import asyncio
import gc
import select
import selectors
import signal
import time
from contextlib import suppress

from pushforward.bench.arrivals import due_times
from pushforward.bench.connection import LoadRequest
from pushforward.bench.generator import Generator
from pushforward.bench.load import Load, Measurement

# Opened before the first request of an open loop is due.
_FIRST_CONNECTIONS = 8
_ENDING = (signal.SIGINT, signal.SIGTERM)


class ClosedLoop(Generator):
    """So many clients who each wait for an answer before they ask again.

    A server that is slow is asked less: what such clients feel is their latency, but not that of
    those who would have come meanwhile.
    """

    def start(self) -> None:
        """Open all connections."""
        for _ in range(self.load.connections):
            self.open_connection()

    def next_request(self, now: float) -> LoadRequest | None:
        """Ask again, until the end."""
        return LoadRequest(due=now, taken=now) if now < self.end else None

    def refused(self, reason: str) -> None:
        """Take down a request that could not be sent, and try again."""
        now = time.monotonic()
        self.fail(LoadRequest(due=now, taken=now), reason)
        self.replace_connection()

    def replace_connection(self) -> None:
        """Open another, until the end."""
        if time.monotonic() < self.end:
            self.open_connection()


class OpenLoop(Generator):
    """Requests that come on a schedule, whatever has been answered.

    Each is timed from when it was due, so what waits behind a server that stalls is counted with
    all of its wait (no coordinated omission), also where it waits here for a connection.
    """

    def start(self) -> None:
        """Open some connections and begin with the schedule."""
        load = self.load
        seconds = load.warmup_seconds + load.seconds
        due = self.started + due_times(load.rate or 0.0, seconds, load.arrivals, load.seed)
        part, parts = load.part
        self._due, self._next = due[part::parts].tolist(), 0
        for _ in range(min(_FIRST_CONNECTIONS, load.connections)):
            self.open_connection()
        self._take()

    def next_request(self, now: float) -> LoadRequest | None:
        """What has waited longest."""
        return self.waiting.popleft() if self.waiting else None

    def unanswered(self) -> list[LoadRequest]:
        """Also what was due and has not been taken up."""
        now = time.monotonic()
        due = [LoadRequest(due, now) for due in self._due[self._next :] if due < self.end]
        return [*super().unanswered(), *due]

    def refused(self, reason: str) -> None:
        """Take down the request that the connection was for."""
        if self.waiting:
            self.fail(self.waiting.popleft(), reason)
        self.replace_connection()

    def replace_connection(self) -> None:
        """Open another, where requests wait and there may be more."""
        if len(self.waiting) > self.num_opening and self.num_connections < self.load.connections:
            self.open_connection()

    def _take(self) -> None:
        """Take up what is due, and come back when the next one is."""
        due, index, now = self._due, self._next, time.monotonic()
        while index < len(due) and due[index] <= now:
            self.waiting.append(LoadRequest(due[index], now))
            if self.idle:
                self.send(self.idle.popleft(), self.waiting.popleft(), now)
            else:
                self.replace_connection()
            index += 1
        self._next = index
        if index < len(due) and not self.is_over:
            self.loop.call_at(due[index], self._take)


class PreciseSelector(selectors.EpollSelector):
    """Waits as long as it was told: epoll alone rounds up to whole milliseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for files, or for so many seconds."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def run_load(load: Load) -> Measurement:
    """Send a load from this process; SIGINT and SIGTERM end it early, with what was measured."""
    was_enabled = gc.isenabled()
    former = {number: signal.getsignal(number) for number in _ENDING}
    gc.disable()  # a collection would delay what is due
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            return runner.run(_run(load))
    finally:
        for number, handler in former.items():
            with suppress(ValueError):  # not in the main thread
                signal.signal(number, handler)
        if was_enabled:
            gc.enable()


def _new_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(PreciseSelector())


async def _run(load: Load) -> Measurement:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in _ENDING:
        with suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
            loop.add_signal_handler(number, stop.set)
    kind = ClosedLoop if load.rate is None else OpenLoop
    return await kind(load, stop).run()
