"""How long the message of a call is waited for, and what is held of it meanwhile."""

import asyncio
import time
from typing import Any

from service.errors import BodyTimeout, NotReady, Overloaded, ServiceError
from service.operations.request_context import CancelReason, RequestContext
from service.transport.request import ReceiveBudget

# For how long a message is waited for at least: one that is there is read in less.
_LEAST_SECONDS = 0.05


class MessageRequestContext(RequestContext):
    """A request whose task gRPC cancels: its client has left, or waits no longer."""

    cancel_reason = CancelReason.GONE

    def __init__(self, timeout_seconds: float, remaining: float | None) -> None:
        now = time.monotonic()
        super().__init__(now, now + timeout_seconds, asyncio.current_task())
        if remaining is not None:
            self.shorten(remaining)


class MessageWait:
    """Waits for the message of a call, and counts one that is slow as large as messages may be.

    How much of a message is there cannot be seen, and gRPC holds all of it.

    Args:
        request: ends where its message is late, or where too much is being received.
        budget: of all that is being received.
        max_bytes: of a message.
        patience_seconds: from when on a message is slow.
    """

    def __init__(
        self,
        request: RequestContext,
        budget: ReceiveBudget,
        max_bytes: int,
        patience_seconds: float,
    ) -> None:
        self._request = request
        self._budget = budget
        self._max_bytes = max_bytes
        # A message that is there already is not what is late where a client allows no time.
        self._left = max(request.deadline - time.monotonic(), _LEAST_SECONDS)
        self._patience_seconds = min(patience_seconds, self._left)
        self._counted = 0
        self._refusal: ServiceError | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, context: Any, *, is_draining: bool) -> Any:
        """Read a message.

        Args:
            context: of the call.
            is_draining: whether the server ends, see `drain`.

        Raises:
            BodyTimeout: it did not arrive before the request's deadline.
            NotReady: it was not there when the server began to end.
            Overloaded: too much is being received.
        """
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._patience_seconds, self._count, loop)
        if is_draining:
            self.drain()
        try:
            return await context.read()
        except asyncio.CancelledError:
            if self._refusal is None:
                raise
            self._request.resume()
            raise self._refusal from None
        finally:
            self._timer.cancel()
            self._budget.release(self._counted)

    def drain(self) -> None:
        """The server ends: wait no longer than a message takes that is there."""
        if self._timer is not None:
            self._timer.cancel()
        error = NotReady("the server is draining")
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LEAST_SECONDS, self._refuse, error)

    def _count(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._budget.grow(0, self._max_bytes)
        except Overloaded as error:
            self._refuse(error)
        else:
            self._counted = self._max_bytes
            self._timer = loop.call_later(self._left - self._patience_seconds, self._end)

    def _end(self) -> None:
        self._refuse(BodyTimeout("message: it did not arrive before the request's deadline"))

    def _refuse(self, error: ServiceError) -> None:
        self._refusal = error
        if self._request.task is not None:
            self._request.task.cancel()
