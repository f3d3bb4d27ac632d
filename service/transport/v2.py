"""POST /v2/models/{name}[/versions/{version}]/infer: one call for all that a flow does.

    x [, context]   -> z, log_det, log_prob [, bits_per_dim]
    z [, context]   -> x, log_det
    [context]       -> x, log_prob           by parameters: operation, num_samples, seed, ...

Reference: Open Inference Protocol, inference_rest.md.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from service.codec.context import read_context
from service.codec.json_slices import is_large
from service.codec.media import JSON, OCTETS, read_content_type
from service.codec.parameters import check_known, read_integer
from service.codec.tensors import Array, read_rows
from service.codec.v2 import Inference, read_inference, write_inference
from service.contracts import InferenceResult, ModelCard, Repository, RowQueue, ServedModel
from service.errors import InvalidParameter, InvalidRequest, MissingField, ModelNotFound, NotReady
from service.operations import sampling
from service.operations.log_prob import log_density
from service.operations.response import PLAIN, ResponseFormat, check_answer_size, server_timing
from service.operations.sampling import read_draw
from service.operations.solver_stats import tell_solves
from service.transport.asgi import Endpoint, ReadBody, submit
from service.transport.disconnect import RequestContext
from service.transport.request import Head, Reply

PREFIX = "/v2/models/"
SUFFIX = "/infer"

_LENGTH_HEADER = b"inference-header-content-length"
_FAILURES_HEADER = b"x-failures"
_BODIES = (JSON, OCTETS)
_OWN_PARAMETERS = ("operation", "timeout", "binary_data_output", *sampling.FIELDS)
# Triton's, of schedulers and sequences: a flow has no state and one priority, so they mean nothing.
# MLServer's clients say of themselves how they made the tensors: "content_type".
_RESERVED_PARAMETERS = (
    *("priority", "sequence_id", "sequence_start", "sequence_end", "headers"),
    "content_type",
)
_RESERVED_PREFIX = "triton_"
_MAX_TIMEOUT_MICROSECONDS = 2**63 - 1

_Output = Callable[[ModelCard, Array, InferenceResult], Array]


def _value(_: ModelCard, rows: Array, answer: InferenceResult) -> Array:
    return answer.value


def _log_det(_: ModelCard, rows: Array, answer: InferenceResult) -> Array:
    return answer.log_det


def _score(_: ModelCard, rows: Array, answer: InferenceResult) -> Array:
    return log_density(answer.value, answer.log_det)


def _bits_per_dim(card: ModelCard, rows: Array, answer: InferenceResult) -> Array:
    return -_score(card, rows, answer) / (card.features * math.log(2))


def _score_of_noise(_: ModelCard, rows: Array, answer: InferenceResult) -> Array:
    return log_density(rows, -answer.log_det)


_ENCODED: dict[str, _Output] = {"z": _value, "log_det": _log_det, "log_prob": _score}
_DECODED: dict[str, _Output] = {"x": _value, "log_det": _log_det}
_DRAWN: dict[str, _Output] = {"x": _value, "log_prob": _score_of_noise}


class _Task(NamedTuple):
    """A checked request.

    operation: "encode", "decode" or "sample". head: the parameters of the answer.
    outputs: how each output is computed, and whether it goes as bytes.
    """

    operation: str
    rows: Array
    context: Array | None
    outputs: dict[str, tuple[_Output, bool]]
    head: dict[str, Any]


class Infer(Endpoint):
    """The protocol's inference call."""

    name = "infer"

    def _route(self, path: str) -> str:
        model = "{name}/versions/{version}" if "/versions/" in path else "{name}"
        return f"{PREFIX}{model}{SUFFIX}"

    async def _answer(self, head: Head, visit: RequestContext, read_body: ReadBody) -> Reply:
        read_content_type(head.headers.get(b"content-type"), _BODIES)
        name, version = read_path(head.path)
        served = find(self._desk.repository, name, version)
        visit.model = served.card.name
        try:
            request = await self._read(await read_body(), head, visit)
            visit.shorten(_read_timeout(request))
            _check_names(request, name, served.card.version)
            return await self._compute_in_turn(request, served, (name, version), visit)
        except InvalidRequest as error:
            error.name_columns(served.card.feature_names)
            raise

    async def _compute_in_turn(
        self,
        request: Inference,
        served: ServedModel,
        wanted: tuple[str, str | None],
        visit: RequestContext,
    ) -> Reply:
        while True:
            try:
                return await self._compute(request, served, visit)
            except NotReady:
                # It was replaced after it was found and before it took the rows.
                successor = find(self._desk.repository, *wanted)
                if successor is served:
                    raise
                served = successor

    async def _read(self, body: bytes | bytearray, head: Head, visit: RequestContext) -> Inference:
        json_bytes, max_rows = head.headers.get(_LENGTH_HEADER), self._settings.max_request_rows
        if json_bytes is not None or not is_large(body):  # tensors as bytes are no work
            return read_inference(body, json_bytes, max_rows)
        threads = self._desk.threads
        return await threads.run(visit.deadline, read_inference, body, None, max_rows)

    async def _compute(
        self, request: Inference, served: ServedModel, visit: RequestContext
    ) -> Reply:
        card = served.card
        task = await self._prepare(request, served, visit)
        visit.rows = len(task.rows)
        queue = _queue(served, task.operation)
        answer = await submit(queue, task.rows, task.context, visit)
        outputs = {
            name: (compute(card, task.rows, answer), is_binary)
            for name, (compute, is_binary) in task.outputs.items()
        }
        told, said = _tell_solves(request, answer)
        is_binary = any(is_binary for _, is_binary in outputs.values())
        if "failures" in said and answer.solves is not None and is_binary:
            told["status"] = answer.solves.status
        outputs |= {name: (values, is_binary) for name, values in told.items()}
        named: dict[str, Any] = {"model_name": card.name, "model_version": card.version}
        if request.id is not None:
            named["id"] = request.id
        if task.head or said:
            named["parameters"] = {**task.head, **said}
        body, json_bytes = write_inference(named, outputs)
        media = JSON if json_bytes is None else OCTETS
        headers = [
            (b"content-type", media.encode()),
            (b"content-length", b"%d" % len(body)),
            server_timing(answer),
        ]
        if json_bytes is not None:
            headers.append((_LENGTH_HEADER, b"%d" % json_bytes))
            if "failures" in said:
                headers.append((_FAILURES_HEADER, b"%d" % len(said["failures"])))
        return Reply(200, headers, body)

    async def _prepare(
        self, request: Inference, served: ServedModel, visit: RequestContext
    ) -> _Task:
        card = served.card
        operation = choose_operation(request)
        outputs = _choose_outputs(request, operation, card)
        max_rows, dtype = self._settings.max_request_rows, card.numpy_dtype
        drawn = None
        if operation == "sample":
            drawn = read_draw(request.parameters, max_rows)
            count = drawn.rows
        else:
            name = "x" if operation == "encode" else "z"
            shape = card.event_shape if operation == "encode" else (card.features,)
            rows = read_rows(
                request.tensors[name],
                name,
                shape,
                dtype=dtype,
                max_rows=max_rows,
                num_levels=card.num_levels if operation == "encode" else None,
            )
            count = len(rows)
        self._check_size(card, count, outputs)
        takes_long = drawn is not None and drawn.takes_long(card)
        if takes_long:
            _queue(served, operation).check(count, visit.deadline)
        context = read_context(
            request.tensors.get("context"),
            card.context_shape,
            card.num_classes,
            dtype=dtype,
            rows=count,
        )
        if drawn is None:
            return _Task(operation, rows, context, outputs, {})
        head = {"seed": drawn.seed}
        if takes_long:
            latents = await self._desk.threads.run(visit.deadline, drawn.latents, card)
        else:
            latents = drawn.latents(card)
        return _Task(operation, latents, context, outputs, head)

    def _check_size(
        self, card: ModelCard, rows: int, outputs: dict[str, tuple[_Output, bool]]
    ) -> None:
        values = sum(card.features if name in ("x", "z") else 1 for name in outputs)
        is_binary = all(is_binary for _, is_binary in outputs.values())
        form = ResponseFormat(OCTETS) if is_binary else PLAIN
        check_answer_size(card, form, rows, values, self._settings.max_response_bytes)


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
        ModelNotFound: no such model, or another version of it is served.
        NotReady: models are loading or the service is draining.
    """
    served = repository.get(name)
    if version is not None and version != served.card.version:
        raise ModelNotFound(
            f"model: {name} is served in version {served.card.version}, got {version!r:.20}"
        )
    return served


def choose_operation(request: Inference) -> str:
    """Tell from the inputs and from parameters.operation what is to be done.

    Raises:
        UnknownField, InvalidParameter, MissingField: they do not say one thing.
    """
    tensors, parameters = request.tensors, request.parameters
    own = [name for name in parameters if not _is_reserved(name)]
    check_known(own, _OWN_PARAMETERS)
    check_known(tensors, ("x", "z", "context"))
    if "x" in tensors and "z" in tensors:
        raise InvalidParameter("inputs: expected x or z, got both", at="/inputs")
    asked = parameters.get("operation")
    if "x" in tensors or "z" in tensors:
        found = "encode" if "x" in tensors else "decode"
        fitting = (found, "log_prob") if found == "encode" else (found,)
        odd = [name for name in sampling.FIELDS if name in parameters]
        if odd:
            raise InvalidParameter(
                f"{odd[0]}: only of samples, which take no x and no z", at=f"/parameters/{odd[0]}"
            )
    elif asked is None and "num_samples" not in parameters:
        raise MissingField(
            "inputs: expected x or z; parameters.num_samples draws samples", at="/inputs"
        )
    else:
        found, fitting = "sample", ("sample",)
    if asked is not None and asked not in fitting:
        raise InvalidParameter(
            f"operation: these inputs are for {' or '.join(fitting)}, got {asked!r:.40}",
            at="/parameters/operation",
        )
    return found


def outputs_of(operation: str, card: ModelCard) -> dict[str, _Output]:
    """Name what an operation can give."""
    if operation == "decode":
        return _DECODED
    if operation == "sample":
        return _DRAWN
    pixels = {} if card.num_levels is None else {"bits_per_dim": _bits_per_dim}
    return {**_ENCODED, **pixels}


def _choose_outputs(
    request: Inference, operation: str, card: ModelCard
) -> dict[str, tuple[_Output, bool]]:
    possible = outputs_of(operation, card)
    if request.outputs is not None:
        check_known(request.outputs, tuple(possible))
        return {name: (possible[name], binary) for name, binary in request.outputs.items()}
    if request.parameters.get("operation") == "log_prob":
        possible = {name: possible[name] for name in possible.keys() - {"z", "log_det"}}
    return {name: (compute, request.is_binary) for name, compute in possible.items()}


def _tell_solves(
    request: Inference, answer: InferenceResult
) -> tuple[dict[str, Array], dict[str, Any]]:
    """What a continuous flow has to tell.   -> (further outputs, further parameters)."""
    told: dict[str, Array] = {}
    said = tell_solves(answer, told, JSON, with_evaluations=False)
    return ({} if request.outputs is not None else told), said


def _queue(served: ServedModel, operation: str) -> RowQueue:
    return served.encode if operation == "encode" else served.decode


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


def _is_reserved(name: str) -> bool:
    return name in _RESERVED_PARAMETERS or name.startswith(_RESERVED_PREFIX)
