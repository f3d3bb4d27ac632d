"""GET /health/live, /health/ready, /health and /metrics."""

from datetime import UTC, datetime

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from service.api.schemas import HeldBackPart, KeyFile, Live, ModelSource, Ready, Unavailable
from service.auth import ApiKeyAuth, KeyFileStatus
from service.contracts import Repository, SourceStatus
from service.errors import NotReady
from service.telemetry import CONTENT_TYPE, Metrics

# Told of at a time: a probe asks every few seconds.
_MOST_HELD_BACK = 20


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)


def _describe_key_file(status: KeyFileStatus | None) -> KeyFile | None:
    return None if status is None else KeyFile(ok=status.is_ok, since=_moment(status.since))


def _describe(source: SourceStatus) -> ModelSource:
    return ModelSource(
        uri=source.uri,
        ok=source.is_ok,
        reason=source.reason or None,
        since=_moment(source.since),
        held_back=[
            HeldBackPart(path=one.path, reason=one.reason)
            for one in source.held_back[:_MOST_HELD_BACK]
        ]
        or None,
    )


def health_router(
    repository: Repository, metrics: Metrics, auth: ApiKeyAuth | None = None
) -> APIRouter:
    """Make the routes that probes and scrapers ask."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", summary="Whether the process works")
    async def live() -> Live:
        if not repository.is_alive:
            raise NotReady("a batcher has stopped: restart the process", members={"live": False})
        return Live(live=True)

    @router.get("/health", summary="The same as /health/ready", response_model_exclude_none=True)
    @router.get(
        "/health/ready", summary="Whether requests are taken", response_model_exclude_none=True
    )
    async def ready() -> Ready:
        if not repository.is_ready:
            raise NotReady("models are loading, or draining", members={"ready": False})
        unavailable = [
            Unavailable(name=one.name, version=one.version, reason=one.reason)
            for one in repository.index()
            if not one.is_ready
        ]
        sources = [_describe(one) for one in repository.sources()]
        living, count = await metrics.workers()
        several = {"workers_ready": living, "workers": count} if count > 1 else {}
        return Ready(
            ready=True,
            unavailable=unavailable or None,
            sources=sources or None,
            api_key_file=_describe_key_file(None if auth is None else auth.file_status),
            **several,
        )

    @router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        try:
            return Response(await metrics.scrape(), media_type=CONTENT_TYPE)
        except OSError:
            raise NotReady("another process of the service does not answer") from None

    return router
