"""GET /health/live, /health/ready, /health and /metrics."""

from fastapi import APIRouter, Response

from service.api.schemas import Live, Ready, Unavailable
from service.contracts import Repository
from service.errors import NotReady
from service.telemetry import CONTENT_TYPE, Metrics


def health_router(repository: Repository, metrics: Metrics) -> APIRouter:
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
        living, count = await metrics.workers()
        if count == 1:
            return Ready(ready=True, unavailable=unavailable or None)
        return Ready(
            ready=True, unavailable=unavailable or None, workers_ready=living, workers=count
        )

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def prometheus() -> Response:
        try:
            return Response(await metrics.scrape(), media_type=CONTENT_TYPE)
        except OSError:
            raise NotReady("another process of the service does not answer") from None

    return router
