"""GET /models and /models/{name}: what is served, and how its scores were calibrated."""

import asyncio
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request

from models.scoring.calibration import Calibration
from service.api.schemas import CalibrationInfo, ModelInfo, ModelList
from service.codec.parameters import read_query
from service.contracts import ModelCard, Repository
from service.errors import InvalidParameter, OutOfRange, ServiceError
from service.operations.calibration import check_alpha, not_calibrated

_Alpha = Annotated[
    float | None,
    Query(
        gt=0,
        lt=1,
        description="False alarms a row: the answer has its threshold, and what it promises.",
    ),
]
_Class = Annotated[
    int | None,
    Query(
        alias="class",
        ge=0,
        description="Of a class-conditional model: the scores that decide for this class.",
    ),
]
_QUERY = ("alpha", "class")


def models_router(repository: Repository) -> APIRouter:
    """Make the routes that describe the served models."""
    router = APIRouter(tags=["models"])

    @router.get("/models", summary="All served models", response_model_exclude_defaults=True)
    async def models() -> ModelList:
        served = [_describe(repository, model.card) for model in repository.models()]
        return ModelList(models=served, default=_default(repository))

    @router.get("/models/{name}", summary="One served model", response_model_exclude_defaults=True)
    async def model(name: str) -> ModelInfo:
        return _describe(repository, repository.get(name).card)

    @router.get("/models/{name}/calibration", summary="The calibration scores of a served model")
    async def calibration(
        name: str, request: Request, alpha: _Alpha = None, label: _Class = None
    ) -> CalibrationInfo:
        read_query(request.scope["query_string"], _QUERY, _QUERY)
        card = repository.get(name).card
        found = _calibration_of(card, label)
        if alpha is not None:
            check_alpha(alpha, found, None if label is None else np.array([label]), card)
        # Of a million rows the first one takes a while.
        shape = await asyncio.to_thread(found.distribution, label)
        facts = found.describe(alpha, label)
        return CalibrationInfo(model=card.name, version=card.version, **facts, **shape)

    return router


def _describe(repository: Repository, card: ModelCard) -> ModelInfo:
    live = tuple(served.card.version for served in repository.versions(card.name))
    return ModelInfo(**card.describe(), versions=live)


def _calibration_of(card: ModelCard, label: int | None) -> Calibration:
    if label is not None and card.num_classes is None:
        raise InvalidParameter(
            f"class: {card.name} has no classes; leave class out", at="/query/class"
        )
    if label is not None and card.num_classes is not None and label >= card.num_classes:
        raise OutOfRange(
            f"class: expected 0 .. {card.num_classes - 1}, got {label:.6g}", at="/query/class"
        )
    if card.calibration is None:
        raise not_calibrated("calibration", card, "", "look at rows by their log_prob")
    return card.calibration


def _default(repository: Repository) -> str | None:
    try:
        return repository.get(None).card.name
    except ServiceError:
        return None
