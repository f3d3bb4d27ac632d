"""What the service takes of uvicorn's server beyond its documented use, in one place.

Versions read: 0.36.0, the first with the `Config.get_loop_factory` that `Worker` uses, and 0.54.0.
Used, and promised by neither: `Server.capture_signals`, `shutdown`, `force_exit`, `should_exit`,
`servers`, `server_state.connections`, `server_state.default_headers`; `Config.encoded_headers`.
"""

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator

import uvicorn

# Once nobody can connect any more, those who have connected get so long to send a request, once,
# and be answered 503. Also what an answer gets to be written where the grace is over.
_LAST_REQUESTS_SECONDS = 1.0
_TURN_SECONDS = 0.01


class Server(uvicorn.Server):
    """Uvicorn's server, but for signals and for the shutdown.

    Args:
        config: uvicorn's.
        awaits_request: whether a connection was never answered: it gets a moment to ask.

    ends_at: by `time.monotonic()`, when answers still under way are cut off.
    has_cut: whether any was.
    """

    def __init__(
        self, config: uvicorn.Config, awaits_request: Callable[[asyncio.Protocol], bool]
    ) -> None:
        super().__init__(config)
        self._awaits_request = awaits_request
        self.ends_at: float | None = None
        self.has_cut = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `Worker`, which drains before the connections are closed."""
        yield

    def close_after_answers(self) -> None:
        """Let every answer from now on end its connection, those under way included."""
        # They share a list; the other is what it is made of anew every second.
        self.server_state.default_headers.append((b"connection", b"close"))
        self.config.encoded_headers.append((b"connection", b"close"))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener without resetting those who wait behind it, then the connections.

        The kernel resets whoever has connected and was not accepted when a listener closes.
        """
        listeners = sockets or []
        if not self.force_exit:
            await self._accept_all(listeners)
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        ends_at = await self._serve_last_requests()
        left = max(ends_at - time.monotonic(), _LAST_REQUESTS_SECONDS)
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]
        ending = asyncio.create_task(super().shutdown(sockets))
        done, _ = await asyncio.wait([ending], timeout=left)
        # Uvicorn cancels tasks then, but not those of ours, and leaves the connections open.
        self.has_cut = not done and bool(self.server_state.connections)
        await ending

    async def _accept_all(self, listeners: list[socket.socket]) -> None:
        """Accept whoever waits, while hardly anybody can come between."""
        for listener in listeners:
            listener.listen(0)
        last_turn = time.monotonic() + _LAST_REQUESTS_SECONDS
        while any(map(_has_backlog, listeners)) and time.monotonic() < last_turn:
            await asyncio.sleep(0)  # one is accepted a turn

    async def _serve_last_requests(self) -> float:
        """Give connections that were never answered a moment to send a request.

        Returns:
            When answers still under way are cut off.
        """
        now = time.monotonic()
        ends_at = now + _LAST_REQUESTS_SECONDS if self.ends_at is None else self.ends_at
        last_turn = max(min(ends_at, now + _LAST_REQUESTS_SECONDS), now)
        while not self.force_exit and self._has_newcomers() and time.monotonic() < last_turn:
            await asyncio.sleep(_TURN_SECONDS)
        return ends_at

    def _has_newcomers(self) -> bool:
        return any(map(self._awaits_request, self.server_state.connections))


def _has_backlog(listener: socket.socket) -> bool:
    """Whether anybody has connected and was not accepted."""
    poll = select.poll()  # select.select takes no descriptor beyond 1,023
    poll.register(listener, select.POLLIN)
    return bool(poll.poll(0))
