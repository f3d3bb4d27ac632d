"""Notices clients that leave or are slow to send, at almost no cost to those that do neither.

Uvicorn does not cancel a handler when its client hangs up; `receive()` returning
`http.disconnect` is the only sign. A task a request that waits for it would cost more than most
requests do, so only requests older than `PATIENCE_SECONDS` get one. One timer serves them all: it
runs only while requests do.
"""

import asyncio
import time
from collections import deque
from typing import Any

from starlette.types import Receive

from service.operations.request_context import CancelReason, RequestContext

PATIENCE_SECONDS = 0.05


class AsgiRequestContext(RequestContext):
    """A request whose body and whose client's departure come through ASGI's `receive`."""

    __slots__ = ("_has_body", "_watch", "receive")

    def __init__(
        self, receive: Receive, task: asyncio.Task[Any] | None, arrived: float, deadline: float
    ) -> None:
        super().__init__(arrived, deadline, task)
        self.receive = receive
        self._has_body = False
        self._watch: asyncio.Task[None] | asyncio.TimerHandle | None = None

    def body_is_read(self) -> None:
        """From now on the client waits for us, and may leave."""
        self._has_body = True
        if self._watch is not None:
            self._watch.cancel()
            self.watch()

    def watch(self) -> None:
        """Watch the deadline until the body is there, then the client."""
        loop = asyncio.get_running_loop()
        if self._has_body:
            self._watch = loop.create_task(self._await_disconnect())
        else:
            left = self.deadline - time.monotonic()
            self._watch = loop.call_later(max(left, 0), self.cancel, CancelReason.LATE)

    def end(self) -> None:
        """The answer is known: nothing cancels this request any more."""
        # The watcher keeps contexts for a while, and must not keep connections with them.
        super().end()
        if self._watch is not None:
            self._watch.cancel()

    async def _await_disconnect(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.cancel(CancelReason.GONE)


class DisconnectWatcher:
    """All requests of ASGI that are not answered yet, in order of arrival."""

    def __init__(self) -> None:
        self._requests: deque[AsgiRequestContext] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, receive: Receive, timeout_seconds: float) -> AsgiRequestContext:
        """Begin a request in the task that serves it."""
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        request = AsgiRequestContext(
            receive, asyncio.current_task(loop), now, now + timeout_seconds
        )
        self._requests.append(request)
        # `_loop` is set while a timer is pending: an application may outlive a loop in tests.
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(PATIENCE_SECONDS, self._sweep)
        return request

    def _sweep(self) -> None:
        requests = self._requests
        now = time.monotonic()
        while requests and (requests[0].is_over or requests[0].arrived + PATIENCE_SECONDS <= now):
            request = requests.popleft()
            if not request.is_over:
                request.watch()
        if requests and self._loop is not None:
            wait = requests[0].arrived + PATIENCE_SECONDS - now
            self._loop.call_later(wait, self._sweep)
        else:
            self._loop = None
