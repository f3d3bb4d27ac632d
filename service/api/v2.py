"""The Open Inference Protocol but for inference: server, models, health, repository.

Reference: Open Inference Protocol, inference_rest.md; Triton, extension_model_repository.md.
"""

from collections.abc import Iterable, Mapping, Sequence

from fastapi import APIRouter, Request

from pushforward.version import package_version
from service.api.schemas import Live, Ready
from service.api.schemas_v2 import (
    ControlRequest,
    IndexEntry,
    IndexRequest,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    TensorMetadata,
)
from service.codec.json import check_keys, parse_object
from service.codec.v2 import validate
from service.codec.v2_tensors import datatype_of
from service.codec.version_policy import NAMES, read_version_policy
from service.contracts import ModelCard, Repository
from service.errors import InvalidParameter, MalformedBody, NotReady
from service.operations.failures import CODE_TYPE, STATUS
from service.transport.asgi import AppContext, receive_small
from service.transport.request import ClientGone
from service.transport.v2 import find
from service.transport.v2_call import all_outputs, output_dtypes

NAME = "pushforward"

_MAX_BODY_BYTES = 64 * 1024
_BATCH = -1


def v2_router(app: AppContext) -> APIRouter:
    """Make the protocol's routes; those that change what is served only where that is allowed."""
    repository, has_control = app.repository, app.settings.enable_model_control
    router = APIRouter(prefix="/v2", tags=["open inference protocol"])
    _add_server(router, repository, has_control)
    _add_models(router, repository)
    _add_index(router, app)
    if has_control:
        _add_control(router, app)
    return router


def describe(card: ModelCard, live: Sequence[str] = ()) -> ModelMetadata:
    """Name a model's tensors, all that can be sent and all that can be asked for.

    Args:
        card: of the version that is described.
        live: all versions of the model that are live.
    """
    names, dtypes = card.feature_names, output_dtypes()

    def tensor(name: str, shape: tuple[int, ...]) -> TensorMetadata:
        datatype = datatype_of(dtypes.get(name, card.numpy_dtype))
        return TensorMetadata(name=name, datatype=datatype, shape=[_BATCH, *shape])

    shapes = {"x": card.event_shape, "z": (card.features,)}
    inputs = [tensor(name, shape) for name, shape in shapes.items()]
    if card.context_shape is not None:
        inputs.append(tensor("context", card.context_shape))
    return ModelMetadata(
        name=card.name,
        versions=list(live) or [card.version],
        platform=f"{NAME}_{card.engine}",
        inputs=inputs,
        outputs=[
            *(tensor(name, shapes.get(name, ())) for name in all_outputs(card)),
            TensorMetadata(name=STATUS, datatype=datatype_of(CODE_TYPE), shape=[_BATCH]),
        ],
        parameters=None if names is None else {"feature_names": list(names)},
    )


def describe_server(has_control: bool) -> ServerMetadata:
    """Name the server, and what it has of the protocol's extensions."""
    # Without control the repository has its index only, which is not the whole extension.
    extensions = ["binary_tensor_data", "parameters", "statistics"]
    if has_control:
        extensions.append("model_repository")
    return ServerMetadata(name=NAME, version=package_version(), extensions=extensions)


def list_index(repository: Repository, *, only_ready: bool) -> list[IndexEntry]:
    """List the models of a repository."""
    return [
        IndexEntry(
            name=one.name,
            version=one.version,
            state="READY" if one.is_ready else "UNAVAILABLE",
            reason=one.reason,
        )
        for one in repository.index()
        if one.is_ready or not only_ready
    ]


def refuse_control_parameters(parameters: Iterable[str], known: Sequence[str] = ()) -> None:
    """Refuse what would put a client's settings or files in place of the repository's.

    Args:
        parameters: of a load or an unload.
        known: those that it takes beside `unload_dependents`.

    Raises:
        InvalidParameter: a parameter of a load or an unload that is not taken.
    """
    for name in parameters:
        if name not in (*known, "unload_dependents"):
            raise InvalidParameter(
                f"{name:.40}: models come from the repository alone", at=f"/parameters/{name:.40}"
            )


def _add_server(router: APIRouter, repository: Repository, has_control: bool) -> None:
    @router.get("", summary="The server and its extensions")
    async def server() -> ServerMetadata:
        return describe_server(has_control)

    @router.get("/health/live", summary="Whether the process works", operation_id="v2_live")
    async def live() -> Live:
        if not repository.is_alive:
            raise NotReady("a batcher has stopped: restart the process", members={"live": False})
        return Live(live=True)

    @router.get(
        "/health/ready",
        summary="Whether requests are taken",
        operation_id="v2_ready",
        response_model_exclude_none=True,
    )
    async def ready() -> Ready:
        if not repository.is_ready:
            raise NotReady("models are loading, or draining", members={"ready": False})
        return Ready(ready=True)


def _add_models(router: APIRouter, repository: Repository) -> None:
    @router.get(
        "/models/{name}", summary="The tensors of a model", response_model_exclude_none=True
    )
    async def model(name: str) -> ModelMetadata:
        return describe_live(repository, name, None)

    @router.get(
        "/models/{name}/versions/{version}",
        summary="The tensors of one version",
        response_model_exclude_none=True,
    )
    async def model_version(name: str, version: str) -> ModelMetadata:
        return describe_live(repository, name, version)

    @router.get("/models/{name}/ready", summary="Whether a model takes requests")
    async def model_ready(name: str) -> ModelReady:
        return ModelReady(name=find(repository, name, None).card.name, ready=True)

    @router.get("/models/{name}/versions/{version}/ready", summary="Whether a version does")
    async def version_ready(name: str, version: str) -> ModelReady:
        return ModelReady(name=find(repository, name, version).card.name, ready=True)


def describe_live(repository: Repository, name: str, version: str | None) -> ModelMetadata:
    """Name the tensors of a version, and the versions of its model that are live.

    Raises:
        ModelNotFound, NotReady: as `find`.
    """
    card = find(repository, name, version).card
    return describe(card, [served.card.version for served in repository.versions(card.name)])


def _add_index(router: APIRouter, app: AppContext) -> None:
    repository = app.repository

    @router.post("/repository/index", summary="All models", openapi_extra=_body_of(IndexRequest))
    async def index(request: Request) -> list[IndexEntry]:
        wanted = validate(IndexRequest, await _read(app, request))
        return list_index(repository, only_ready=wanted.ready)


def _add_control(router: APIRouter, app: AppContext) -> None:
    repository = app.repository
    body = _body_of(ControlRequest)

    @router.post("/repository/models/{name}/load", summary="Load a model", openapi_extra=body)
    async def load(name: str, request: Request) -> None:
        parameters = await _read_control(app, request, NAMES)
        await repository.load(name, read_version_policy(parameters))

    @router.post("/repository/models/{name}/unload", summary="Unload a model", openapi_extra=body)
    async def unload(name: str, request: Request) -> None:
        await _read_control(app, request)
        await repository.unload(name)


async def _read_control(
    app: AppContext, request: Request, known: Sequence[str] = ()
) -> Mapping[str, object]:
    parameters = validate(ControlRequest, await _read(app, request)).parameters
    refuse_control_parameters(parameters, known)
    return parameters


async def _read(app: AppContext, request: Request) -> object:
    """Read a small JSON body whatever its type is called: clients of the protocol send none."""
    headers = dict(request.scope["headers"])
    try:
        body = await receive_small(app, headers, request.receive, _MAX_BODY_BYTES)
    except ClientGone:
        raise MalformedBody("body: it did not arrive") from None
    if not body:
        return {}
    content = parse_object(body)
    check_keys(body)
    return content


def _body_of(kind: type[IndexRequest] | type[ControlRequest]) -> dict[str, object]:
    schema = kind.model_json_schema()
    return {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}
