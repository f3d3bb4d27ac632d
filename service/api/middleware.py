"""Middleware of the ordinary routes: keys, request ids, counting, and errors that nobody caught."""

import time

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.page import PUBLIC_PATHS
from service.auth import OPEN_PATHS, ApiKeyAuth
from service.codec.compression import choose_encoding
from service.operations.response import error_response
from service.telemetry.recorder import RequestRecorder
from service.transport.request import read_headers, repeated_header, request_id, send_response

# What a path that no route has is counted under: one series, whatever scanners try.
_NO_ROUTE = "none"


class TelemetryMiddleware:
    """Middleware around every route but the operations, which do it themselves.

    That is the key, the request id, the count and the form of errors.
    """

    def __init__(self, app: ASGIApp, recorder: RequestRecorder, auth: ApiKeyAuth | None) -> None:
        self._app = app
        self._recorder = recorder
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one message of a connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        received, repeated = read_headers(scope["headers"])
        method = scope["method"]
        if method == "HEAD":  # as GET, on every route that has it; the server keeps the body
            scope = {**scope, "method": "GET"}
        identity = request_id(received)
        scope.setdefault("state", {})["request_id"] = identity
        status = 0
        key = ""

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *(pair for pair in message["headers"] if pair[0] != b"x-request-id"),
                    (b"x-request-id", identity.encode()),
                ]
            await send(message)

        try:
            if repeated is not None:
                raise repeated_header(repeated)
            if self._auth is not None and not _is_public(scope["method"], scope["path"]):
                key = self._auth.check(received).name
            await self._app(scope, receive, send_framed)
        except Exception as error:
            response = error_response(error, identity)
            if status:  # too late for another answer
                raise
            await send_response(send_framed, response)
        route = getattr(scope.get("route"), "path", _NO_ROUTE)
        self._recorder.record(
            method,
            scope["path"],
            received,
            request_id=identity,
            status=status,
            seconds=time.monotonic() - started,
            op=route,
            key=key,
        )


def _is_public(method: str, path: str) -> bool:
    """Whether a call needs no key: the probes, and what pages are made of."""
    return path in OPEN_PATHS or (method == "GET" and path in PUBLIC_PATHS)


class AcceptedGzipMiddleware(GZipMiddleware):
    """Starlette's middleware, for which "gzip;q=0" is no wish but the refusal that it is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compress an answer whose client wants gzip."""
        if scope["type"] == "http":
            headers = scope["headers"]
            accept = next((value for name, value in headers if name == b"accept-encoding"), None)
            if choose_encoding(accept, ("gzip",)) is None:
                # No copy of the scope: the router says in it which route was found.
                scope["headers"] = [pair for pair in headers if pair[0] != b"accept-encoding"]
        await super().__call__(scope, receive, send)
