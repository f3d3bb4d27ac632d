"""A server of a few lines, in a thread, that does what a test tells it to each request."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from pushforward.bench.endpoint import Endpoint
from pushforward.bench.load import Load

OK = (
    b"HTTP/1.1 200 OK\r\nServer-Timing: queue;dur=1.5, compute;dur=2\r\nContent-Length: 2\r\n\r\n{}"
)
BUSY_BODY = b'{"code":"overloaded"}'
BUSY = b"HTTP/1.1 429 Busy\r\nContent-Length: %d\r\n\r\n%b" % (len(BUSY_BODY), BUSY_BODY)

# Gets the body of a request and gives the answer; None closes the connection.
Reply = Callable[[bytes], Awaitable[bytes | None]]


async def ok(_: bytes) -> bytes:
    """Answer at once."""
    return OK


class SmallServer:
    """What a test sees of it."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.bodies: list[bytes] = []
        self.num_connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Listen on a free port."""
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def until_ended(self) -> None:
        """Serve until `end`."""
        await self._ended.wait()
        self._close()

    def end(self) -> None:
        """End it, from any thread."""
        self._loop.call_soon_threadsafe(self._ended.set)

    def die(self) -> None:
        """Stop listening and break all connections, from any thread."""
        self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._writers):
            writer.transport.abort()

    def load(self, **options: object) -> Load:
        """A load on it: short, of two messages."""
        endpoint = Endpoint("127.0.0.1", self.port, "small", None, "")
        messages = tuple(
            b"POST / HTTP/1.1\r\nHost: small\r\nContent-Length: 1\r\n\r\n%d" % n for n in (0, 1)
        )
        given = {"seconds": 0.3, "warmup_seconds": 0.0, "connections": 4, **options}
        return Load(endpoint, messages, **given)  # type: ignore[arg-type]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self._writers.add(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(1)
                self.bodies.append(body)
                answer = await self.reply(body)
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


@contextmanager
def running(reply: Reply = ok) -> Iterator[SmallServer]:
    """Serve while a block runs."""
    server, started = SmallServer(reply), threading.Event()

    async def serve() -> None:
        await server.open()
        started.set()
        await server.until_ended()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    started.wait()
    try:
        yield server
    finally:
        server.end()
        thread.join()
