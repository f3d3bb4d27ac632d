"""The contract's questions in the Open Inference Protocol over gRPC, and its answers back.

A question is the one of JSON with its tensors and parameters in the fields of protobuf, asked of a
real gRPC server; an answer is turned into the body that V2 would have over HTTP.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import orjson

from service.codec.v2 import write_inference
from service.codec.v2_tensors import DATATYPES
from service.transport.grpc.messages import message_class
from service.transport.grpc.status import STATUS_CODES
from tests.contract import v2
from tests.contract.case import PROBLEM, Case

PATH = "/inference.GRPCInferenceService/ModelInfer"
REQUEST, RESPONSE = message_class("ModelInferRequest"), message_class("ModelInferResponse")
# The fields of values that each kind of datatype stands in.
CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
}
_HTTP = ("Content-Type", v2.LENGTH, "Content-Encoding", "Accept-Encoding", "Content-Length")


class NotInProtobuf(Exception):
    """What a message has no place for: other members, values that are no numbers."""


# What has another answer, or means nothing there.
_NOT_ALIKE = {
    "latin-1": "there is one Content-Type",
    "page": "pages do not speak gRPC",
    "page of a stranger": "pages do not speak gRPC",
    "answer of decode": "as bytes it is not too large",
    "answer of sample": "as bytes it is not too large",
    "seed as text": "numbers may come as text",
    "temperature as text": "numbers may come as text",
}


def why_not(case: Case) -> str | None:
    """Why a case cannot be asked; None where it can."""
    reason = v2.why_not(case) or _NOT_ALIKE.get(case.name)
    if reason is None:
        try:
            question(case)
        except NotInProtobuf as error:
            reason = str(error)
    return reason


def question(case: Case) -> tuple[Any, list[tuple[str, str]]]:
    """Write a request, and its metadata.

    Raises:
        NotInProtobuf: it cannot be said there.
    """
    path, headers, body = v2.question(case)
    lengths = {name.lower(): value for name, value in headers.items()}
    end = int(lengths.get(v2.LENGTH, len(body)))
    try:
        content = json.loads(body[:end].decode("utf-8"), object_pairs_hook=_without_repeats)
        _, _, _, name, *rest = path.split("/")
        message = write_request(content, name, body[end:])
        if rest[0] == "versions":
            message.model_version = rest[1]
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise NotInProtobuf(f"{type(error).__name__}: {error}") from None
    skipped = {name.lower() for name in _HTTP}
    if {"content-encoding", "accept-encoding"} & lengths.keys():
        raise NotInProtobuf("bodies are compressed by gRPC itself")
    kept = [(name, value) for name, value in lengths.items() if name not in skipped]
    if any(not value.isascii() or not value.isprintable() for _, value in kept):
        raise NotInProtobuf("metadata is visible ASCII")
    return message, kept


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def write_request(content: dict[str, Any], name: str, data: bytes = b"") -> Any:
    """Write a request of V2, its tensors as values or as the bytes that follow the JSON."""
    known = {"id", "inputs", "outputs", "parameters", "model_name", "model_version"}
    if not content.keys() <= known or content.get("model_name", name) != name:
        raise LookupError("members that messages have not")
    message = REQUEST(model_name=name, model_version=content.get("model_version") or "")
    message.id = content.get("id") or ""
    _write_parameters(message.parameters, content.get("parameters"))
    for given in content.get("inputs", ()):
        _add_input(message, given)
        size = (given.get("parameters") or {}).get("binary_data_size")
        if size is not None:
            message.raw_input_contents.append(data[:size])
            data = data[size:]
    if data:
        raise ValueError("more bytes than tensors")
    for wanted in content.get("outputs") or ():
        output = message.outputs.add(name=wanted["name"])
        _write_parameters(output.parameters, wanted.get("parameters"))
    return message


def _add_input(message: Any, given: dict[str, Any]) -> None:
    if not given.keys() <= {"name", "shape", "datatype", "parameters", "data"}:
        raise LookupError("members that messages have not")
    tensor = message.inputs.add(
        name=given["name"], datatype=given["datatype"], shape=given["shape"]
    )
    parameters = dict(given.get("parameters") or {})
    parameters.pop("binary_data_size", None)
    _write_parameters(tensor.parameters, parameters)
    if "data" not in given:
        return
    values = np.array(given["data"])
    if values.dtype.kind not in "iuf" or any(type(each) is bool for each in _leaves(given["data"])):
        raise ValueError("values that are no numbers")
    if values.shape not in (tuple(given["shape"]), (values.size,)):
        raise ValueError("nested in another way than the shape says")
    field = CONTENTS[given["datatype"]]
    if field not in ("fp32_contents", "fp64_contents") and values.dtype.kind == "f":
        raise ValueError("broken numbers in integers")
    getattr(tensor.contents, field).extend(values.ravel().tolist())


def _leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, list):
        for each in values:
            yield from _leaves(each)
    else:
        yield values


def _write_parameters(parameters: Any, given: dict[str, Any] | None) -> None:
    for name, value in (given or {}).items():
        kind = {bool: "bool", int: "int64", str: "string", float: "double"}.get(type(value))
        if value is None:
            continue
        if kind is None:
            raise ValueError("parameters that are no scalars")
        setattr(parameters[name], f"{kind}_param", value)


async def call(
    channel: grpc.aio.Channel,
    message: Any,
    metadata: Sequence[tuple[str, str]],
    *,
    is_binary: bool,
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Ask, and give status, headers and body as V2 would have them over HTTP."""
    asked = channel.unary_unary(PATH)(message.SerializeToString(), metadata=metadata)
    code = await asked.code()
    told = dict(await asked.trailing_metadata() or ())
    if code is grpc.StatusCode.OK:
        body, length = read_answer(RESPONSE.FromString(await asked), is_binary=is_binary)
        lengths = [] if length is None else [(v2.LENGTH, str(length))]
        return 200, [*_headers(told), *lengths], body
    problem = json.loads(told["problem-bin"])
    assert code == STATUS_CODES[problem["status"]]
    assert (await asked.details(), told["problem-code"]) == (problem["detail"], problem["code"])
    if "retry-after" in told:
        assert told["grpc-retry-pushback-ms"] == f"{told['retry-after']}000"
    return problem["status"], [*_headers(told), ("content-type", PROBLEM)], told["problem-bin"]


def _headers(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in told.items() if not name.endswith("-bin")]


def read_answer(answer: Any, *, is_binary: bool) -> tuple[bytes, int | None]:
    """The body that V2 would answer over HTTP, and the length of its JSON before bytes."""
    codes = {**DATATYPES, "BOOL": "?"}
    tensors = {}
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        values = np.frombuffer(raw, codes[output.datatype]).reshape(tuple(output.shape))
        tensors[output.name] = (values, is_binary)
    named: dict[str, Any] = {"model_name": answer.model_name, "model_version": answer.model_version}
    if answer.id:
        named["id"] = answer.id
    scalars = {}
    for name, parameter in answer.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        value = getattr(parameter, kind) if kind else None
        is_list = isinstance(value, str) and value[:1] in ("[", "{")
        scalars[name] = orjson.loads(value) if is_list else value
    if scalars:
        named["parameters"] = scalars
    return write_inference(named, tensors)
