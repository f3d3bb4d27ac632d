"""One connection: uvicorn's, but for whole requests of operations, which are answered here."""

import time
from asyncio import Task, TimerHandle
from typing import Any

from service.operations.request_context import CancelReason, RequestContext
from service.operations.response import RawResponse
from service.transport.asgi import OperationEndpoint
from service.transport.fast_path.fast_path_request import FastPathRequest
from service.transport.fast_path.head_cache import RoutedRequest
from service.transport.fast_path.http_protocol import BoundedHttpProtocol
from service.transport.fast_path.shared import SharedState
from service.transport.fast_path.shedding import refuse_unread
from service.transport.request import Head

# Many clients send head and body in two packets. A small body that is this late, or comes in three,
# goes through uvicorn.
SECOND_PACKET_SECONDS = 0.05
_SMALL_BODY_BYTES = 65_536


class FastPathProtocol(BoundedHttpProtocol):
    """One connection: uvicorn's, but for the requests that the head cache routes.

    At any time either uvicorn or a request of ours has the connection. What arrives while a request
    is under way is kept until it is over, and no more is read.
    """

    # Beside uvicorn's attributes there would be more than an object without a table can have.
    __slots__ = ("_keeps_alive", "_pending", "_request", "_second_packet_timer", "_task")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request: RequestContext | None = None
        self._task: Task[None] | None = None
        self._keeps_alive = True
        self._pending = b""
        self._second_packet_timer: TimerHandle | None = None

    @property
    def is_only(self) -> bool:
        """Whether no other connection is open."""
        return len(self.server_state.connections) == 1

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: its rows need not be computed."""
        if self._task is not None and self._request is not None:
            # A task that is cancelled before its first step never runs: nobody would count it.
            self.loop.call_soon(self._request.cancel, CancelReason.GONE)
        elif self._request is not None:
            self._request.cancel(CancelReason.GONE)
        self._drop_pending()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrived to whoever has the connection."""
        if self._is_surplus:
            self._answer_surplus(data)
            return
        if self._request is not None:
            self._pending += data
            self.flow.pause_reading()
            return
        is_second = self._second_packet_timer is not None
        if is_second:
            data = self._pending + data
            self._drop_pending()
        routed = self.shared.heads.read(data) if self._is_free() else None
        if routed is not None:
            missing = routed.head_bytes + routed.body_bytes - len(data)
            if missing == 0:
                self._begin(routed, data[routed.head_bytes :])
                return
            if missing > 0 and not is_second and routed.body_bytes <= _SMALL_BODY_BYTES:
                self._pending = data
                self._second_packet_timer = self.loop.call_later(
                    SECOND_PACKET_SECONDS, self._pass_to_uvicorn, data
                )
                return
        self._pass_to_uvicorn(data)

    def serve_in_task(self, request: FastPathRequest) -> None:
        """Serve a request in a task of its own: something takes long, or a model was replaced."""
        self._begin_task(
            request.endpoint, request.head, request.body, request.arrived, former=request
        )

    def finish(self, response: RawResponse | None) -> None:
        """Write the answer of the request under way, and go on with what came meanwhile."""
        self._request = self._task = None
        if response is None or self.transport.is_closing():
            return
        self._write(response, is_last=self._is_last or not self._keeps_alive)
        self._active_at = time.monotonic()
        self.is_answered = True
        if self._pending:
            data, self._pending = self._pending, b""
            self.flow.resume_reading()
            self.data_received(data)
        if self._half_close is not None:
            self._close_if_served()

    def _is_answering(self) -> bool:
        return self._request is not None

    def _is_free(self) -> bool:
        """Whether uvicorn has nothing under way here, not even a part of a message."""
        if self._has_cycle and not self.cycle.response_complete:
            return False
        is_between = not self._is_inside_message and not self.flow.write_paused
        return is_between and self.shared.is_open

    def _pass_to_uvicorn(self, data: bytes) -> None:
        self._drop_pending()
        self._parse(data)

    def _begin(self, routed: RoutedRequest, body: bytes) -> None:
        self._keeps_alive = routed.keep_alive
        now = time.monotonic()
        if now < routed.endpoint.sheds_until and (answer := refuse_unread(routed, body, now)):
            self.finish(answer)
        elif routed.is_plain:
            self._request = request = FastPathRequest(self, routed.endpoint, routed.head, body, now)
            self.shared.coalescer.add(request)
        else:
            self._begin_task(routed.endpoint, routed.head, body, now)

    def _begin_task(
        self,
        endpoint: OperationEndpoint,
        head: Head,
        body: bytes,
        arrived: float,
        *,
        former: FastPathRequest | None = None,
    ) -> None:
        self._request = request = RequestContext(arrived, arrived + self.shared.timeout_seconds)
        if former is not None:
            request.go_on_for(former)
        serving = self._serve(endpoint, head, body, request)
        self._task = request.task = self.loop.create_task(serving)

    async def _serve(
        self, endpoint: OperationEndpoint, head: Head, body: bytes, request: RequestContext
    ) -> None:
        async def read_body() -> bytes:
            return body

        response = None
        try:
            response = await endpoint.serve(head, request, read_body)
        finally:
            self.finish(None if response is None else response.raw())

    def _drop_pending(self) -> None:
        self._pending = b""
        if self._second_packet_timer is not None:
            self._second_packet_timer.cancel()
            self._second_packet_timer = None


def protocol_over(shared: SharedState) -> type[FastPathProtocol]:
    """The protocol class that uvicorn makes connections of."""
    return type("BoundFastPathProtocol", (FastPathProtocol,), {"shared": shared})
