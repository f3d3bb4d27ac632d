"""The application: the operations, the ordinary routes, and one form for every error."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.health import health_router
from service.api.models import models_router
from service.api.openapi import ANY_PROBLEM, add_keys, add_operations
from service.api.openapi_v2 import INFER_PATHS, add_inference
from service.api.page import page_router
from service.api.v2 import v2_router
from service.auth import OPEN_PATHS, ApiKeyAuth, guard_of
from service.contracts import Repository
from service.errors import (
    Fault,
    InvalidRequest,
    ServiceError,
    from_status,
    problem,
    unexpected,
)
from service.operations.log_prob import Decode, Encode, LogProb, Sample
from service.settings import Settings
from service.telemetry import Metrics
from service.telemetry.access_log import AccessLog
from service.telemetry.recorder import RequestRecorder
from service.telemetry.tracing import Tracer
from service.transport.asgi import AppContext, Endpoint
from service.transport.disconnect import DisconnectWatcher
from service.transport.fast_path.plain import PlainOperation
from service.transport.request import Reception, check_single, read_headers, request_id, respond
from service.transport.v2 import PREFIX, SUFFIX, Infer

_DESCRIPTION = "Normalizing flows over HTTP: score rows, map to latents and back, draw samples."
# What a path that no route has is counted under: one series, whatever scanners try.
_NO_ROUTE = "none"
# What pages of other origins may send and read; Content-Type and Accept among them always.
_CORS_REQUEST_HEADERS = (
    *("Authorization", "Content-Type", "Inference-Header-Content-Length", "Traceparent"),
    *("X-API-Key", "X-Request-Id", "X-Timeout-Seconds"),
)
_CORS_ANSWER_HEADERS = (
    *("Inference-Header-Content-Length", "Retry-After", "Server-Timing", "X-Request-Id"),
)

_log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    repository: Repository,
    metrics: Metrics | None = None,
    access: AccessLog | None = None,
    tracer: Tracer | None = None,
) -> "Application":
    """Build the application over a repository, which is started and drained with it.

    Raises:
        SettingsError: the file of API keys cannot be used.
    """
    metrics = metrics or Metrics()
    register = RequestRecorder(metrics, access or AccessLog(settings.log_format), tracer)
    reception = Reception(settings.max_receiving_bytes)
    desk = AppContext(
        settings, repository, register, DisconnectWatcher(), reception, guard_of(settings)
    )
    operations: list[PlainOperation] = [kind(desk) for kind in (LogProb, Encode, Decode, Sample)]
    app = Application(desk, operations, Infer(desk))
    app.include_router(models_router(repository))
    app.include_router(health_router(repository, metrics))
    app.include_router(v2_router(desk))
    app.include_router(page_router())
    app.add_middleware(TelemetryMiddleware, register=register, guard=desk.guard)
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    return app


class Application(FastAPI):
    """FastAPI with four paths that are looked up before it: its stack costs more than they do.

    operations: what serves each of the four.
    """

    def __init__(self, desk: AppContext, operations: list[PlainOperation], infer: Infer) -> None:
        super().__init__(
            title="pushforward",
            version=version("pushforward"),
            description=_DESCRIPTION,
            lifespan=_lifespan(desk),
            redirect_slashes=False,
            responses=ANY_PROBLEM,
        )
        self._repository = desk.repository
        self._described: list[tuple[str, str]] = []
        self.operations = {f"/{operation.name}": operation for operation in operations}
        self._infer = infer
        self._is_guarded = desk.guard is not None
        self._entry: ASGIApp = self._serve
        origins = desk.settings.cors_origins
        if origins:
            self._entry = CORSMiddleware(
                self._serve,
                allow_origins=origins,
                allow_methods=("GET", "HEAD", "POST"),
                allow_headers=_CORS_REQUEST_HEADERS,
                expose_headers=_CORS_ANSWER_HEADERS,
            )
        # As routes too, for the sake of other methods: 405, not 404.
        self.router.routes.extend(
            Route(path, operation, methods=["POST"]) for path, operation in self.operations.items()
        )
        self.router.routes.extend(Route(path, infer, methods=["POST"]) for path in INFER_PATHS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's message, with CORS around it where pages may call."""
        await self._entry(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an operation, or what the framework has."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            if scope.get("root_path"):
                path = path.removeprefix(scope["root_path"])
            operation: Endpoint | None = self.operations.get(path)
            if operation is None and path.startswith(PREFIX) and path.endswith(SUFFIX):
                operation = self._infer
            if operation is not None:
                await operation(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Describe all routes, with examples for the models that are served now."""
        cards = [served.card for served in self._repository.models()]
        described = [(card.name, card.version) for card in cards]
        if self.openapi_schema is None or described != self._described:
            # Written anew only when the models have changed: it takes a good part of a second.
            self.openapi_schema = None
            document = super().openapi()
            add_operations(document, list(self.operations.values()), cards)
            add_inference(document)
            if self._is_guarded:
                add_keys(document)
            self._described = described
        return super().openapi()


class TelemetryMiddleware:
    """What surrounds every route but the operations, which do it themselves.

    That is the key, the request id, the count and the form of errors.
    """

    def __init__(self, app: ASGIApp, register: RequestRecorder, guard: ApiKeyAuth | None) -> None:
        self._app = app
        self._register = register
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one message of a connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        received, twice = read_headers(scope["headers"])
        method = scope["method"]
        if method == "HEAD":  # as GET, on every route that has it; the server keeps the body
            scope = {**scope, "method": "GET"}
        identity = request_id(received)
        scope.setdefault("state", {})["request_id"] = identity
        status = 0

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
            check_single(twice)
            if self._guard is not None and scope["path"] not in OPEN_PATHS:
                self._guard.check(received)
            await self._app(scope, receive, send_framed)
        except ServiceError as error:
            body, headers = problem(error, identity)
            await respond(send_framed, error.status, headers, body)
        except Exception:
            _log.exception("unexpected error in request %s", identity)
            if status:
                raise
            body, headers = problem(unexpected(identity), identity)
            await respond(send_framed, 500, headers, body)
        route = getattr(scope.get("route"), "path", _NO_ROUTE)
        self._register.note(
            method,
            scope["path"],
            received,
            request_id=identity,
            status=status,
            seconds=time.monotonic() - started,
            op=route,
        )


def _lifespan(desk: AppContext) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await desk.repository.start()
        yield
        await desk.repository.drain()
        desk.register.access.flush()
        if desk.register.tracer is not None:
            await asyncio.to_thread(desk.register.tracer.close)

    return lifespan


def _render(request: Request, error: ServiceError) -> Response:
    body, headers = problem(error, request.state.request_id)
    named = {name.decode(): value.decode() for name, value in headers}
    return Response(body, error.status, named)


async def _on_service_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    return _render(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's own: no such path, no such method."""
    if not isinstance(error, HTTPException):
        raise error
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if error.status_code == 404:
        detail = "no such path; GET /openapi.json has all of them"
    elif error.status_code == 405:
        if headers.get("Allow") == "GET":
            headers["Allow"] = "GET, HEAD"  # every route that has the one answers the other
        detail = f"{request.method}: expected {headers.get('Allow', 'another method')}"
    return _render(request, from_status(error.status_code, detail, tuple(headers.items())))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    faults = [
        Fault("/" + "/".join(map(str, item["loc"])), str(item["msg"])) for item in error.errors()
    ]
    detail = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults)
    return _render(request, InvalidRequest(detail, faults=faults))
