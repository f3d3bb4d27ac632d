"""POST /v2/models/{name}[/versions/{version}]/infer: every operation in one call.

    x [, context]   -> z, log_det, log_prob [, bits_per_dim]
    z [, context]   -> x, log_det
    [context]       -> x, log_prob           by parameters: operation, num_samples, seed, ...

The parameter `operation` names an operation; without it the tensors say which is meant.

Reference: Open Inference Protocol, inference_rest.md.
"""

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from service.codec.json_slices import is_large
from service.codec.media import JSON, OCTETS, read_content_type
from service.codec.parameters import read_integer
from service.codec.tensors import Array
from service.codec.v2 import Inference, read_inference, write_inference
from service.contracts import InferenceResult, ModelCard, Repository, ServedModel
from service.errors import InvalidParameter, InvalidRequest, ModelNotFound
from service.operations import OPERATIONS
from service.operations.failures import STATUS, FailureFinder
from service.operations.inference import infer
from service.operations.model_input import Deferred, ModelInput
from service.operations.request_context import RequestContext
from service.operations.response import (
    AS_JSON,
    Response,
    ResponseFormat,
    Scalars,
    Tensors,
    content_headers,
    failure_headers,
    server_timing,
)
from service.transport.asgi import AppContext, Endpoint, ReadBody
from service.transport.request import Head
from service.transport.v2_call import BY_PARAMETER, V2Call, V2CallReader

PREFIX = "/v2/models/"
SUFFIX = "/infer"

_LENGTH_HEADER = b"inference-header-content-length"
_BODIES = (JSON, OCTETS)
_MAX_TIMEOUT_MICROSECONDS = 2**63 - 1


class InferOutputs(NamedTuple):
    """What came of a request: the outputs that it asked for, and what is said of them.

    card: of the model that answered.
    id: of the request, as its client gave it.
    scalars: the answer's parameters.
    tensors: each output by name, and whether it goes as bytes where there is a choice.
    failed: the rows without numbers.
    result: what the engine gave.
    """

    card: ModelCard
    id: str | None
    scalars: Scalars
    tensors: dict[str, tuple[Array, bool]]
    failed: Array
    result: InferenceResult


class InferEndpoint(Endpoint):
    """The protocol's inference call, over all operations."""

    name = "infer"

    def __init__(self, app: AppContext) -> None:
        super().__init__(app)
        self._calls = V2CallReader([kind(app.limits, app.repository) for kind in OPERATIONS])

    def route(self, path: str) -> str:
        """The template of a path, with or without a version."""
        model = "{name}/versions/{version}" if "/versions/" in path else "{name}"
        return f"{PREFIX}{model}{SUFFIX}"

    async def compute(
        self,
        name: str,
        version: str | None,
        request: RequestContext,
        read: Callable[[], Awaitable[Inference]],
    ) -> InferOutputs:
        """Find a model and compute what a request asks of it; how the two are written is others'.

        Args:
            name, version: of the model.
            request: what is known of it is noted there.
            read: gives the request, once its model is known to be there.

        Raises:
            ServiceError: of the request, the model and the queue.
        """
        served = find(self.app.repository, name, version)
        if name != served.card.name:  # it named a version too
            name, version = served.card.name, served.card.version
        request.model, request.version = served.card.name, served.card.version
        try:
            inference = await read()
        except InvalidRequest as error:
            error.name_columns(served.card.feature_names)
            raise
        request.shorten(_read_timeout(inference))
        _check_names(inference, name, served.card.version)
        # A version that the body names is not answered for by its successor.
        version = version or inference.model_version or None
        calls: list[V2Call] = []  # one a model that was asked

        def prepare(model: ServedModel) -> ModelInput | Deferred:
            calls.append(self._calls.read(inference, model.card))
            return _prepare(calls[-1], model, request.deadline)

        model, given, result = await infer(
            partial(find, self.app.repository, name, version),
            prepare,
            request,
            self.app.threads,
            lambda *computed: calls[-1].operation.follow_up(*computed),
        )
        call = calls[-1]
        count = self.count_failures(model)
        failures = call.operation.failures(model.card, given, result, count)
        finished = _finish(model.card, call, given, result)
        outputs = _name_outputs(model.card, inference, call, finished, failures)
        metrics = self.app.recorder.metrics
        call.operation.note(model, given, finished[1], (request.identity,), metrics)
        return outputs

    async def _answer(self, head: Head, request: RequestContext, read_body: ReadBody) -> Response:
        read_content_type(head.headers.get(b"content-type"), _BODIES)

        async def read() -> Inference:
            return await self._read(await read_body(), head, request)

        return _write(await self.compute(*read_path(head.path), request, read))

    async def _read(
        self, body: bytes | bytearray, head: Head, request: RequestContext
    ) -> Inference:
        json_bytes = head.headers.get(_LENGTH_HEADER)
        max_rows = self.app.settings.max_request_rows
        if json_bytes is not None or not is_large(body):  # tensors as bytes are no work
            return read_inference(body, json_bytes, max_rows)
        return await self.app.threads.run(request.deadline, read_inference, body, None, max_rows)


def _prepare(call: V2Call, model: ServedModel, deadline: float) -> ModelInput | Deferred:
    features = model.card.features
    values = sum(features if name in ("x", "z") else 1 for name in call.outputs)
    is_binary = all(is_binary for _, is_binary in call.outputs.values())
    form = ResponseFormat(OCTETS) if is_binary else AS_JSON
    return call.operation.prepare(call.fields, model, form, deadline, values_per_row=values)


def read_path(path: str) -> tuple[str, str | None]:
    """Take name and version out of a path that ends in /infer."""
    name, _, rest = path.partition(PREFIX)[2].removesuffix(SUFFIX).partition("/")
    word, _, version = rest.partition("/")
    if rest and (word != "versions" or not version):
        raise ModelNotFound(f"model: no model is called {name + '/' + rest!r:.80}")
    return name, version or None


def find(repository: Repository, name: str, version: str | None) -> ServedModel:
    """Find a model by name, and by version where one is named.

    Raises:
        ModelNotFound: no such model, that version of it is not live, or the name has one too.
        NotReady: models are loading or the service is draining.
    """
    if version is not None and "@" in name:
        raise ModelNotFound(
            f"model: expected one version, got {name!r:.80} and the version {version!r:.20}"
        )
    return repository.get(name if version is None else f"{name}@{version}")


def _name_outputs(
    card: ModelCard,
    inference: Inference,
    call: V2Call,
    finished: tuple[Scalars, Tensors],
    failures: FailureFinder,
) -> InferOutputs:
    scalars, computed = finished
    tensors = _shown(card, call, computed)
    codes = failures.find(computed)
    failed = np.flatnonzero(codes)
    if len(failed):
        scalars = {**scalars, "failures": failures.describe(codes)}
    outputs = {name: (tensors.pop(name), binary) for name, (_, binary) in call.outputs.items()}
    is_binary = any(binary for _, binary in outputs.values())
    if inference.outputs is None:
        outputs |= {name: (values, is_binary) for name, values in tensors.items()}
    else:
        asked = [name for name in BY_PARAMETER if name in tensors]
        outputs |= {name: (tensors[name], is_binary) for name in asked}
    if call.status is not None or len(failed):
        outputs[STATUS] = (codes, is_binary if call.status is None else call.status)
    return InferOutputs(card, inference.id, scalars, outputs, failed, failures.result)


def _write(answered: InferOutputs) -> Response:
    card = answered.card
    named: dict[str, Any] = {"model_name": card.name, "model_version": card.version}
    if answered.id is not None:
        named["id"] = answered.id
    if answered.scalars:
        named["parameters"] = answered.scalars
    body, json_bytes = write_inference(named, answered.tensors)
    headers = content_headers(JSON if json_bytes is None else OCTETS, body)
    headers.append(server_timing(answered.result))
    if json_bytes is not None:
        headers.append((_LENGTH_HEADER, b"%d" % json_bytes))
        headers += failure_headers(answered.failed)
    return Response(200, headers, body)


def _finish(
    card: ModelCard, call: V2Call, given: ModelInput, result: InferenceResult
) -> tuple[Scalars, Tensors]:
    """Finish the call with each operation that computes an output of it.

    Returns:
        The scalars, and the tensors: what was not asked for among them.
    """
    scalars: Scalars = {}
    tensors: Tensors = {}
    for operation in call.finished_by:
        more, found = operation.finish(card, given, result, JSON)
        scalars |= more
        tensors |= found
    return scalars, tensors


def _shown(card: ModelCard, call: V2Call, tensors: Tensors) -> Tensors:
    """Leave out the outputs that were not asked for; what some answers hold beside them stays."""
    operations = {call.operation, *call.finished_by}
    own = {name for operation in operations for name in operation.output_names(card)}
    return {
        name: values for name, values in tensors.items() if name in call.outputs or name not in own
    }


def _check_names(request: Inference, name: str, version: str) -> None:
    """Refuse a body that is for another model than the path leads to: one of them is a mistake.

    Raises:
        InvalidParameter: saying both.
    """
    for field, said, expected in (
        ("model_name", request.model_name, name),
        ("model_version", request.model_version, version),
    ):
        if said and said != expected:  # Triton's empty version is none
            raise InvalidParameter(
                f"{field}: the path leads to {expected!r:.60}, got {said!r:.60}; leave it out",
                at=f"/{field}",
            )


def _read_timeout(request: Inference) -> float:
    """How many seconds the client allows; 0 is as good as unsaid, as in Triton."""
    given = request.parameters.get("timeout", 0)
    return read_integer(given, "timeout", 0, _MAX_TIMEOUT_MICROSECONDS) / 1e6 or math.inf
