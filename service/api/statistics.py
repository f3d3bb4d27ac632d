"""GET /v2/models/stats, /v2/models/{name}/stats and /v2/models/{name}/versions/{version}/stats.

Reference: Triton, extension_statistics.md.
"""

from collections.abc import Sequence

from fastapi import APIRouter

from service.api.schemas_statistics import (
    BatchStatistics,
    DurationStatistics,
    InferenceStatistics,
    StatisticsOfModel,
    StatisticsOfModels,
)
from service.contracts import ModelCard, Repository
from service.errors import MissingField, NotReady
from service.telemetry import Metrics
from service.telemetry.statistics import ModelStatistics, Spent, read_statistics
from service.transport.v2 import find


def statistics_router(repository: Repository, metrics: Metrics) -> APIRouter:
    """Make the routes; the first stands before one that takes any name."""
    router = APIRouter(prefix="/v2/models", tags=["open inference protocol"])

    @router.get("/stats", summary="Statistics of the live versions of all models")
    async def all_models() -> StatisticsOfModels:
        return await collect(metrics, live_cards(repository, "", ""))

    @router.get("/{name}/stats", summary="Statistics of the live versions of a model")
    async def one_model(name: str) -> StatisticsOfModels:
        return await collect(metrics, live_cards(repository, name, ""))

    @router.get("/{name}/versions/{version}/stats", summary="Statistics of one version")
    async def one_version(name: str, version: str) -> StatisticsOfModels:
        return await collect(metrics, live_cards(repository, name, version))

    return router


def live_cards(repository: Repository, name: str, version: str) -> list[ModelCard]:
    """The live versions of a model, or of all; where one is named, that one.

    Raises:
        MissingField: a version of no model.
        ModelNotFound, NotReady: as `find`.
    """
    if version and not name:
        raise MissingField(f"name: expected the model whose version {version[:40]} is meant")
    if not name:
        names = [model.card.name for model in repository.models()]
        return [card for each in names for card in live_cards(repository, each, "")]
    found = find(repository, name, version or None).card
    if version or found.name != name:  # NAME@VERSION
        return [found]
    return [served.card for served in repository.versions(name)]


async def collect(metrics: Metrics, cards: Sequence[ModelCard]) -> StatisticsOfModels:
    """Give the statistics of served models, summed over the processes of the service.

    Raises:
        NotReady: one of the processes does not answer.
    """
    try:
        table = await read_statistics(metrics)
    except OSError:
        raise NotReady("another process of the service does not answer") from None
    found = [_describe(card, table.find(card.name, card.version)) for card in cards]
    return StatisticsOfModels(model_stats=found)


def _describe(card: ModelCard, known: ModelStatistics) -> StatisticsOfModel:
    untimed = _duration(Spent())
    return StatisticsOfModel(
        name=card.name,
        version=card.version,
        last_inference=known.last_inference,
        inference_count=known.rows,
        execution_count=known.batches,
        inference_stats=InferenceStatistics(
            success=_duration(known.success),
            fail=_duration(known.fail),
            queue=_duration(known.queue),
            compute_input=untimed,
            compute_infer=_duration(known.compute),
            compute_output=untimed,
        ),
        batch_stats=[
            BatchStatistics(
                batch_size=size,
                compute_input=untimed,
                compute_infer=_duration(spent),
                compute_output=untimed,
            )
            for size, spent in known.by_size.items()
        ],
    )


def _duration(spent: Spent) -> DurationStatistics:
    return DurationStatistics(count=spent.count, ns=spent.ns)
