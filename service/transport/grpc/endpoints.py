"""The calls of inference.GRPCInferenceService that compute nothing: the server, models, repository.

They are endpoints as those of HTTP: keys, request ids, counting, logging, tracing and the form of
errors are `Endpoint`'s.

Reference: Open Inference Protocol, inference_grpc.md; Triton, grpc_service.proto.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any

from service.api.statistics import collect, live_cards
from service.api.v2 import (
    describe_live,
    describe_server,
    list_index,
    refuse_control_parameters,
)
from service.codec.version_policy import NAMES, read_version_policy
from service.errors import NotFound, NotReady, TooLarge
from service.keys import ApiKey
from service.operations.request_context import RequestContext
from service.operations.response import Response
from service.transport.asgi import AppContext, Endpoint, ReadBody
from service.transport.grpc.infer import GrpcInferEndpoint
from service.transport.grpc.messages import METHODS, SERVICE, message_class, parse
from service.transport.grpc.tensors import read_parameters
from service.transport.request import Head
from service.transport.v2 import find

# Gives the fields of the answer for a request's message.
Respond = Callable[[Any], Awaitable[dict[str, Any]]]
# Answered without a key, as HTTP's probes are.
_OPEN = ("ServerLive", "ServerReady")
# Names and parameters.
_MOST_BYTES = 64 * 2**10


class MessageEndpoint(Endpoint):
    """A call that takes a message and answers one; the limits of keys are not for it.

    Args:
        app: what all transports share.
        method: its name in inference.proto.
        respond: gives the fields of the answer.
    """

    is_limited = False

    def __init__(self, app: AppContext, method: str, respond: Respond) -> None:
        super().__init__(app)
        self.name = path_of(method)
        self._is_open = method in _OPEN
        self._respond = respond
        self._request = message_class(METHODS[method].input_type.name)
        self._response = message_class(METHODS[method].output_type.name)

    def route(self, path: str) -> str:
        """Its path has no parts that vary."""
        return path

    def admit(self, head: Head) -> tuple[float, ApiKey | None]:
        """Ask for the key, but where anybody may ask."""
        return (math.inf, None) if self._is_open else super().admit(head)

    async def _answer(self, head: Head, request: RequestContext, read_body: ReadBody) -> Response:
        message = self._request()
        if not self._is_open:  # those that are open ask by their name alone
            body = await read_body()
            if len(body) > _MOST_BYTES:
                raise TooLarge(f"message: expected at most {_MOST_BYTES} bytes, got {len(body)}")
            message = parse(self._request, body)
        answer = self._response(**await self._respond(message))
        return Response(200, [], answer.SerializeToString())


def path_of(method: str) -> str:
    """The path of a call."""
    return f"/{SERVICE}/{method}"


def make_endpoints(app: AppContext) -> dict[str, Endpoint]:
    """Make what answers each call of one message; those that change what is served if allowed."""
    responds = {**_server_calls(app), **_model_calls(app)}
    if app.settings.enable_model_control:
        responds |= _control_calls(app)
    made: dict[str, Endpoint] = {
        method: MessageEndpoint(app, method, respond) for method, respond in responds.items()
    }
    return made | {"ModelInfer": GrpcInferEndpoint(app)}


def _server_calls(app: AppContext) -> dict[str, Respond]:
    repository = app.repository

    async def live(_: Any) -> dict[str, Any]:
        return {"live": repository.is_alive}

    async def ready(_: Any) -> dict[str, Any]:
        return {"ready": repository.is_ready}

    async def server(_: Any) -> dict[str, Any]:
        return describe_server(app.settings.enable_model_control).model_dump()

    return {"ServerLive": live, "ServerReady": ready, "ServerMetadata": server}


def _model_calls(app: AppContext) -> dict[str, Respond]:
    repository = app.repository

    async def is_ready(message: Any) -> dict[str, Any]:
        try:
            find(repository, message.name, message.version or None)
        except (NotFound, NotReady):
            return {"ready": False}
        return {"ready": True}

    async def metadata(message: Any) -> dict[str, Any]:
        found = describe_live(repository, message.name, message.version or None)
        return found.model_dump(exclude={"parameters"})

    async def index(message: Any) -> dict[str, Any]:
        listed = list_index(repository, only_ready=message.ready)
        return {"models": [one.model_dump() for one in listed]}

    async def statistics(message: Any) -> dict[str, Any]:
        cards = live_cards(repository, message.name, message.version)
        return (await collect(app.recorder.metrics, cards)).model_dump()

    return {
        "ModelReady": is_ready,
        "ModelMetadata": metadata,
        "ModelStatistics": statistics,
        "RepositoryIndex": index,
    }


def _control_calls(app: AppContext) -> dict[str, Respond]:
    repository = app.repository

    async def load(message: Any) -> dict[str, Any]:
        refuse_control_parameters(message.parameters, NAMES)
        wanted = read_version_policy(read_parameters(message.parameters))
        await repository.load(message.model_name, wanted)
        return {}

    async def unload(message: Any) -> dict[str, Any]:
        refuse_control_parameters(message.parameters)
        await repository.unload(message.model_name)
        return {}

    return {"RepositoryModelLoad": load, "RepositoryModelUnload": unload}
