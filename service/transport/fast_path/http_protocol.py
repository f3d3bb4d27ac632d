"""One connection: who has it, and what is written to it."""

import time
from asyncio import Task, TimerHandle
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.errors import (
    HeadTooLarge,
    MalformedRequest,
    ServiceError,
    TooLarge,
    TooManyConnections,
    problem,
)
from service.transport.disconnect import CancelReason, RequestContext
from service.transport.fast_path.coalescer import FastPathRequest, RequestCoalescer
from service.transport.fast_path.connection_limit import GUEST_SECONDS, asks_for_health
from service.transport.fast_path.head_cache import (
    MOST_HEAD_BYTES,
    RequestHeadCache,
    RoutedRequest,
    check_head,
)
from service.transport.fast_path.peer import Departure, Reader
from service.transport.fast_path.plain import PlainOperation
from service.transport.fast_path.upgrades import head_without_offer
from service.transport.request import (
    MAX_PIECES,
    Head,
    Headers,
    RawResponse,
    Reply,
    request_id,
    write_headers,
)

_LAST_LINES = b"connection: close\r\n\r\n"
_HEADER_EXTRA_BYTES = len(b": \r\n")

# Many clients send head and body in two packets. A small body that is this late, or comes in three,
# goes the ordinary way.
_SECOND_PACKET_SECONDS = 0.05
_SMALL_BODY_BYTES = 65_536
# Where an answer comes before the end of the body, nobody knows whether what comes then is the rest
# of it or a next request. So the connection is closed, but not at once: that would take the answer
# from a client that still sends. How long it may send nothing, and how long it may send in all.
_SILENT_SECONDS = 2
_UNREAD_SECONDS = 30
# A larger body is not copied to stand in one piece with its head.
_SMALL_ANSWER_BYTES = 65_536


class ExpressProtocol(HttpToolsProtocol):
    """One connection: uvicorn's, but for the requests that `lane` takes.

    At any time either uvicorn or a visit of ours has the connection. What arrives while a visit
    is under way is kept until it is over, and no more is read.

    is_answered: whether a client was answered here; one that has only connected was not.
    """

    lane: ClassVar[RequestHeadCache]
    burst: ClassVar[RequestCoalescer]
    common: ClassVar["_Common"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._visit: RequestContext | FastPathRequest | None = None
        self._task: Task[None] | None = None
        self._keeps_alive = True
        self._kept = b""
        self._patience: TimerHandle | None = None
        self._is_inside_message = False
        self._is_inside_head = False
        # Of the head that is read now: what the parser has told, and what came before its end.
        self._head_bytes = self._unended_bytes = 0
        self._pieces = self._discarded_bytes = 0
        self._complaint: ServiceError | None = None
        self._has_cycle = False
        self._is_last = False
        self._begins_here = self._has_offer = False
        # When an answer began before its request was read to its end.
        self._early_at: float | None = None
        self._reader: Reader | None = None
        self._departure: Departure | None = None
        self._active_at = time.monotonic()
        self.is_answered = False
        # Whether the connection found no room, and is only told so.
        self._is_guest = False

    def connection_made(self, transport: Any) -> None:
        """Begin; a client that then says nothing is not waited for."""
        super().connection_made(transport)
        self._reader = Reader(
            transport, self.loop, self.lane.write_timeout_seconds, self._count_stall
        )
        count = len(self.server_state.connections)
        if not self.lane.room.holds(count):
            self._is_guest = True
            self.timeout_keep_alive = GUEST_SECONDS
            if not self.lane.room.holds_guest(count):
                self._refuse(_no_room())
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: its rows need not be computed."""
        if self._visit is not None:
            self._visit.stop(CancelReason.GONE)
        self._stop_waiting()
        for watch in (self._reader, self._departure):
            if watch is not None:
                watch.stop()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does where the client closed in order
        self.lane.room.leave(len(self.server_state.connections))

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: what it has asked in full is answered first."""
        self._departure = Departure(self.transport, self.loop, self._may_probe)
        self._close_if_served()
        return not self.transport.is_closing()

    def pause_writing(self) -> None:
        """The client takes an answer more slowly than it is written."""
        super().pause_writing()
        if self._reader is not None:
            self._reader.watch()

    def data_received(self, data: bytes) -> None:
        """Take what arrived to whoever has the connection."""
        if self._is_guest:
            self._tell_guest(data)
            return
        if self._visit is not None:
            self._kept += data
            self.flow.pause_reading()
            return
        is_second = self._patience is not None
        if is_second:
            data = self._kept + data
            self._stop_waiting()
        order = self.lane.read(data) if self._is_free() else None
        if order is not None:
            missing = order.head_bytes + order.body_bytes - len(data)
            if missing == 0:
                self._begin(order, data[order.head_bytes :])
                return
            if missing > 0 and not is_second and order.body_bytes <= _SMALL_BODY_BYTES:
                self._kept = data
                self._patience = self.loop.call_later(_SECOND_PACKET_SECONDS, self._give_way, data)
                return
        self._give_way(data)

    def on_message_begin(self) -> None:
        """A message goes the ordinary way."""
        self._is_inside_message = self._is_inside_head = self._begins_here = True
        self._head_bytes = self._unended_bytes = 0
        self._pieces = self._discarded_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of its path."""
        self._grow_head(len(url))
        super().on_url(url)

    def on_body(self, body: bytes) -> None:
        """A chunk of its body, or what came of it in one packet."""
        self._pieces += 1
        if self._pieces > MAX_PIECES:
            self._stop_parser(TooLarge(f"body: expected it in at most {MAX_PIECES} pieces"))
        if self.cycle.response_complete:
            # A client that is answered too early must have the time to notice, but not for ever.
            if self._early_at is not None:
                self._active_at = min(time.monotonic(), self._early_at + _UNREAD_SECONDS)
            self._discarded_bytes += len(body)
            if self._discarded_bytes > self.lane.max_body_bytes:
                self.transport.close()
        super().on_body(body)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers, or of its trailers."""
        self._grow_head(len(name) + len(value) + _HEADER_EXTRA_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is there: somebody works on its answer from now on."""
        self._is_inside_head = False
        method, version = self.parser.get_method(), self.parser.get_http_version()
        try:
            check_head(method, version, self.headers)
        except ServiceError as complaint:
            self._stop_parser(complaint)
        self._has_offer = self.parser.should_upgrade()
        if not self._has_offer:  # else the same head comes again without it
            super().on_headers_complete()
            self._has_cycle = True
            if self._is_guest:
                self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """All of it is there."""
        if self._has_offer:
            return
        self._is_inside_message = False
        super().on_message_complete()
        if self._early_at is not None and self.cycle.response_complete:
            self.transport.close()
            self._stop_parser(MalformedRequest("the answer before was the last"))

    def on_response_complete(self) -> None:
        """An answer of the ordinary way is written."""
        self._active_at = time.monotonic()
        if self._early_at is not None and not self._is_inside_message:
            self.transport.close()
        self.is_answered = True
        super().on_response_complete()
        self._watch_reader()
        self._close_if_served()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not understand, in the form of all errors."""
        malformed = MalformedRequest("expected HTTP/1.1; the connection is closed")
        self._refuse(self._complaint or malformed)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long, or look again when it may have been.

        So an express request sets no timer, it only says when it was; and a head that does not
        end holds no connection for ever.
        """
        if self._visit is not None:
            self._active_at = time.monotonic()
        if self._seconds_left() > 0:
            self._arm()
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Close, after the answer that is under way."""
        if self._visit is not None:
            self._is_last = True
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Let an answer that comes before the end of its body say that it is the last."""

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            async def tell(message: Any) -> None:
                is_early = message["type"] == "http.response.start" and cycle.more_body
                lingers = is_early and cycle.keep_alive and self.lane.is_open
                if lingers:
                    cycle.keep_alive = False  # so that uvicorn writes Connection: close
                await send(message)
                if lingers:
                    cycle.keep_alive = True  # and leaves it to us when
                    self._early_at, self.timeout_keep_alive = time.monotonic(), _SILENT_SECONDS

            await app(scope, receive, tell)

        super()._start_asgi_task(cycle, serve)

    def _tell_guest(self, data: bytes) -> None:
        """Answer a client that found no room: once, and only how the service is."""
        if self._is_inside_message or asks_for_health(data):
            self._give_way(data)
        elif self._is_idle():
            self._refuse(_no_room())

    def _is_free(self) -> bool:
        """Whether uvicorn has nothing under way here, not even a part of a message."""
        return self._is_idle() and not self._is_inside_message and not self.flow.write_paused

    def _is_idle(self) -> bool:
        """Whether no answer of uvicorn's is under way."""
        return not self._has_cycle or self.cycle.response_complete

    def _give_way(self, data: bytes) -> None:
        """Let uvicorn have what arrived."""
        self._stop_waiting()
        self._begins_here = False
        self._feed(data)
        if self._is_inside_head and not self._begins_here:  # else most of it was before this head
            self._unended_bytes += len(data)
            if self._unended_bytes > MOST_HEAD_BYTES:
                self._refuse(_head_too_large())
        if self.timeout_keep_alive_task is None and self._is_idle():
            self._arm()

    def _feed(self, data: bytes) -> None:
        """Let the parser have what arrived, and a head that offers another protocol once more."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            version = self.parser.get_http_version()
            head = head_without_offer(self.parser.get_method(), self.url, version, self.headers)
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._feed(head + data[offer.args[0] :])
        except httptools.HttpParserError as error:
            self.send_400_response(str(error))

    def _count_stall(self) -> None:
        self.lane.metrics.cut_off("not_reading")

    def _watch_reader(self) -> None:
        if self._reader is not None:
            self._reader.watch()

    def _may_probe(self) -> bool:
        """Whether the client waits for the first byte of an answer, and speaks HTTP/1.1."""
        if self._visit is not None:
            return True
        is_waiting = not self._is_idle() and not self.cycle.response_started
        return is_waiting and not self.pipeline and self.scope["http_version"] == "1.1"

    def _close_if_served(self) -> None:
        """Where the client sends no more, close after the last answer to a whole request."""
        if self._departure is None or self.transport.is_closing():
            return
        if self._visit is not None or self.pipeline:
            return
        if self._is_inside_message and not self._is_inside_head:
            is_served = True  # or it never will be: the rest of its body does not come
        else:
            is_served = self._is_idle()
        if is_served:
            self.transport.close()

    def _grow_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MOST_HEAD_BYTES:
            self._stop_parser(_head_too_large())

    def _stop_parser(self, complaint: ServiceError) -> None:
        """Let `send_400_response` be called: what the parser calls may stop it by raising."""
        self._complaint = complaint
        raise complaint

    def _refuse(self, error: ServiceError) -> None:
        """Answer an error and close: nobody knows where the next request begins."""
        if not self.transport.is_closing():
            body, headers = problem(error, request_id({}))
            self._write(Reply(error.status, headers, body).written(), is_last=True)

    def _begin(self, order: RoutedRequest, body: bytes) -> None:
        self._keeps_alive = order.keep_alive
        now = time.monotonic()
        if order.is_plain:
            self._visit = errand = FastPathRequest(self, order.operation, order.head, body, now)
            self.burst.join(errand)
        else:
            self.attend(order.operation, order.head, body, now)

    def attend(self, operation: PlainOperation, head: Head, body: bytes, arrived: float) -> None:
        """Answer a request in a task of its own."""
        self._visit = visit = RequestContext(arrived, arrived + self.lane.timeout_seconds)
        answering = self._answer(operation, head, body, visit)
        self._task = visit.task = self.loop.create_task(answering)

    def finish(self, reply: RawResponse | None) -> None:
        """Write the answer of the visit that is under way, and go on with what came meanwhile."""
        self._visit = self._task = None
        if reply is None or self.transport.is_closing():
            return
        self._write(reply, is_last=self._is_last or not self._keeps_alive)
        self._active_at = time.monotonic()
        self.is_answered = True
        if self._kept:
            data, self._kept = self._kept, b""
            self.flow.resume_reading()
            self.data_received(data)
        self._close_if_served()

    async def _answer(
        self, operation: PlainOperation, head: Head, body: bytes, visit: RequestContext
    ) -> None:
        async def read_body() -> bytes:
            return body

        reply = None
        try:
            reply = await operation.serve(head, visit, read_body)
        finally:
            self.finish(None if reply is None else reply.written())

    def _write(self, reply: RawResponse, *, is_last: bool) -> None:
        status, lines, body = reply
        common, end = self.common.lines_of(self.server_state.default_headers), b"\r\n"
        if not self.lane.is_open:
            common = write_headers(self.server_state.default_headers)  # now with connection: close
        elif is_last:
            end = _LAST_LINES
        head = (STATUS_LINE[status], common, lines, end)
        if len(body) <= _SMALL_ANSWER_BYTES:
            self.transport.write(b"".join((*head, body)))
        else:
            self.transport.write(b"".join(head))
            self.transport.write(body)
        self._watch_reader()
        if is_last or not self.lane.is_open:
            self.transport.close()

    def _seconds_left(self) -> float:
        return self._active_at + self.timeout_keep_alive - time.monotonic()

    def _arm(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            max(0.0, self._seconds_left()), self.timeout_keep_alive_handler
        )

    def _stop_waiting(self) -> None:
        self._kept = b""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _Common:
    """The headers of all answers: uvicorn makes them anew every second, they are written once."""

    def __init__(self) -> None:
        self._headers: Headers = []
        self._lines = b""

    def lines_of(self, headers: Headers) -> bytes:
        if headers is not self._headers:
            self._headers, self._lines = headers, write_headers(headers)
        return self._lines


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"expected at most {MOST_HEAD_BYTES} bytes of path and headers")


def _no_room() -> TooManyConnections:
    return TooManyConnections(
        "as many connections are open as the server has descriptors for; this one is closed"
    )


def protocol_over(lane: RequestHeadCache) -> type[ExpressProtocol]:
    """The protocol class that uvicorn makes connections of."""
    return type(
        "BoundExpressProtocol",
        (ExpressProtocol,),
        {"lane": lane, "burst": RequestCoalescer(), "common": _Common()},
    )
