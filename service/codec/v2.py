"""The Open Inference Protocol: JSON, and tensors as bytes behind it.

    {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32",
                 "parameters": {"binary_data_size": 24}}]}<24 bytes>

Inference-Header-Content-Length says where the JSON ends; the tensors follow in the order of the
inputs, little-endian, row by row. Answers have the same form.

Reference: Open Inference Protocol, inference_rest.md; Triton, extension_binary_data.md.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from service.api.schemas_v2 import InferInput, InferRequest
from service.codec.columns import FIELD, read_names
from service.codec.json import check_keys, is_plain, parse_object
from service.codec.json_slices import is_large, parse_large
from service.codec.media import JSON
from service.codec.mends import suggest_json_length, suggest_media
from service.codec.missing import (
    INVALID,
    NULL,
    REFUSE,
    asks_for_null,
    fill_missing,
    fill_missing_rows,
    fill_overflows,
)
from service.codec.parameters import read_choice
from service.codec.tensors import Array, Shape, as_array, check_leaves, non_finite_rows
from service.codec.v2_tensors import (
    SIZE,
    check_input,
    datatype_of,
    from_bytes,
    read_dtype,
    read_flag,
    read_outputs,
    read_shape,
    repeated_input,
)
from service.errors import (
    BadDtype,
    InvalidParameter,
    InvalidRequest,
    MalformedBody,
    MissingField,
    NonFinite,
    ShapeMismatch,
    UnknownField,
)

# What there is no other way to write in JSON.
_BINARY_ONLY = "FP16"
_ALL_BINARY = "binary_data_output"

_MEMBERS = tuple(InferRequest.model_fields)

_Strict = TypeVar("_Strict", bound=BaseModel)


class Inference(NamedTuple):
    """An inference request of the protocol, read but not checked against a model.

    model_name, model_version: what some clients repeat of the path.
    outputs: which are asked for and whether as bytes; None is all of them, as `is_binary` says.
    """

    id: str | None
    model_name: str | None
    model_version: str | None
    parameters: dict[str, Any]
    tensors: dict[str, Array]
    outputs: dict[str, bool] | None
    is_binary: bool


def read_inference(body: bytes | bytearray, json_bytes: bytes | None, max_rows: int) -> Inference:
    """Read a request.

    Args:
        body: JSON, and the tensors behind it.
        json_bytes: the header Inference-Header-Content-Length; None if the body is JSON alone.
        max_rows: of a tensor in a large body.

    Raises:
        MalformedBody: not JSON, a key twice, or lengths that do not add up.
        MissingField, UnknownField, InvalidParameter: not a request of the protocol.
        ShapeMismatch, BadDtype, NonFinite: a tensor that is not what it says.
    """
    size = len(body) if json_bytes is None else _read_length(json_bytes, len(body))
    text = body if size == len(body) else bytes(body[:size])
    is_long = is_large(text)
    try:
        content = parse_large(text, max_rows, known=_MEMBERS) if is_long else parse_object(text)
    except MalformedBody as error:
        error.suggest(suggest_json_length(body) or suggest_media(body, JSON, (JSON,)))
        raise
    request = validate(InferRequest, content)
    takes_null = asks_for_null(request.parameters)
    is_good = is_long or is_plain(text, content, "data")
    if not is_good:
        check_keys(text)
    default = read_flag(request.parameters, _ALL_BINARY, False)
    asked = ((wanted.name, wanted.parameters) for wanted in request.outputs or ())
    outputs = read_outputs(asked, default)
    try:
        if not is_good:
            for given in request.inputs:
                check_leaves(_rows_of(given), given.name, takes_null=takes_null)
        tensors = _read_tensors(request.inputs, memoryview(body)[size:], takes_null=takes_null)
    except InvalidRequest as error:
        if INVALID in request.parameters:
            # A word that is neither is what to mend.
            read_choice(request.parameters[INVALID], INVALID, (REFUSE, NULL))
        error.name_columns(_columns_in(request))
        raise
    return Inference(
        request.id,
        request.model_name,
        request.model_version,
        request.parameters,
        tensors,
        outputs,
        default,
    )


def write_inference(
    head: Mapping[str, Any], outputs: Mapping[str, tuple[Array, bool]]
) -> tuple[bytes, int | None]:
    """Write an answer.

    Args:
        head: what stands before the tensors.
        outputs: each tensor by name, and whether it goes as bytes.

    Returns:
        The body, and the length of its JSON part where tensors follow as bytes.
    """
    described: list[dict[str, Any]] = []
    buffers: list[bytes] = []
    bad: set[int] = set()
    for name, (values, is_binary) in outputs.items():
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(values.dtype),
            "shape": values.shape,
        }
        if is_binary:
            buffers.append(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
            tensor["parameters"] = {SIZE: len(buffers[-1])}
        else:
            # orjson has null for what JSON cannot hold.
            tensor["data"] = np.ascontiguousarray(values).reshape(-1)
            bad.update(non_finite_rows(values))
        described.append(tensor)
    content: dict[str, Any] = {**head, "outputs": described}
    if bad:
        content["non_finite"] = sorted(bad)
    text = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join((text, *buffers)), len(text) if buffers else None


def validate(kind: type[_Strict], content: Any) -> _Strict:
    """Check an object of the protocol.

    Raises:
        MissingField, UnknownField, InvalidParameter: with the place of the first thing wrong.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = "/" + "/".join(str(step)[:40] for step in first["loc"])
        errors = {"missing": MissingField, "extra_forbidden": UnknownField}
        raise errors.get(first["type"], InvalidParameter)(
            f"{place}: {first['msg']}", at=place
        ) from None


def _columns_in(request: InferRequest) -> tuple[str, ...] | None:
    """The names that a request gives the columns of x, where it gives good ones."""
    try:
        return read_names(request.parameters.get(FIELD))
    except InvalidRequest:
        return None


def _read_length(value: bytes, available: int) -> int:
    if not value.isdigit() or len(value) > 18 or int(value) > available:
        raise MalformedBody(
            f"Inference-Header-Content-Length: expected a whole number up to {available}, the "
            "length of the body"
        )
    return int(value)


def _rows_of(given: InferInput) -> list[Any]:
    """The data as rows, also where they come flat: so a fault names row and column."""
    data = given.data if type(given.data) is list else []
    width = math.prod(given.shape[1:])
    if width < 2 or any(type(item) is list for item in data):
        return data
    return [data[start : start + width] for start in range(0, len(data), width)]


def _read_tensors(
    inputs: list[InferInput], buffers: memoryview, *, takes_null: bool
) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    sizes = [_read_size(given) for given in inputs]
    expected = sum(size for size in sizes if size is not None)
    if expected != len(buffers):
        raise MalformedBody(
            f"body: the inputs announce {expected} bytes behind the JSON, got {len(buffers)}"
        )
    start = 0
    for given, size in zip(inputs, sizes, strict=True):
        name = given.name
        if name in tensors:
            raise repeated_input(name)
        shape = read_shape(name, given.shape)
        dtype = read_dtype(name, given.datatype)
        if size is None:
            tensors[name] = _from_json(given, shape, dtype, takes_null=takes_null)
        else:
            buffer = buffers[start : start + size]
            tensors[name] = from_bytes(buffer, name, shape, dtype, f"{SIZE} is")
            start += size
    return tensors


def _read_size(given: InferInput) -> int | None:
    check_input(given.name, given.parameters)
    size = given.parameters.get(SIZE)
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise InvalidParameter(f"{given.name:.40}: {SIZE}: expected a whole number", at="/inputs")
    if given.data is not None:
        raise InvalidParameter(f"{given.name:.40}: expected data or {SIZE}, got both")
    return size


def _from_json(given: InferInput, shape: Shape, dtype: np.dtype[Any], *, takes_null: bool) -> Array:
    name = given.name[:40]
    if given.data is None:
        raise MissingField(f"{name}: expected data or {SIZE}", at="/inputs")
    if given.datatype == _BINARY_ONLY:
        raise BadDtype(f"{name}: {_BINARY_ONLY} has no form in JSON, send it as bytes")
    data = _fill_nulls(given.data, shape) if takes_null else given.data
    try:
        values = as_array(data, name, shape[1:])
    except NonFinite:  # of flat data no row is known
        if takes_null:
            data = fill_overflows(data)
        values = as_array(data if takes_null else _rows_of(given), name, shape[1:])
    if values.shape not in (shape, (math.prod(shape),)):
        raise ShapeMismatch(
            f"{name}: expected data of shape {shape}, nested or flat, got {values.shape}",
            at="/inputs",
        )
    values = values.reshape(shape)
    if dtype.kind == "f":
        return values
    limits, is_nan = np.iinfo(dtype), np.isnan(values)
    is_whole = (values == np.rint(values)) & (limits.min <= values) & (values <= limits.max)
    is_good = is_whole | (is_nan & takes_null)
    # float64 has no number between the largest 64-bit integers and the next power of two.
    if not is_good.all() or (np.abs(values) >= 2**63).any():
        raise BadDtype(f"{name}: expected whole numbers that fit {given.datatype}", at="/inputs")
    return values if is_nan.any() else values.astype(dtype)


def _fill_nulls(data: Any, shape: Shape) -> Any:
    """Put `MISSING` where null stands for a number or for a whole row."""
    if type(data) is not list:
        return data
    if any(type(item) is list for item in data):
        return fill_missing_rows(fill_missing(data), shape[1:])
    return fill_missing([data])[0]
