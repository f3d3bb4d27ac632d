"""The application: the operations, the ordinary routes, and one form for every error."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pushforward.version import package_version
from service.api.error_handlers import ANY_PROBLEM, add_error_handlers
from service.api.health import health_router
from service.api.middleware import AcceptedGzipMiddleware, TelemetryMiddleware
from service.api.models import models_router
from service.api.openapi import ANSWER_HEADERS, add_operations
from service.api.openapi_keys import add_keys
from service.api.openapi_v2 import INFER_PATHS, add_inference
from service.api.page import page_router
from service.api.statistics import statistics_router
from service.api.v2 import v2_router
from service.auth import auth_of
from service.contracts import ModelCard, Repository
from service.operations import OPERATIONS
from service.settings import Settings
from service.telemetry import Metrics
from service.telemetry.access_log import AccessLog
from service.telemetry.recorder import RequestRecorder
from service.telemetry.tracing import Tracer
from service.transport.asgi import AppContext, Endpoint, OperationEndpoint
from service.transport.compression import MIN_ANSWER_BYTES
from service.transport.disconnect import DisconnectWatcher
from service.transport.request import ReceiveBudget, read_headers
from service.transport.v2 import PREFIX, SUFFIX, InferEndpoint

_DESCRIPTION = "Normalizing flows over HTTP: score rows, map to latents and back, draw samples."
# What pages of other origins may send and read; Content-Type and Accept among them always.
_CORS_REQUEST_HEADERS = (
    *(
        "Authorization",
        "Content-Encoding",
        "Content-Type",
        "Inference-Header-Content-Length",
        "Traceparent",
    ),
    *("X-API-Key", "X-Request-Id", "X-Timeout-Seconds"),
)
_GZIP_LEVEL = 6
_CORS_ANSWER_HEADERS = ("Inference-Header-Content-Length", "Retry-After", *ANSWER_HEADERS)


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
    context = AppContext(
        settings,
        repository,
        RequestRecorder(metrics, access or AccessLog(settings.log_format), tracer),
        DisconnectWatcher(),
        ReceiveBudget(settings.max_receiving_bytes),
        auth_of(settings, metrics),
    )
    app = Application(context)
    app.include_router(models_router(repository))
    app.include_router(health_router(repository, metrics, context.auth))
    app.include_router(statistics_router(repository, metrics))
    app.include_router(v2_router(context))
    app.include_router(page_router())
    # Of the ordinary routes: descriptions, metrics, pages.
    app.add_middleware(
        AcceptedGzipMiddleware, minimum_size=MIN_ANSWER_BYTES, compresslevel=_GZIP_LEVEL
    )
    app.add_middleware(TelemetryMiddleware, recorder=context.recorder, auth=context.auth)
    add_error_handlers(app)
    return app


class Application(FastAPI):
    """FastAPI with paths that are looked up before it: its stack costs more than they do.

    endpoints: what serves each operation, by path.
    context: what all transports share.
    """

    def __init__(self, context: AppContext) -> None:
        super().__init__(
            title="pushforward",
            version=package_version(),
            description=_DESCRIPTION,
            lifespan=_lifespan(context),
            redirect_slashes=False,
            responses=ANY_PROBLEM,
            # Ours: with keys it depends on who asks, and the pages load nothing from elsewhere.
            openapi_url=None,
        )
        self.context = context
        self._repository = context.repository
        self._documents: dict[tuple[tuple[str, str, str], ...], dict[str, Any]] = {}
        self.endpoints = {f"/{kind.name}": OperationEndpoint(context, kind) for kind in OPERATIONS}
        self._infer = InferEndpoint(context)
        self._auth = context.auth
        self._entry: ASGIApp = self._serve
        origins = context.settings.cors_origins
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
            Route(path, endpoint, methods=["POST"]) for path, endpoint in self.endpoints.items()
        )
        self.router.routes.extend(
            Route(path, self._infer, methods=["POST"]) for path in INFER_PATHS
        )
        self.add_route("/openapi.json", self._answer_openapi, include_in_schema=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's message, with CORS around it where pages may call."""
        await self._entry(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an operation, or what the framework has."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path = scope["path"]
            if scope.get("root_path"):
                path = path.removeprefix(scope["root_path"])
            endpoint: Endpoint | None = self.endpoints.get(path)
            if endpoint is None and path.startswith(PREFIX) and path.endswith(SUFFIX):
                endpoint = self._infer
            if endpoint is not None:
                await endpoint(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Describe all routes, with examples for the models that are served now."""
        return self._describe([served.card for served in self._repository.models()])

    def _describe(self, cards: Sequence[ModelCard]) -> dict[str, Any]:
        described = tuple((card.name, card.version, _calibration_of(card)) for card in cards)
        if described not in self._documents:
            # Written anew only when the models have changed: it takes a good part of a second.
            self.openapi_schema = None
            document = super().openapi()
            add_operations(document, [each.operation for each in self.endpoints.values()], cards)
            add_inference(document)
            if self._auth is not None:
                add_keys(document)
            # Beside it is kept what names no model.
            kept = {known: text for known, text in self._documents.items() if not known}
            self._documents = {**kept, described: document}
        return self._documents[described]

    async def _answer_openapi(self, request: Request) -> JSONResponse:
        """Describe all routes; without a key, where there are keys, as if no model were served."""
        headers, _ = read_headers(request.scope["headers"])
        is_admitted = self._auth is None or self._auth.admits(headers)
        document = self.openapi() if is_admitted else self._describe(())
        root = request.scope.get("root_path")
        if root:
            document = {**document, "servers": [{"url": root}]}
        return JSONResponse(document, headers={"Vary": "Authorization, X-API-Key"})


def _calibration_of(card: ModelCard) -> str:
    return "" if card.calibration is None else card.calibration.id


def _lifespan(context: AppContext) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await context.repository.start()
        yield
        await context.repository.drain()
        context.recorder.access.flush()
        if context.recorder.tracer is not None:
            await asyncio.to_thread(context.recorder.tracer.close)

    return lifespan
