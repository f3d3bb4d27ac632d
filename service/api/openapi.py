"""The operations in OpenAPI, from their specs: they are no FastAPI routes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from pydantic.json_schema import models_json_schema

from service.api import schemas
from service.codec.compression import DECODERS
from service.codec.media import JPEG, JSON, NPY, NPZ, PNG
from service.contracts import InferenceResult, ModelCard, QueueHandle, QueueShare, ServedModel
from service.errors import (
    BodyTimeout,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    KeyLimitExceeded,
    MalformedBody,
    MalformedRequest,
    ModelNotFound,
    NotAcceptable,
    NotReady,
    Overloaded,
    ServiceError,
    ShapeMismatch,
    TooLarge,
    TooLargeForKey,
    TooManyConnections,
    Unauthorized,
    UnsupportedMediaType,
)
from service.operations import Operation
from service.operations.columns import name_rows
from service.operations.fields import CONTEXT, Field, Output, scalar_output
from service.operations.model_input import ModelInput
from service.operations.response import AS_JSON, FORMATS, write_json
from service.operations.solver_stats import SOLVER_OUTPUTS
from service.problem import PROBLEM_MEDIA_TYPE

_REFERENCE = "#/components/schemas/{model}"
_TAG = "operations"
# Tensors of larger models would fill the page.
_SHOWN_FEATURES = 8
_SHOWN_COLUMNS = 16
_BINARY = {"type": "string", "format": "binary"}
_BINARY_BODIES = {
    NPY: "the rows, as numpy.save writes them; the other fields in the query string",
    NPZ: "rows and context by name, as numpy.savez writes them",
    PNG: "one picture of the model's size, one row",
    JPEG: "one picture of the model's size, one row",
}
# Of every 200; pages of other origins that may call may read them too.
ANSWER_HEADERS = {
    "X-Request-Id": "the request's, or one that was made",
    "Server-Timing": "queue;dur=0.210, compute;dur=0.480 (milliseconds)",
    "X-Model": "the model that answered; not beside JSON, which has it inside",
    "X-Model-Version": "its version; not beside JSON",
    "X-Seed": "the seed of /sample; not beside JSON",
    "X-Calibration": "the calibration of /score as JSON, up to 2,048 bytes of it; not beside JSON, "
    "which has it inside",
    "X-Heat-Map-Scale": "the gradient that has full colour, in nats a level; beside a heat map",
    "X-Failures": "how many rows failed, if any; not beside JSON, which has `failures` inside",
    "X-Failed-Rows": "which, as 3,17: the first 64; not beside JSON",
    "X-Non-Finite": "how many rows hold a NaN or an infinity, if any; not beside JSON",
    "X-Log_Prob_Se_Reason": "why log_prob_se is null, if it is; beside npz alone",
}
_PROBLEMS: tuple[tuple[type[ServiceError], str], ...] = (
    (MalformedBody, "body: not valid JSON: unexpected end of data: line 1 column 12 (char 11)"),
    (Unauthorized, "the key is not one of this server's"),
    (ModelNotFound, "model: expected one of moons, digits, got 'moon'"),
    (NotAcceptable, "Accept: this call answers with application/json, got 'text/csv'"),
    (BodyTimeout, "body: it did not arrive before the request's deadline"),
    (TooLarge, "x: expected at most 10000 rows a request, got 20000; send them in several"),
    (UnsupportedMediaType, "Content-Type: expected application/json, got 'text/csv'"),
    (ShapeMismatch, "x: expected (*, 3), got (8, 2)"),
    (Overloaded, "the queue is full"),
    (InternalError, "an unexpected error; the server's log has it under request id 7f3a-1"),
    (NotReady, "models are loading, or draining"),
    (DeadlineExceeded, "no answer before the deadline"),
)
# Other codes of the same status that a call which computes can answer with.
_ALSO: dict[type[ServiceError], Sequence[type[ServiceError]]] = {
    MalformedBody: (MalformedRequest,),
    TooLarge: (TooLargeForKey,),
    Overloaded: (KeyLimitExceeded,),
    InternalError: InternalError.__subclasses__(),
    NotReady: (TooManyConnections,),
}
# How bodies may come, beside their media type.
COMPRESSED = f"May be compressed, as Content-Encoding says: {', '.join(DECODERS)}."


# Of every answer, beside its own outputs.
_COMMON_OUTPUTS = (
    scalar_output("model", "string", "The model that answered."),
    scalar_output("version", "string", "Its version."),
    Output(
        "non_finite",
        {
            "type": "array",
            "items": {"type": "integer"},
            "description": "Rows with a number that JSON cannot hold: they are null. Absent if "
            "none.",
        },
        is_always=False,
    ),
    Output(
        "failures",
        {
            "type": "array",
            "items": {"$ref": "#/components/schemas/SolveFailure"},
            "description": "Rows without numbers, and why. Absent if none.",
        },
        is_always=False,
    ),
    *SOLVER_OUTPUTS,
)


def add_operations(
    document: dict[str, Any], operations: Sequence[Operation], cards: Sequence[ModelCard]
) -> None:
    """Add the operations to FastAPI's document, with examples for a model that is served."""
    _, definitions = models_json_schema(
        [(kind, "validation") for kind in (schemas.Problem, schemas.SolveFailure)],
        ref_template=_REFERENCE,
    )
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(definitions["$defs"])
    card, table = _example_card(cards), _example_table(cards)
    for operation in operations:
        stem = "".join(word.title() for word in operation.name.split("_"))
        request, result = f"{stem}Request", f"{stem}Result"
        components[request] = _request_schema(request, operation)
        components[result] = _result_schema(result, operation)
        document["paths"][f"/{operation.name}"] = {
            "post": {
                "tags": [_TAG],
                "operationId": operation.name,
                "summary": operation.summary,
                "description": operation.description,
                "parameters": _parameters(operation),
                "requestBody": _request(operation, request, card, table),
                "responses": {"200": _response(operation, result, card), **problems()},
            }
        }


def problems() -> dict[str, dict[str, Any]]:
    """Describe every error that a call which computes can answer with."""
    return {str(kind.status): _problem(kind, detail) for kind, detail in _PROBLEMS}


def _request_schema(name: str, operation: Operation) -> dict[str, Any]:
    return {
        "title": name,
        "type": "object",
        "description": operation.description,
        "properties": {field.name: field.schema for field in operation.fields},
        "required": [field.name for field in operation.fields if field.is_required],
        "additionalProperties": False,
    }


def _result_schema(name: str, operation: Operation) -> dict[str, Any]:
    outputs = (*_COMMON_OUTPUTS, *operation.outputs)
    return {
        "title": name,
        "type": "object",
        "properties": {output.name: output.schema for output in outputs},
        "required": [output.name for output in outputs if output.is_always],
        "additionalProperties": False,
    }


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    """Say that every field but the tensor may stand in the query string instead."""
    named: list[dict[str, Any]] = [
        {
            "name": field.name,
            "in": "query",
            "required": False,
            "description": f"{field.schema['description']} Here or in the body, not in both.",
            "schema": _query_schema(field),
        }
        for field in operation.fields
        if field.name != operation.tensor_name
    ]
    return [*named, *head_parameters()]


def head_parameters() -> list[dict[str, Any]]:
    """Describe the headers that every call which computes takes."""
    identity = {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "Comes back on the answer; made if absent.",
        "schema": {"type": "string", "maxLength": 128},
    }
    timeout = {
        "name": "X-Timeout-Seconds",
        "in": "header",
        "required": False,
        "description": "How long the client waits; the server's own limit still holds.",
        "schema": {"type": "number", "minimum": 0, "maximum": 999999999},
    }
    return [identity, timeout]


def _query_schema(field: Field) -> dict[str, Any]:
    if field.is_text or field is CONTEXT:
        return {"type": "string"}
    # Swagger UI sends a default along, and the body may have the field too.
    unwanted = ("default", "description")
    return {key: value for key, value in field.schema.items() if key not in unwanted}


def _request(
    operation: Operation, schema: str, card: ModelCard, table: ModelCard | None
) -> dict[str, Any]:
    example = {"model": card.name, **operation.example(card)}
    content = {JSON: _json(schema, example)}
    if table is not None and operation.has_named_rows:
        rows = {"model": table.name, **name_rows(operation.example(table), table)}
        content[JSON]["examples"]["rows_by_name"] = {"value": rows}
    for media in operation.media:
        if media != JSON:
            content[media] = _binary(_BINARY_BODIES[media])
    is_required = operation.tensor is not None
    return {"description": COMPRESSED, "required": is_required, "content": content}


def _response(operation: Operation, schema: str, card: ModelCard) -> dict[str, Any]:
    content = {JSON: _json(schema, example_answer(operation, card))}
    for media, form in FORMATS.items():
        if media != JSON and (operation.gives_images or not form.is_image):
            content[media] = _binary(form.description)
    headers = {
        name: {"description": text, "schema": {"type": "string"}}
        for name, text in ANSWER_HEADERS.items()
    }
    return {"description": "The answer, row by row", "headers": headers, "content": content}


def example_answer(operation: Operation, card: ModelCard) -> dict[str, Any]:
    """What a model N(0, I) of this shape answers to the operation's example."""
    model = ServedModel(card, _NoQueue(), _NoQueue())
    given = operation.prepare(operation.example(card), model, AS_JSON, math.inf)
    if not isinstance(given, ModelInput):
        given = given()
    is_data = given.queue is model.decode
    rows = given.rows.reshape(-1, *(card.event_shape if is_data else (card.features,)))
    result = InferenceResult(rows, np.zeros(len(rows), rows.dtype), 0.0, 0.0)
    scalars, outputs = operation.finish(card, given, result, JSON)
    answer: dict[str, Any] = orjson.loads(write_json(card, scalars, outputs))
    return answer


class _NoQueue:
    """A queue that nothing waits in."""

    max_coalesced_rows = 1

    def check(self, rows: int, deadline: float, share: QueueShare | None = None) -> None:
        return

    def compute_now(self, *_: Any, **__: Any) -> None:
        return None

    def enqueue(self, *_: Any, **__: Any) -> QueueHandle:
        raise NotReady("this model is an example")


def _example_card(cards: Sequence[ModelCard]) -> ModelCard:
    """A served model with small rows, else one that might be."""
    for card in cards:
        is_ratio = card.calibration is not None and card.calibration.background is not None
        if card.features <= _SHOWN_FEATURES and card.context_shape is None and not is_ratio:
            return card
    return ModelCard(
        name="moons",
        version="1",
        family="realnvp",
        event_shape=(2,),
        context_shape=None,
        num_classes=None,
        num_levels=None,
        support=None,
        dtype="float32",
        engine="torch",
        device="cpu",
        num_parameters=0,
        provenance={},
        accuracy={},
        config={},
    )


def _example_table(cards: Sequence[ModelCard]) -> ModelCard | None:
    """A served model whose columns have names, and not many; None where none is."""
    for card in cards:
        is_small = card.features <= _SHOWN_COLUMNS and card.context_shape is None
        if is_small and card.feature_names is not None:
            return card
    return None


def _json(schema: str, example: dict[str, Any]) -> dict[str, Any]:
    reference = {"$ref": _REFERENCE.format(model=schema)}
    return {"schema": reference, "examples": {"rows": {"value": example}}}


def _binary(text: str) -> dict[str, Any]:
    return {"schema": _BINARY, "examples": {"bytes": {"summary": text, "value": f"<{text}>"}}}


def _problem(kind: type[ServiceError], detail: str) -> dict[str, Any]:
    codes = [kind.code]
    if issubclass(kind, InvalidRequest):
        codes = [other.code for other in InvalidRequest.__subclasses__()]
    else:
        codes += [other.code for other in _ALSO.get(kind, ())]
    body = {
        "type": f"/problems/{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "detail": detail,
        "error": detail,
        "request_id": "7f3a-1",
    }
    answer: dict[str, Any] = {
        "description": " or ".join(codes),
        "content": {
            PROBLEM_MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": body,
            }
        },
    }
    if kind in (Overloaded, NotReady):
        answer["headers"] = {
            "Retry-After": {"description": "whole seconds", "schema": {"type": "integer"}}
        }
    return answer
