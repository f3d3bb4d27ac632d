"""Inference messages to arrays and back.

Tensors come as bytes (`raw_input_contents`) or as values in the field that fits their datatype;
they are answered as bytes.
"""

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import orjson

from service.codec.tensors import Array, Shape
from service.codec.v2 import Inference
from service.codec.v2_tensors import (
    check_input,
    datatype_of,
    from_bytes,
    read_dtype,
    read_outputs,
    read_shape,
    repeated_input,
)
from service.errors import (
    BadDtype,
    InvalidParameter,
    MalformedBody,
    MissingField,
    ShapeMismatch,
    TooLarge,
)
from service.transport.grpc.messages import message_class
from service.transport.v2 import InferOutputs

_CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
# Of protobuf: no message is longer.
_MOST_BYTES = 2**31 - 1
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)

_Response = message_class("ModelInferResponse")


def read_request(message: Any, numbers: Container[str]) -> Inference:
    """Read a request.

    Args:
        message: a ModelInferRequest.
        numbers: parameters that are no text; as text they are read as in a query string.

    Raises:
        MalformedBody: the tensors' bytes are not one piece a tensor.
        MissingField, UnknownField, InvalidParameter: not a request of the protocol.
        ShapeMismatch, BadDtype: a tensor that is not what it says.
    """
    parameters = read_parameters(message.parameters)
    for name, value in parameters.items():
        if type(value) is str and name in numbers:
            parameters[name] = _from_text(value)
    asked = ((wanted.name, read_parameters(wanted.parameters)) for wanted in message.outputs)
    outputs = read_outputs(asked, default=True)
    return Inference(
        message.id or None,
        None,  # the names that lead to the model: nothing repeats them
        None,
        parameters,
        _read_tensors(message),
        None if outputs is None else dict.fromkeys(outputs, True),
        True,
    )


def read_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read parameters; one without a value is as good as absent."""
    found = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            found[name] = getattr(value, kind)
    return found


def write_answer(answered: InferOutputs) -> bytes:
    """Write an answer.

    Raises:
        TooLarge: it is longer than messages can be.
    """
    tensors = [values for values, _ in answered.tensors.values()]
    if sum(values.nbytes for values in tensors) > _MOST_BYTES - 2**20:
        raise TooLarge(f"answer: expected at most {_MOST_BYTES} bytes; ask for fewer rows")
    card = answered.card
    message = _Response(model_name=card.name, model_version=card.version, id=answered.id or "")
    for name, scalar in answered.scalars.items():
        _write_parameter(message.parameters[name], scalar)
    for name, (values, _) in answered.tensors.items():
        message.outputs.add(name=name, datatype=datatype_of(values.dtype), shape=values.shape)
        values = values.astype(values.dtype.newbyteorder("<"), copy=False)
        message.raw_output_contents.append(values.tobytes())
    written: bytes = message.SerializeToString()
    return written


def _write_parameter(parameter: Any, value: Any) -> None:
    """Write a scalar of an answer; null has no value, and a list, as of failures, is JSON."""
    if value is None:
        parameter.Clear()
    elif type(value) is bool:
        parameter.bool_param = value
    elif isinstance(value, int) and value in _INT64:
        parameter.int64_param = value
    elif isinstance(value, int) and value in _UINT64:
        parameter.uint64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    elif isinstance(value, str):
        parameter.string_param = value
    else:
        parameter.string_param = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _read_tensors(message: Any) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    buffers = message.raw_input_contents
    if buffers and len(buffers) != len(message.inputs):
        raise MalformedBody(
            f"raw_input_contents: expected one for each of the {len(message.inputs)} inputs, got "
            f"{len(buffers)}"
        )
    for index, given in enumerate(message.inputs):
        name = given.name
        check_input(name, read_parameters(given.parameters))
        if name in tensors:
            raise repeated_input(name)
        shape, dtype = read_shape(name, given.shape), read_dtype(name, given.datatype)
        if not buffers:
            tensors[name] = _from_contents(given, shape, dtype)
        elif given.contents.ListFields():
            raise InvalidParameter(f"{name:.40}: expected contents or raw_input_contents, got both")
        else:
            said = f"raw_input_contents[{index}] has"
            tensors[name] = from_bytes(buffers[index], name, shape, dtype, said)
    return tensors


def _from_contents(given: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    name, datatype = given.name[:40], given.datatype
    field = _CONTENTS.get(datatype)
    if field is None:
        raise BadDtype(
            f"{name}: {datatype} has no contents, send it in raw_input_contents", at="/inputs"
        )
    filled = [descriptor.name for descriptor, _ in given.contents.ListFields()]
    if not filled:
        raise MissingField(f"{name}: expected {field} or raw_input_contents", at="/inputs")
    if filled != [field]:
        raise BadDtype(
            f"{name}: {datatype} stands in {field}, got {', '.join(filled)}", at="/inputs"
        )
    values = getattr(given.contents, field)
    expected = 1
    for size in shape:
        expected *= size
    if len(values) != expected:
        raise ShapeMismatch(
            f"{name}: {datatype} of shape {shape} takes {expected} values, {field} has "
            f"{len(values)}",
            at="/inputs",
        )
    if dtype.itemsize >= 4:
        return np.array(values, dtype).reshape(shape)
    wide = np.array(values, np.int64)
    limits = np.iinfo(dtype)
    if wide.min() < limits.min or wide.max() > limits.max:
        raise BadDtype(f"{name}: expected whole numbers that fit {datatype}", at="/inputs")
    return wide.astype(dtype).reshape(shape)


def _from_text(text: str) -> Any:
    """Read a number, a flag or a list that stands as text; other text stays, and is refused."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
