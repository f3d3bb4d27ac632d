"""The gRPC server: calls to endpoints, from its port to the end of the last call.

It runs in the event loop of the HTTP server. A call of one message is registered as one that may
send several, so that the key is looked at, and the clock of the request runs, before its message
is received.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import grpc

from service.errors import MalformedBody, ServiceError, TooLarge, Unauthorized
from service.launch.exits import StartupError
from service.operations.request_context import RequestContext
from service.operations.response import Response
from service.settings import flag_name
from service.transport.asgi import AppContext, Endpoint
from service.transport.grpc import health, reflection
from service.transport.grpc.endpoints import make_endpoints, path_of
from service.transport.grpc.message_wait import MessageRequestContext, MessageWait
from service.transport.grpc.messages import SERVICE, message_class
from service.transport.grpc.open_messages import OpenMessages
from service.transport.grpc.options import server_options
from service.transport.grpc.status import answer_metadata, error_status, read_metadata
from service.transport.grpc.unread_answers import UnreadAnswers
from service.transport.request import Head

# After the end of a call's messages, for how long gRPC may cancel it for a fault of its own.
_LAST_WORD_SECONDS = 0.05
# Whether a stream waits for its client or is in the middle of a message cannot be told.
_MOST_STREAMS = 256
# Streams that nobody ends get so long once all calls are answered.
_LAST_SECONDS = 0.5
_TURN_SECONDS = 0.01
_NEVER_SECONDS = 3600.0

_StreamResponse = message_class("ModelStreamInferResponse")


class GrpcServer:
    """A gRPC server over the application's models.

    Args:
        app: what all transports share.
        most_connections: that may be open at a time; None where nothing limits them.

    patience_seconds: from when on a message that arrives is counted as being received.
    """

    patience_seconds = 1.0

    def __init__(self, app: AppContext, most_connections: int | None = None) -> None:
        settings = app.settings
        self._app = app
        self._timeout_seconds = settings.request_timeout_seconds
        self._max_bytes = settings.max_body_bytes
        messages = OpenMessages()
        self._health = health.RepositoryHealth(app.repository, app.auth, messages)
        self._draining = asyncio.Event()
        self._calls: set[asyncio.Task[Any] | None] = set()
        self._waits: set[MessageWait] = set()
        self._streams = 0
        metrics = app.recorder.metrics
        self._unread = UnreadAnswers(
            settings.write_timeout_seconds, partial(metrics.cut_off, "not_reading")
        )
        self._server = grpc.aio.server(options=server_options(settings, most_connections))
        endpoints = make_endpoints(app)
        handlers = {
            method: grpc.stream_unary_rpc_method_handler(self._unary(endpoint, path_of(method)))
            for method, endpoint in endpoints.items()
        }
        stream = self._stream(endpoints["ModelInfer"], path_of("ModelStreamInfer"))
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(stream)
        reflect = reflection.make_reflection((SERVICE, health.SERVICE_NAME), messages)
        self._register(SERVICE, handlers)
        self._register(
            health.SERVICE_NAME,
            {
                "Check": grpc.stream_unary_rpc_method_handler(self._health.check),
                "Watch": grpc.stream_stream_rpc_method_handler(self._health.watch),
            },
        )
        self._register(
            reflection.SERVICE_NAME,
            {"ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(reflect)},
        )

    def _register(self, service: str, handlers: dict[str, Any]) -> None:
        handler = grpc.method_handlers_generic_handler(service, handlers)
        self._server.add_generic_rpc_handlers((handler,))

    async def start(self, host: str, port: int) -> int:
        """Listen, beside other processes of the service.

        Returns:
            The port.

        Raises:
            StartupError: the address cannot be had.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound: int = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise StartupError(f"{flag_name('grpc_port')} {port}: {error}") from None
        await self._server.start()
        self._unread.port = bound
        return bound

    def begin_drain(self) -> None:
        """Say that nothing is served any more, and end what waits for a message."""
        self._health.begin_drain()
        self._draining.set()
        for wait in self._waits:
            wait.drain()

    async def stop(self, grace: float) -> None:
        """Take no more calls, answer those that were taken, and end.

        Args:
            grace: for how many seconds; then calls are cut off.
        """
        self.begin_drain()
        if grace > 0:
            await self._answer_calls(grace)
        self._unread.stop()
        await self._server.stop(None)

    async def _answer_calls(self, grace: float) -> None:
        """Take no more calls, and wait for those that were taken."""
        ends_at = time.monotonic() + grace
        # Two that end calls at a time free the server under each other, which ends the process: its
        # own grace is never over, it is cancelled.
        ending = asyncio.ensure_future(self._server.stop(grace + _NEVER_SECONDS))
        while self._calls and time.monotonic() < ends_at:
            await asyncio.sleep(_TURN_SECONDS)
        await asyncio.wait([ending], timeout=_LAST_SECONDS)
        ending.cancel()
        await asyncio.wait([ending])

    def _unary(
        self, endpoint: Endpoint, path: str
    ) -> Callable[[Any, Any], Coroutine[Any, Any, bytes]]:
        async def handle(_: Any, context: Any) -> bytes:
            request = self._begin(context)
            response = await self._serve(
                endpoint, path, request, context, partial(self._receive, request, context)
            )
            if response is None:
                return b""  # to nobody
            if response.status != 200:
                await context.abort(*error_status(response))
            context.set_trailing_metadata(answer_metadata(response))
            self._unread.watch(context, len(response.body))
            return response.body

        return handle

    def _stream(
        self, endpoint: Endpoint, path: str
    ) -> Callable[[Any, Any], Coroutine[Any, Any, None]]:
        async def handle(_: Any, context: Any) -> None:
            """Answer each message in its turn; an error ends its own request alone.

            One without a good key ends the stream, before a message is read.
            """
            await self._ask_for_key(endpoint, path, context)
            self._streams += 1
            try:
                if self._streams > _MOST_STREAMS:
                    await context.abort(
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                        f"expected at most {_MOST_STREAMS} open streams; send single calls",
                    )
                await answer_all(context)
            finally:
                self._streams -= 1

        async def answer_all(context: Any) -> None:
            while (body := await self._next(context)) is not grpc.aio.EOF:
                request = self._begin(context)

                async def read(body: bytes = body) -> bytes:
                    return self._check_size(body)

                response = await self._serve(endpoint, path, request, context, read)
                if response is None:
                    return
                if response.status == Unauthorized.status:
                    await context.abort(*error_status(response))
                await self._write(context, _stream_message(response))

        return handle

    async def _ask_for_key(self, endpoint: Endpoint, path: str, context: Any) -> None:
        """End a stream whose head refuses all of its messages, counted as one request."""

        async def read() -> bytes:
            return b""

        try:
            endpoint.admit(_head(path, context))
        except ServiceError:
            response = await self._serve(endpoint, path, self._begin(context), context, read)
            if response is not None:
                await context.abort(*error_status(response))

    async def _write(self, context: Any, message: bytes) -> None:
        try:
            async with asyncio.timeout(self._unread.seconds_for(len(message))):
                await context.write(message)
        except TimeoutError:
            self._unread.cut(context.peer())

    def _begin(self, context: Any) -> MessageRequestContext:
        return MessageRequestContext(self._timeout_seconds, context.time_remaining())

    async def _serve(
        self,
        endpoint: Endpoint,
        path: str,
        request: RequestContext,
        context: Any,
        read: Callable[[], Awaitable[bytes]],
    ) -> Response | None:
        task = request.task
        self._calls.add(task)
        try:
            return await endpoint.serve(_head(path, context), request, read)
        finally:
            self._calls.discard(task)

    async def _receive(self, request: RequestContext, context: Any) -> bytes:
        """Receive the message of a call.

        Raises:
            BodyTimeout, NotReady, Overloaded: as `MessageWait.read`.
            MalformedBody: there is none.
            TooLarge: it is larger than bodies may be.
        """
        wait = MessageWait(
            request, self._app.receive_budget, self._max_bytes, self.patience_seconds
        )
        self._waits.add(wait)
        try:
            body = await wait.read(context, is_draining=self._draining.is_set())
        finally:
            self._waits.discard(wait)
        if body is grpc.aio.EOF:
            # Or gRPC has ended the call, as for a message beyond its limit: then it cancels.
            await asyncio.sleep(_LAST_WORD_SECONDS)
            raise MalformedBody("message: expected one, got none")
        return self._check_size(body)

    def _check_size(self, body: bytes) -> bytes:
        if len(body) > self._max_bytes:
            raise TooLarge(
                f"message: expected at most {self._max_bytes} bytes; send the rows in several "
                "requests"
            )
        return body

    async def _next(self, context: Any) -> Any:
        """Wait for the next message of a stream, as long as the server takes any."""
        reading = asyncio.ensure_future(context.read())
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait((reading, draining), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
        finally:
            draining.cancel()
            reading.cancel()
        return await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is draining")


def _head(path: str, context: Any) -> Head:
    return Head(path, b"", *read_metadata(context))


def _stream_message(response: Response) -> bytes:
    """Write an answer of a stream; what trailing metadata say of an error are its parameters."""
    message = _StreamResponse()
    if response.status == 200:
        message.infer_response.MergeFromString(response.body)
    else:
        _, message.error_message, metadata = error_status(response)
        for name, value in metadata:
            if isinstance(value, str):
                message.infer_response.parameters[name].string_param = value
    written: bytes = message.SerializeToString()
    return written
