"""One tensor of the Open Inference Protocol: its datatype, shape, parameters and bytes.

What JSON (`service.codec.v2`) and protobuf (`service.transport.grpc`) have in common.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from service.codec.parameters import check_known
from service.codec.tensors import Array, Shape
from service.errors import BadDtype, InvalidParameter, MissingField, ShapeMismatch

DATATYPES = {
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    **{f"{sign}INT{8 * size}": f"<{kind}{size}" for sign, kind in (("", "i"), ("U", "u"))
       for size in (1, 2, 4, 8)},
}  # fmt: skip
# Answers hold truths too; a tensor of them is no rows of numbers.
_DATATYPE_OF = {np.dtype(code): name for name, code in DATATYPES.items()} | {np.dtype(bool): "BOOL"}
_MAX_RANK = 16

SIZE = "binary_data_size"
_INPUT_PARAMETERS = (SIZE, "content_type")
_OUTPUT_PARAMETERS = ("binary_data", "content_type")


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a dtype."""
    return _DATATYPE_OF[dtype.newbyteorder("<")]


def read_dtype(name: str, datatype: str) -> np.dtype[Any]:
    """Read a tensor's datatype.

    Raises:
        BadDtype: not one of those that are taken.
    """
    code = DATATYPES.get(datatype)
    if code is None:
        raise BadDtype(
            f"{name:.40}: expected a datatype out of {', '.join(DATATYPES)}, got {datatype!r:.40}",
            at="/inputs",
        )
    return np.dtype(code)


def read_shape(name: str, given: Sequence[int]) -> Shape:
    """Read a tensor's shape.

    Raises:
        ShapeMismatch: no axes, too many, or one without rows.
    """
    shape = tuple(given)
    if not 0 < len(shape) <= _MAX_RANK or min(shape) < 1:
        shown = str(list(given))[:80]
        raise ShapeMismatch(
            f"{name:.40}: expected a shape of positive sizes, got {shown}", at="/inputs"
        )
    return shape


def from_bytes(
    buffer: memoryview | bytes, name: str, shape: Shape, dtype: np.dtype[Any], said: str
) -> Array:
    """Read a tensor's bytes, without a copy.

    Args:
        buffer: the bytes, row by row and little-endian.
        name: of the tensor, for what is said of it.
        shape, dtype: what it is.
        said: what gave the bytes their number, as errors call it.

    Raises:
        ShapeMismatch: more or fewer bytes than its shape takes.
    """
    expected = math.prod(shape) * dtype.itemsize
    if len(buffer) != expected:
        raise ShapeMismatch(
            f"{name:.40}: {dtype.name} of shape {shape} takes {expected} bytes, {said} "
            f"{len(buffer)}",
            at="/inputs",
        )
    return np.frombuffer(buffer, dtype).reshape(shape)


def read_outputs(
    asked: Iterable[tuple[str, Mapping[str, Any]]], default: bool
) -> dict[str, bool] | None:
    """Read which outputs are asked for, each with whether it is to go as bytes.

    Args:
        asked: their names and parameters.
        default: whether they go as bytes where nothing is said.

    Returns:
        None where none is named: all are meant.

    Raises:
        InvalidParameter: one is named twice.
        UnknownField: a parameter that there is not.
    """
    outputs: dict[str, bool] = {}
    for name, parameters in asked:
        _check_parameters(parameters, _OUTPUT_PARAMETERS, name)
        if name in outputs:
            raise InvalidParameter(f"outputs: {name!r:.40} twice", at="/outputs")
        outputs[name] = read_flag(parameters, "binary_data", default)
    return outputs or None


def check_input(name: str, parameters: Mapping[str, Any]) -> None:
    """Check the name and the parameters of a tensor that is sent.

    Raises:
        MissingField: it has no name.
        InvalidParameter: its values are to lie in shared memory.
        UnknownField: a parameter that there is not.
    """
    if not name:
        raise MissingField("inputs: expected a name for each, got ''", at="/inputs")
    _check_parameters(parameters, _INPUT_PARAMETERS, name)


def repeated_input(name: str) -> InvalidParameter:
    """The error of a tensor that is sent twice."""
    return InvalidParameter(f"inputs: {name!r:.40} twice", at="/inputs")


def read_flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    """Read a parameter that is true or false.

    Raises:
        InvalidParameter: it is neither.
    """
    value = parameters.get(name, default)
    if type(value) is not bool:
        raise InvalidParameter(f"{name}: expected true or false", at=f"/parameters/{name}")
    return value


def _check_parameters(parameters: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in parameters:
        if name.startswith("shared_memory"):
            raise InvalidParameter(f"{where:.40}: shared memory is not offered, send the bytes")
    check_known(parameters, known)
