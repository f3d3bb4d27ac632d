"""The protocol's inference call in OpenAPI: it is no FastAPI route, so it is described here."""

import re
from typing import Any

from pydantic.json_schema import models_json_schema

from service.api.openapi import COMPRESSED, head_parameters, problems
from service.api.schemas_v2 import InferRequest, InferResult
from service.codec.media import JSON, OCTETS
from service.transport.v2 import PREFIX, SUFFIX

INFER_PATHS = (f"{PREFIX}{{name}}{SUFFIX}", f"{PREFIX}{{name}}/versions/{{version}}{SUFFIX}")

_LENGTH = "Inference-Header-Content-Length"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TEXT = (
    "x gives z, log_det and log_prob; z gives x and log_det; no tensor, with the parameter "
    "num_samples, gives samples x and their log_prob. Tensors may follow the JSON as bytes: "
    f"{_LENGTH} then says where it ends."
)


def add_inference(document: dict[str, Any]) -> None:
    """Add the call, by model and by version, to FastAPI's document."""
    references, definitions = models_json_schema(
        [(InferRequest, "validation"), (InferResult, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    document["components"]["schemas"].update(definitions["$defs"])
    length = {
        "name": _LENGTH,
        "in": "header",
        "required": False,
        "description": "Bytes of JSON, where tensors follow it.",
        "schema": {"type": "integer", "minimum": 0},
    }
    for path in INFER_PATHS:
        names = re.findall(r"{(\w+)}", path)
        placed = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
        document["paths"][path] = {
            "post": {
                "tags": ["open inference protocol"],
                "operationId": "_".join(("infer", *names)),
                "summary": "Encode, score, decode or sample",
                "description": _TEXT,
                "parameters": [*placed, length, *head_parameters()],
                "requestBody": {
                    "description": COMPRESSED,
                    "required": True,
                    "content": {
                        JSON: {"schema": references[InferRequest, "validation"]},
                        OCTETS: _BINARY,
                    },
                },
                "responses": {
                    "200": {
                        "description": "The tensors asked for",
                        "content": {
                            JSON: {"schema": references[InferResult, "validation"]},
                            OCTETS: _BINARY,
                        },
                    },
                    **problems(),
                },
            }
        }
