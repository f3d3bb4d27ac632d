"""The four operations in OpenAPI: they are no FastAPI routes, so they are described here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic.json_schema import models_json_schema

from models.noise import base_noise
from service.api import schemas
from service.codec.media import JPEG, JSON, NPY, NPZ, PNG
from service.contracts import ModelCard
from service.errors import (
    PROBLEM_MEDIA_TYPE,
    BodyTimeout,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    MalformedBody,
    ModelNotFound,
    NotAcceptable,
    NotReady,
    Overloaded,
    ServiceError,
    ShapeMismatch,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from service.operations.log_prob import log_density
from service.operations.spec import Operation

# Every other error of every route, for FastAPI(responses=...).
ANY_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Any error",
        "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}

_TAG = "operations"
# Tensors of larger models would fill the page.
_SHOWN_FEATURES = 8
_BINARY = {"type": "string", "format": "binary"}
_BINARY_BODIES = {
    NPY: "the rows, as numpy.save writes them; the other fields in the query string",
    NPZ: "rows and context by name, as numpy.savez writes them",
    PNG: "one picture of the model's size, one row",
    JPEG: "one picture of the model's size, one row",
}
_BINARY_ANSWERS = {
    NPY: "the first output; model, version and seed as X- headers",
    NPZ: "all outputs by name",
    PNG: "one picture, or a near-square grid; models over pixels only",
}
_HEADERS = {
    "X-Request-Id": "the request's, or one that was made",
    "Server-Timing": "queue;dur=0.210, compute;dur=0.480 (milliseconds)",
    "X-Model": "the model that answered; not beside JSON, which has it inside",
    "X-Model-Version": "its version; not beside JSON",
    "X-Seed": "the seed of /sample; not beside JSON",
    "X-Non-Finite": "how many rows hold a NaN or an infinity, if any; not beside JSON",
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


@dataclass(frozen=True, slots=True)
class _Text:
    summary: str
    description: str
    request: type[schemas.Request]
    result: type[schemas.Result]


_TEXTS = {
    "log_prob": _Text(
        "Score rows",
        "log_prob(x) = log N(z; 0, I) + log |det dz/dx|, in nats, of the data as sent.",
        schemas.LogProbRequest,
        schemas.LogProbResult,
    ),
    "encode": _Text(
        "Map data to latents",
        "z = f(x) with log |det dz/dx|; /decode is its exact inverse.",
        schemas.EncodeRequest,
        schemas.EncodeResult,
    ),
    "decode": _Text(
        "Map latents to data",
        "x = f^-1(z) with log |det dx/dz|; /encode is its exact inverse.",
        schemas.DecodeRequest,
        schemas.DecodeResult,
    ),
    "sample": _Text(
        "Draw samples",
        "x = f^-1(z) with z ~ N(0, T^2 I). The same seed draws the same samples, whatever else "
        "the server does. return_log_prob=false saves continuous flows most of the work. The body "
        "may be empty, with all fields in the query string.",
        schemas.SampleRequest,
        schemas.SampleResult,
    ),
}


def add_operations(
    document: dict[str, Any], operations: Sequence[Operation], cards: Sequence[ModelCard]
) -> None:
    """Add the operations to FastAPI's document, with examples for a model that is served."""
    shown = [text.request for text in _TEXTS.values()] + [text.result for text in _TEXTS.values()]
    references, definitions = models_json_schema(
        [(kind, "validation") for kind in (*shown, schemas.Problem)],
        ref_template="#/components/schemas/{model}",
    )
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components.update(definitions["$defs"])
    example = _Example.of(cards)
    for operation in operations:
        text = _TEXTS[operation.name]
        document["paths"][f"/{operation.name}"] = {
            "post": {
                "tags": [_TAG],
                "operationId": operation.name,
                "summary": text.summary,
                "description": text.description,
                "parameters": _parameters(operation, components[text.request.__name__]),
                "requestBody": _request(operation, references[text.request, "validation"], example),
                "responses": {
                    "200": _answer(operation, references[text.result, "validation"], example),
                    **problems(),
                },
            }
        }


def add_keys(document: dict[str, Any]) -> None:
    """Say how a client shows its key."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"key": []}]


def problems() -> dict[str, dict[str, Any]]:
    """Describe every error that a call which computes can answer with."""
    return {str(kind.status): _problem(kind, detail) for kind, detail in _PROBLEMS}


@dataclass(frozen=True, slots=True)
class _Example:
    """Requests and answers that fit one model; the numbers are those of N(0, I)."""

    model: str
    version: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, cards: Sequence[ModelCard]) -> "_Example":
        for card in cards:
            if card.features <= _SHOWN_FEATURES and card.context_shape is None:
                return cls(card.name, card.version, card.event_shape)
        return cls("moons", "1", (2,))

    def request(self, operation: str) -> dict[str, Any]:
        if operation == "sample":
            return {"model": self.model, "num_samples": 2, "seed": 7, "temperature": 0.7}
        if operation == "decode":
            return {"model": self.model, "z": [[0.5] * math.prod(self.shape)]}
        return {"model": self.model, "x": np.full((1, *self.shape), 0.5).tolist()}

    def answer(self, operation: str) -> dict[str, Any]:
        features = math.prod(self.shape)
        z = np.full((1, features), 0.5)
        if operation == "sample":
            z = base_noise(2, features, seed=7, temperature=0.7)
        x = z.reshape(-1, *self.shape).tolist()
        log_prob = log_density(z, np.zeros(len(z))).tolist()
        outputs: dict[str, dict[str, Any]] = {
            "log_prob": {"log_prob": log_prob},
            "encode": {"z": z.tolist(), "log_det": [0.0]},
            "decode": {"x": x, "log_det": [0.0]},
            "sample": {"seed": 7, "x": x, "log_prob": log_prob},
        }
        return {"model": self.model, "version": self.version, **outputs[operation]}


def _parameters(operation: Operation, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Say that every field but the tensor may stand in the query string instead."""
    named: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"{schema.get('description', '')} Here or in the body, not in both.",
            "schema": {"type": "string"}
            if name in ("model", "context")
            else {key: value for key, value in schema.items() if key != "description"},
        }
        for name, schema in request["properties"].items()
        if name != operation.tensor
    ]
    identity = {
        "name": "X-Request-Id",
        "in": "header",
        "required": False,
        "description": "Comes back on the answer; made if absent.",
        "schema": {"type": "string", "maxLength": 128},
    }
    patience = {
        "name": "X-Timeout-Seconds",
        "in": "header",
        "required": False,
        "description": "How long the client waits; the server's own limit still holds.",
        "schema": {"type": "number", "minimum": 0, "maximum": 999999999},
    }
    return [*named, identity, patience]


def _request(operation: Operation, reference: dict[str, Any], example: _Example) -> dict[str, Any]:
    content: dict[str, Any] = {
        JSON: {
            "schema": reference,
            "examples": {"rows": {"value": example.request(operation.name)}},
        }
    }
    for media in operation.bodies:
        if media != JSON:
            content[media] = _binary(_BINARY_BODIES[media])
    return {"required": operation.tensor is not None, "content": content}


def _answer(operation: Operation, reference: dict[str, Any], example: _Example) -> dict[str, Any]:
    content: dict[str, Any] = {
        JSON: {
            "schema": reference,
            "examples": {"rows": {"value": example.answer(operation.name)}},
        }
    }
    for media in (NPY, NPZ, PNG) if operation.draws else (NPY, NPZ):
        content[media] = _binary(_BINARY_ANSWERS[media])
    headers = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
    }
    return {"description": "The answer, row by row", "headers": headers, "content": content}


def _binary(text: str) -> dict[str, Any]:
    return {"schema": _BINARY, "examples": {"bytes": {"summary": text, "value": f"<{text}>"}}}


def _problem(kind: type[ServiceError], detail: str) -> dict[str, Any]:
    codes = [kind.code]
    if issubclass(kind, InvalidRequest):
        codes = [other.code for other in InvalidRequest.__subclasses__()]
    elif kind is InternalError:
        codes += [other.code for other in InternalError.__subclasses__()]
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
