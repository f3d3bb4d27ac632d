"""uvicorn's HTTP/1.1 connection, with bounds on what a client can make it hold or wait for.

Everything of uvicorn that is not public is used in this module: `RequestResponseCycle`,
`STATUS_LINE`, the flow control and the keep-alive timer of `HttpToolsProtocol`. pyproject.toml
bounds its version; read its changes in `protocols/http/httptools_impl.py` before raising that.
"""

import time
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
)
from service.operations.response import RawResponse, Response, write_headers
from service.problem import problem
from service.transport.fast_path.connection_limit import SURPLUS_SECONDS, asks_for_health
from service.transport.fast_path.head_cache import MOST_HEAD_BYTES, check_head
from service.transport.fast_path.peer import HalfCloseProbe, WriteStallTimer
from service.transport.fast_path.shared import SharedState
from service.transport.fast_path.upgrades import head_without_offer
from service.transport.request import MAX_PIECES, request_id

_LAST_LINES = b"connection: close\r\n\r\n"
_HEADER_EXTRA_BYTES = len(b": \r\n")

# Where an answer comes before the end of the body, nobody knows whether what comes then is the rest
# of it or a next request. So the connection is closed, but not at once: that would take the answer
# from a client that still sends. How long it may send nothing, and how long it may send in all.
UNREAD_SECONDS = 30
# A larger body is not copied to stand in one piece with its head.
_SMALL_ANSWER_BYTES = 65_536


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection of uvicorn: bounded heads, bodies, waits and numbers, errors as problems.

    is_answered: whether a client was answered here; one that has only connected was not.
    silent_seconds: how long a client may send nothing that was answered before the end of its body.
    """

    __slots__ = (
        "_active_at",
        "_begins_here",
        "_complaint",
        "_discarded_bytes",
        "_early_at",
        "_half_close",
        "_has_cycle",
        "_has_offer",
        "_head_bytes",
        "_is_inside_head",
        "_is_inside_message",
        "_is_last",
        "_is_surplus",
        "_pieces",
        "_unended_bytes",
        "_write_watch",
        "is_answered",
    )

    shared: ClassVar[SharedState]
    silent_seconds: ClassVar[int] = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_inside_message = False
        self._is_inside_head = False
        # Of the head that is read now: what the parser has reported, and what came before its end.
        self._head_bytes = self._unended_bytes = 0
        self._pieces = self._discarded_bytes = 0
        self._complaint: ServiceError | None = None
        self._has_cycle = False
        self._is_last = False
        self._begins_here = self._has_offer = False
        # When an answer began before its request was read to its end.
        self._early_at: float | None = None
        self._write_watch: WriteStallTimer | None = None
        self._half_close: HalfCloseProbe | None = None
        self._active_at = time.monotonic()
        self.is_answered = False
        # Whether the connection is one too many, and is only answered so.
        self._is_surplus = False

    def connection_made(self, transport: Any) -> None:
        """Begin; a client that then says nothing is not waited for."""
        super().connection_made(transport)
        self._write_watch = WriteStallTimer(
            transport, self.loop, self.shared.write_timeout_seconds, self._count_stall
        )
        count = len(self.server_state.connections)
        if not self.shared.connection_limit.admits(count):
            self._is_surplus = True
            self.shared.metrics.connections_refused.labels().inc()
            self.timeout_keep_alive = SURPLUS_SECONDS
            if not self.shared.connection_limit.admits_surplus(count):
                self._refuse(_no_room())
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        for watch in (self._write_watch, self._half_close):
            if watch is not None:
                watch.stop()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does where the client closed in order
        self.shared.connection_limit.release(len(self.server_state.connections))

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more: what it has asked in full is answered first."""
        self._half_close = HalfCloseProbe(self.transport, self.loop, self._may_probe)
        self._close_if_served()
        return not self.transport.is_closing()

    def pause_writing(self) -> None:
        """The client takes an answer more slowly than it is written."""
        super().pause_writing()
        if self._write_watch is not None:
            self._write_watch.watch()

    def on_message_begin(self) -> None:
        """A message goes through uvicorn."""
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
                self._active_at = min(time.monotonic(), self._early_at + UNREAD_SECONDS)
            self._discarded_bytes += len(body)
            if self._discarded_bytes > self.shared.max_body_bytes:
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
            if self._is_surplus:
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
        """An answer of uvicorn is written."""
        self._active_at = time.monotonic()
        if self._early_at is not None and not self._is_inside_message:
            self.transport.close()
        self.is_answered = True
        super().on_response_complete()
        self._watch_writes()
        self._close_if_served()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser does not understand, in the form of all errors."""
        malformed = MalformedRequest("expected HTTP/1.1; the connection is closed")
        self._refuse(self._complaint or malformed)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long, or look again when it may have been.

        So a request of the fast path sets no timer, it only says when it was; and a head that does
        not end holds no connection for ever.
        """
        if self._is_answering():
            self._active_at = time.monotonic()
        if self._seconds_left() > 0:
            self._arm()
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """Close, after the answer that is under way."""
        if self._is_answering():
            self._is_last = True
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Let an answer that comes before the end of its body say that it is the last."""

        async def serve(scope: Any, receive: Any, send: Any) -> None:
            async def send_message(message: Any) -> None:
                is_early = message["type"] == "http.response.start" and cycle.more_body
                lingers = is_early and cycle.keep_alive and self.shared.is_open
                if lingers:
                    cycle.keep_alive = False  # so that uvicorn writes Connection: close
                await send(message)
                if lingers:
                    cycle.keep_alive = True  # and leaves it to us when
                    self._early_at = time.monotonic()
                    self.timeout_keep_alive = self.silent_seconds

            await app(scope, receive, send_message)

        super()._start_asgi_task(cycle, serve)

    def _answer_surplus(self, data: bytes) -> None:
        """Answer a client that found no room: once, and only how the service is."""
        if self._is_inside_message or asks_for_health(data):
            self._parse(data)
        elif self._is_idle():
            self._refuse(_no_room())

    def _is_answering(self) -> bool:
        """Whether an answer is under way that uvicorn knows nothing of."""
        return False

    def _is_idle(self) -> bool:
        """Whether no answer of uvicorn's is under way."""
        return not self._has_cycle or self.cycle.response_complete

    def _parse(self, data: bytes) -> None:
        """Let uvicorn have what arrived, and bound the head that it waits for the end of."""
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
        self.shared.metrics.cut_off("not_reading")

    def _watch_writes(self) -> None:
        # Most answers are taken by the kernel at once.
        if self._write_watch is not None:
            self._write_watch.watch()

    def _may_probe(self) -> bool:
        """Whether the client waits for the first byte of an answer, and speaks HTTP/1.1."""
        if self._is_answering():
            return True
        is_waiting = not self._is_idle() and not self.cycle.response_started
        return is_waiting and not self.pipeline and self.scope["http_version"] == "1.1"

    def _close_if_served(self) -> None:
        """Where the client sends no more, close after the last answer to a whole request."""
        if self._half_close is None or self.transport.is_closing():
            return
        if self._is_answering() or self.pipeline:
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
            self._write(Response(error.status, headers, body).raw(), is_last=True)

    def _write(self, response: RawResponse, *, is_last: bool) -> None:
        status, lines, body = response
        shared, transport, headers = self.shared, self.transport, self.server_state.default_headers
        if is_last or not shared.is_open:
            self._write_last(response)
            return
        common = shared.lines if headers is shared.headers else shared.common_lines(headers)
        if len(body) <= _SMALL_ANSWER_BYTES:
            transport.write(b"".join((STATUS_LINE[status], common, lines, b"\r\n", body)))
        else:
            transport.write(b"".join((STATUS_LINE[status], common, lines, b"\r\n")))
            transport.write(body)
        watch = self._write_watch
        if watch is not None and watch.timer is None:  # else there is nothing to call for
            watch.watch()

    def _write_last(self, response: RawResponse) -> None:
        headers, end = self.server_state.default_headers, b"\r\n"
        if self.shared.is_open:
            end = _LAST_LINES  # else the headers say so by now
        common = write_headers(headers)
        self.transport.write(
            b"".join((STATUS_LINE[response.status], common, response.header_lines, end))
        )
        self.transport.write(response.body)
        self._watch_writes()
        self.transport.close()

    def _seconds_left(self) -> float:
        return self._active_at + self.timeout_keep_alive - time.monotonic()

    def _arm(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            max(0.0, self._seconds_left()), self.timeout_keep_alive_handler
        )


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(f"expected at most {MOST_HEAD_BYTES} bytes of path and headers")


def _no_room() -> TooManyConnections:
    return TooManyConnections(
        "as many connections are open as the server has descriptors for; this one is closed"
    )
