"""A load of one body from one thread, light enough to share the cores with the server it loads.

Sockets and epoll, nothing else. An open loop sends on schedule whatever has been answered, over as
many connections as that takes. It looks at what is due and what was answered every 2 ms: to be
woken by each answer would cost both sides more than the answer. A request is timed from when it was
due and from when it was sent, so a client that falls behind shows.
"""

import heapq
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# For how long answers are waited for that do not come.
PATIENCE_SECONDS = 60.0
_STEP_SECONDS = 0.002
_RECEIVE_BYTES = 65536


@dataclass(slots=True)
class Request:
    """One request; times in seconds of `time.monotonic`.

    due: when it should be sent. sent: when it was. done: when it was answered, 0 if never.
    retry_after: seconds it was told to wait. again: the one that was sent after that.
    """

    due: float
    sent: float = 0.0
    done: float = 0.0
    status: int = 0
    retry_after: int = 0
    again: "Request | None" = None

    @property
    def seconds(self) -> float:
        """From when it was due."""
        return self.done - self.due

    @property
    def seconds_from_sent(self) -> float:
        """From when it was sent: without the client's own lateness."""
        return self.done - self.sent


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    received: bytes = b""
    request: Request | None = None


class Load:
    """Connections to one route, kept and used again.

    Args:
        url: of the route.
        body: of every request.
        headers: beside its length.
    """

    def __init__(self, url: str, body: bytes, headers: dict[str, str]) -> None:
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 80))
        head = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        start = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{head}"
        self._message = f"{start}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: list[_Connection] = []
        self._running = 0

    def open_loop(
        self,
        rate: float,
        seconds: float,
        *,
        then: tuple[float, float] = (1.0, 0.0),
        comes_back: bool = False,
        at_step: Callable[[float], None] = lambda now: None,
    ) -> list[Request]:
        """Send `rate` requests a second for `seconds`, and wait for every answer.

        Args:
            rate: requests a second.
            seconds: for which they are sent.
            then: another rate, and for how long it follows the first.
            comes_back: whether what is refused is sent once more when it was told to.
            at_step: called with the time at each step.
        """
        start = time.monotonic()
        requests = [Request(start + index / rate) for index in range(int(rate * seconds))]
        start, (rate, more) = start + seconds, then
        requests += [Request(start + index / rate) for index in range(int(rate * more))]
        waiting = [(request.due, number, request) for number, request in enumerate(requests)]
        last = start + more
        while waiting or self._running:
            now = time.monotonic()
            at_step(now)
            while waiting and waiting[0][0] <= now:
                self._send(heapq.heappop(waiting)[2])
            if now > last + PATIENCE_SECONDS:
                break
            time.sleep(_STEP_SECONDS)
            for request in self._poll(0.0):
                if comes_back and request.retry_after:
                    request.again = Request(request.done + request.retry_after)
                    last = max(last, request.again.due)
                    entry = (request.again.due, len(requests) + id(request), request.again)
                    heapq.heappush(waiting, entry)
        return requests

    def closed_loop(self, connections: int, seconds: float) -> list[Request]:
        """Keep so many requests under way for `seconds`."""
        end, requests = time.monotonic() + seconds, list[Request]()
        while self._running or not requests:
            while self._running < connections and (now := time.monotonic()) < end:
                requests.append(Request(now))
                self._send(requests[-1])
            if time.monotonic() > end + PATIENCE_SECONDS:
                break
            self._poll(1.0)
        return requests

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()

    def _send(self, request: Request) -> None:
        connection = self._idle.pop() if self._idle else self._connect()
        connection.request, connection.unsent = request, memoryview(self._message)
        request.sent = time.monotonic()
        self._running += 1
        self._write(connection)

    def _connect(self) -> _Connection:
        made = socket.create_connection(self._address)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        connection = self._connections[made.fileno()] = _Connection(made)
        self._epoll.register(made.fileno(), select.EPOLLIN)
        return connection

    def _write(self, connection: _Connection) -> None:
        was_blocked = len(connection.unsent) < len(self._message)
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        connection.unsent = connection.unsent[sent:]
        if was_blocked or connection.unsent:
            write = select.EPOLLOUT if connection.unsent else 0
            self._epoll.modify(connection.socket.fileno(), select.EPOLLIN | write)

    def _poll(self, seconds: float) -> list[Request]:
        """Wait for something to happen.   -> what was answered."""
        answered = []
        for number, events in self._epoll.poll(seconds, max(1, len(self._connections))):
            connection = self._connections[number]
            if events & select.EPOLLOUT:
                self._write(connection)
            if events & ~select.EPOLLOUT and (request := self._read(connection)) is not None:
                answered.append(request)
        return answered

    def _read(self, connection: _Connection) -> Request | None:
        try:
            piece = connection.socket.recv(_RECEIVE_BYTES)
        except OSError:
            piece = b""
        if not piece:
            self._drop(connection)
            return None
        connection.received += piece
        head, blank, body = connection.received.partition(b"\r\n\r\n")
        lines = head.lower()
        if not blank or len(body) < int(_value(lines, b"content-length")):
            return None
        request, connection.request, connection.received = connection.request, None, b""
        if request is not None:
            request.done = time.monotonic()
            request.status = int(head[9:12])
            request.retry_after = int(_value(lines, b"retry-after"))
            self._running -= 1
        if b"\r\nconnection: close" in lines:
            self._drop(connection)
        else:
            self._idle.append(connection)
        return request

    def _drop(self, connection: _Connection) -> None:
        """Close a connection; the request on it has no answer."""
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.request is not None:
            self._running -= 1
        connection.request = None
        del self._connections[connection.socket.fileno()]
        connection.socket.close()


def _value(head: bytes, name: bytes) -> bytes:
    """A header's value in a head of lower case, b"0" where it is missing."""
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0] or b"0"
