"""GET /models and /models/{name}: what is served."""

from fastapi import APIRouter

from service.api.schemas import ModelInfo, ModelList
from service.contracts import Repository
from service.errors import ServiceError


def models_router(repository: Repository) -> APIRouter:
    """Make the routes that describe the served models."""
    router = APIRouter(tags=["models"])

    @router.get("/models", summary="All served models", response_model_exclude_defaults=True)
    async def models() -> ModelList:
        served = [ModelInfo(**model.card.describe()) for model in repository.models()]
        return ModelList(models=served, default=_default(repository))

    @router.get("/models/{name}", summary="One served model", response_model_exclude_defaults=True)
    async def model(name: str) -> ModelInfo:
        return ModelInfo(**repository.get(name).card.describe())

    return router


def _default(repository: Repository) -> str | None:
    try:
        return repository.get(None).card.name
    except ServiceError:
        return None
