"""Notices clients that leave or dawdle, at almost no cost to those that do neither.

Uvicorn does not cancel a handler when its client hangs up; `receive()` returning
`http.disconnect` is the only sign. A task a request that waits for it would cost more than most
requests do, so only requests older than `PATIENCE_SECONDS` get one. One timer serves them all: it
runs only while requests do.
"""

import asyncio
import time
from collections import deque
from enum import StrEnum
from typing import Any

from starlette.types import Receive

from service.telemetry import NO_MODEL
from service.telemetry.tracing import Stages

PATIENCE_SECONDS = 0.05


class CancelReason(StrEnum):
    """Why a request was stopped before its answer."""

    GONE = "the client left"
    LATE = "the body did not arrive in time"


class RequestContext:
    """One request from arrival to answer. Stopping it cancels its task and leaves the reason.

    Args:
        arrived: `time.monotonic()` when its head was there.
        deadline: when its answer is worth nothing any more, by the same clock.
        task: what computes the answer.

    stages: of a request that is traced.
    """

    __slots__ = ("arrived", "deadline", "ending", "is_over", "model", "rows", "stages", "task")

    def __init__(
        self, arrived: float, deadline: float, task: asyncio.Task[Any] | None = None
    ) -> None:
        self.arrived = arrived
        self.deadline = deadline
        self.task = task
        self.model = NO_MODEL
        self.rows: int | None = None
        self.stages: Stages | None = None
        self.ending: CancelReason | None = None
        self.is_over = False

    def age(self) -> float:
        """Seconds since arrival."""
        return time.monotonic() - self.arrived

    def shorten(self, seconds: float) -> None:
        """The client itself waits no longer than this, from arrival on."""
        self.deadline = min(self.deadline, self.arrived + seconds)

    def stop(self, ending: CancelReason) -> None:
        """Compute no answer; nothing happens where it is known already."""
        if not self.is_over and self.task is not None:
            self.ending = ending
            self.task.cancel()

    def resume(self) -> None:
        """Go on in the task that was stopped, to answer or to clean up."""
        if self.task is not None:
            self.task.uncancel()

    def end(self) -> None:
        """The answer is known: nothing stops this request any more."""
        self.is_over = True
        self.task = None


class AsgiRequestContext(RequestContext):
    """A request whose body and whose client's departure come through ASGI's `receive`."""

    __slots__ = ("_guard", "_has_body", "receive")

    def __init__(
        self, receive: Receive, task: asyncio.Task[Any] | None, arrived: float, deadline: float
    ) -> None:
        super().__init__(arrived, deadline, task)
        self.receive = receive
        self._has_body = False
        self._guard: asyncio.Task[None] | asyncio.TimerHandle | None = None

    def body_is_read(self) -> None:
        """From now on the client waits for us, and may leave."""
        self._has_body = True
        if self._guard is not None:
            self._guard.cancel()
            self.grow_old()

    def grow_old(self) -> None:
        """Start to watch: for the deadline until the body is there, then for the client."""
        loop = asyncio.get_running_loop()
        if self._has_body:
            self._guard = loop.create_task(self._await_departure())
        else:
            left = self.deadline - time.monotonic()
            self._guard = loop.call_later(max(left, 0), self.stop, CancelReason.LATE)

    def end(self) -> None:
        """The answer is known: nothing stops this request any more."""
        # The watch keeps visits for a while, and must not keep connections with them.
        super().end()
        if self._guard is not None:
            self._guard.cancel()

    async def _await_departure(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.stop(CancelReason.GONE)


class DisconnectWatcher:
    """All requests of ASGI that are not answered yet, in order of arrival."""

    def __init__(self) -> None:
        self._visits: deque[AsgiRequestContext] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, receive: Receive, timeout_seconds: float) -> AsgiRequestContext:
        """Begin a request in the task that serves it."""
        now = time.monotonic()
        loop = asyncio.get_running_loop()
        visit = AsgiRequestContext(receive, asyncio.current_task(loop), now, now + timeout_seconds)
        self._visits.append(visit)
        # `_loop` is set while a timer is pending: an application may outlive a loop in tests.
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(PATIENCE_SECONDS, self._sweep)
        return visit

    def _sweep(self) -> None:
        visits = self._visits
        now = time.monotonic()
        while visits and (visits[0].is_over or visits[0].arrived + PATIENCE_SECONDS <= now):
            visit = visits.popleft()
            if not visit.is_over:
                visit.grow_old()
        if visits and self._loop is not None:
            wait = visits[0].arrived + PATIENCE_SECONDS - now
            self._loop.call_later(wait, self._sweep)
        else:
            self._loop = None
