"""The event loop that sends a load: what closed and open loops have in common."""

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress

from pushforward.bench.connection import Connection, LoadRequest, make_buffer
from pushforward.bench.load import Load, Measurement
from pushforward.bench.processor import ProcessorUse, processor_use
from pushforward.bench.recording import INTERRUPTED, NO_ANSWER, OWN_LIMITS, Recorder, cannot_connect

_SWEEP_SECONDS = 0.1
# A server that takes no connection for so long is gone.
DOWN_SECONDS = 2.0
# A connection that was idle so long may be closed by the server just when it is used again: that
# is how HTTP is, and every client sends such a request again.
IDLE_SECONDS = 1.0


def describe(error: Exception) -> str:
    """What the system says of an error; asyncio's own text has the address in it."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else str(error) or type(error).__name__


class Generator(ABC):
    """Connections to a server, and what became of the requests on them.

    Each kind of loop says when it sends, and when it opens another connection.

    Args:
        load: what to send.
        stop: ends it early once it is set.
    """

    def __init__(self, load: Load, stop: asyncio.Event) -> None:
        self.load = load
        self.recorder = Recorder()
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[LoadRequest] = deque()
        self.idle: deque[Connection] = deque()
        self.started = self.end = 0.0
        self._stop = stop
        self._messages, self._next_message = load.messages, 0
        self._buffer = make_buffer()
        self._tls = load.endpoint.tls()
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._down_since: float | None = None
        self._down_reason = ""
        self._given_up = ""
        self._is_closed = False
        self._sent_bytes = self._received_bytes = 0

    @property
    def num_opening(self) -> int:
        """How many connections are being opened."""
        return len(self._opening)

    @property
    def num_connections(self) -> int:
        """How many there are, those that are being opened among them."""
        return len(self._open) + len(self._opening)

    @property
    def is_over(self) -> bool:
        """Whether it has ended early."""
        return self._stop.is_set() or bool(self._given_up)

    async def run(self) -> Measurement:
        """Send the load and wait for the answers that are under way at its end."""
        load = self.load
        self.started = load.start_at or time.monotonic()
        await self._until(self.started)
        window_start = self.started + load.warmup_seconds
        self.end = window_start + load.seconds
        self.start()
        before = await self._until(window_start)
        after = await self._until(self.end)
        self.end = min(self.end, time.monotonic())
        await self._drain()
        for request in self.unanswered():
            self.fail(request, self._given_up or INTERRUPTED)
        self._close()
        return Measurement(
            self.recorder.finish(),
            start=min(window_start, self.end),
            end=self.end,
            cpu_seconds=after.ran - before.ran,
            waited_seconds=after.waited - before.waited,
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            is_stopped=self._stop.is_set(),
            given_up=self._given_up,
        )

    @abstractmethod
    def start(self) -> None:
        """Open the first connections and send the first requests."""

    @abstractmethod
    def next_request(self, now: float) -> LoadRequest | None:
        """What a connection that has become free sends; None to leave it idle."""

    def unanswered(self) -> list[LoadRequest]:
        """What is under way, or waits for a connection."""
        under_way = [one.request for one in self._open if one.request is not None]
        return [*under_way, *self.waiting]

    def open_connection(self) -> None:
        """Open one more connection."""
        if self._is_closed:
            return
        task = self.loop.create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def send(self, connection: Connection, request: LoadRequest, now: float) -> None:
        """Send a request on a connection that is free."""
        message = self._messages[self._next_message]
        self._next_message = (self._next_message + 1) % len(self._messages)
        request.sent = now
        connection.send(request, message)
        self._sent_bytes += len(message)

    # What connections tell.

    def opened(self, connection: Connection) -> None:
        """Use a connection that is new."""
        if self._is_closed:
            connection.close()
            return
        self._down_since = None
        self._open.add(connection)
        self._use(connection, time.monotonic())

    def answered(self, connection: Connection) -> None:
        """Take down an answer, and send what comes next."""
        now = time.monotonic()
        request, connection.request = connection.request, None
        if request is None:
            return
        reason = "" if connection.status == 200 else connection.problem()
        times = (request.due, request.taken, request.sent, now)
        self.recorder.add(times, connection.status, reason, connection.timing)
        if connection.is_closing:
            self._forget(connection)
            connection.close()
            self.replace_connection()
        else:
            self._use(connection, now)

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """Take down what was under way on a connection that is gone, and open another."""
        if not self._forget(connection):
            return
        request, connection.request = connection.request, None
        if request is not None:
            is_stale = request.sent - connection.idle_since > IDLE_SECONDS
            if connection.idle_since and is_stale:
                self.waiting.appendleft(request)
            else:
                self.fail(request, describe(error) if error else "connection closed by the server")
        self.replace_connection()

    def fail(self, request: LoadRequest, reason: str) -> None:
        """Take down that a request has no answer."""
        now = time.monotonic()
        times = (request.due, request.taken, request.sent or now, now)
        self.recorder.add(times, NO_ANSWER, reason)

    @abstractmethod
    def refused(self, reason: str) -> None:
        """Take down that a connection could not be opened."""

    def _use(self, connection: Connection, now: float) -> None:
        request = self.next_request(now)
        if request is None:
            connection.idle_since = now
            self.idle.append(connection)
        else:
            self.send(connection, request, now)

    def _forget(self, connection: Connection) -> bool:
        if connection not in self._open:
            return False
        self._open.remove(connection)
        self._received_bytes += connection.received_bytes
        with suppress(ValueError):
            self.idle.remove(connection)
        return True

    @abstractmethod
    def replace_connection(self) -> None:
        """Open a connection in the place of one that is gone, where somebody waits for it."""

    async def _connect(self) -> None:
        endpoint = self.load.endpoint
        try:
            await self.loop.create_connection(
                lambda: Connection(self, self._buffer),
                endpoint.address,
                endpoint.port,
                ssl=self._tls,
                server_hostname=endpoint.server_name,
            )
        except OSError as error:
            reason = describe(error)
            if reason not in OWN_LIMITS:
                self._down_reason = reason
                self._down_since = self._down_since or time.monotonic()
            # Not again at once: a server that is gone would take all of this process's time.
            await asyncio.sleep(_SWEEP_SECONDS)
            self.refused(cannot_connect(reason))

    def _close(self) -> None:
        """Close all connections, and open none any more."""
        self._is_closed = True
        still_open, self._open = self._open, set()
        for connection in still_open:
            self._received_bytes += connection.received_bytes
            connection.close()
        for task in self._opening:
            task.cancel()

    async def _until(self, moment: float) -> ProcessorUse:
        """Wait for a moment, or an early end; look at what takes too long meanwhile."""
        while not self.is_over:
            remaining = moment - time.monotonic()
            if remaining <= 0:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_SWEEP_SECONDS, remaining)):
                    await self._stop.wait()
            self._sweep()
        return processor_use()

    async def _drain(self) -> None:
        """Wait for the answers under way; the timeout bounds it."""
        while not self.is_over:
            if not self.waiting and all(one.request is None for one in self._open):
                break
            await asyncio.sleep(0.01)
            self._sweep()

    def _sweep(self) -> None:
        """Give up what has waited for too long; all, where nobody takes connections any more."""
        now = time.monotonic()
        limit = now - self.load.timeout_seconds
        for connection in tuple(self._open):
            if connection.request is not None and connection.request.sent < limit:
                self.fail(connection.request, "timeout")
                connection.request = None
                connection.close()
        while self.waiting and self.waiting[0].due < limit:
            self.fail(self.waiting.popleft(), "timeout before a connection was free")
        if (
            self._down_since is not None
            and not self._open
            and now > self._down_since + DOWN_SECONDS
        ):
            self._given_up = f"the server takes no connections any more: {self._down_reason}"
