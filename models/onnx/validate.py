"""What is checked of an ONNX file before anything runs it.

A graph comes with a model, and a model may come from anywhere. Nothing here follows a name into
the file system, and nothing is handed to onnxruntime but the bytes that were checked.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from models.checkpoints.files import check_regular
from models.onnx.names import MAX_OPSET, MIN_OPSET

# What the exports of this project are made of (a test compares). A graph with anything else in it
# was not made here: `If`, `Scan` and custom operators among it.
OPERATORS = frozenset(
    {
        "Abs",
        "Atan",
        "Add",
        "And",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Conv",
        "Cos",
        "CumSum",
        "Div",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Floor",
        "Gather",
        "Gemm",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "Loop",
        "MatMul",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "NonZero",
        "Not",
        "Or",
        "Pad",
        "Pow",
        "Reciprocal",
        "ReduceMax",
        "ReduceSum",
        "Relu",
        "Reshape",
        "ScatterND",
        "Shape",
        "Sigmoid",
        "Sin",
        "Size",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)

MAX_FILE_BYTES = 2**31 - 1
MAX_NODES = 200_000
# Loops inside each other, and how often the innermost may run in all.
MAX_DEPTH = 2
MAX_TRIPS = 2**30
# Elements of one tensor, a row: more than any model here has, far less than what fills a machine.
MAX_ELEMENTS = 2**28

_TYPES = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}
# A constant of this many integers or fewer may be a shape.
_LONGEST_SHAPE = 8


class GraphRefused(ValueError):
    """An ONNX file is not what it should be; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a graph takes and gives: name -> shape of one row."""

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]


def read_graph(
    path: Path, signature: Signature, most_bytes: int | None = None
) -> tuple[bytes, dict[str, str]]:
    """Read and check one graph.

    Args:
        path: of the file.
        signature: what the graph must take and give.
        most_bytes: how large it may be; left out, as large as one message can be.

    Returns:
        Its bytes, and the metadata it carries.

    Raises:
        GraphRefused: names the first thing that is wrong.
    """
    most = MAX_FILE_BYTES if most_bytes is None else min(most_bytes, MAX_FILE_BYTES)
    try:
        # Before it is opened: a pipe would be waited for, and 2 GB of zeros are still read.
        check_regular(path, most)
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise GraphRefused(f"{path}: cannot be read: {error.strerror}") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # the parser's own exception has no public name
        raise GraphRefused(f"{path}: not an ONNX file, or cut short: {error}") from None
    try:
        _check_model(model)
        _check_signature(model.graph, signature)
    except ValueError as error:
        raise GraphRefused(f"{path}: {error}; export the model again") from None
    return content, {entry.key: entry.value for entry in model.metadata_props}


def _check_model(model: onnx.ModelProto) -> None:
    opsets = [(one.domain, one.version) for one in model.opset_import]
    if len(opsets) != 1 or opsets[0][0] != "" or not MIN_OPSET <= opsets[0][1] <= MAX_OPSET:
        raise ValueError(f"opset: expected one of {MIN_OPSET} .. {MAX_OPSET}, got {opsets}")
    if model.functions or model.training_info:
        raise ValueError("functions: expected none")
    graphs = list(_graphs(model.graph))
    if sum(len(graph.node) for graph in graphs) > MAX_NODES:
        raise ValueError(f"nodes: expected at most {MAX_NODES}")
    for graph in graphs:
        if graph.sparse_initializer or graph.quantization_annotation:
            raise ValueError("constants: expected plain ones")
        for tensor in graph.initializer:
            _check_constant(tensor)
        for node in graph.node:
            _check_node(node)
    _check_trips(model.graph)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ValueError(f"not well-formed: {error}") from None


def _graphs(graph: onnx.GraphProto, depth: int = 0) -> Iterator[onnx.GraphProto]:
    """A graph and those inside it."""
    if depth > MAX_DEPTH:
        raise ValueError(f"loops: expected at most {MAX_DEPTH} inside each other")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g, depth + 1)


def _check_trips(graph: onnx.GraphProto, around: int = 1) -> None:
    """Bound the loops of a graph; `around` is how often it may run itself."""
    for node in graph.node:
        if node.op_type != "Loop":
            continue
        limits = [tensor for tensor in graph.initializer if tensor.name == node.input[0]]
        trips = [around * int(onnx.numpy_helper.to_array(limit).max()) for limit in limits]
        if not trips or trips[0] > MAX_TRIPS:
            raise ValueError(f"Loop: expected at most {MAX_TRIPS} trips, got {trips or 'no limit'}")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _check_trips(attribute.g, trips[0])


def _check_constant(tensor: onnx.TensorProto) -> None:
    if tensor.external_data or tensor.data_location != TensorProto.DEFAULT:
        raise ValueError(f"constant {tensor.name!r}: its data are in another file")
    if tensor.data_type not in _TYPES:
        raise ValueError(f"constant {tensor.name!r}: expected numbers, got type {tensor.data_type}")
    size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    elements = math.prod(tensor.dims)
    if any(dim < 0 for dim in tensor.dims) or elements * size != len(tensor.raw_data):
        raise ValueError(
            f"constant {tensor.name!r}: {len(tensor.raw_data)} bytes cannot have shape "
            f"{list(tensor.dims)}"
        )
    if tensor.data_type == TensorProto.INT64 and elements <= _LONGEST_SHAPE:
        values = onnx.numpy_helper.to_array(tensor).flatten().tolist()
        if math.prod(value for value in values if value > 0) > MAX_ELEMENTS:
            raise ValueError(f"constant {tensor.name!r}: {values} is too large for a shape")


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain != "" or node.op_type not in OPERATORS:
        name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        raise ValueError(f"operator {name}: this project exports none of this kind")
    for attribute in node.attribute:
        if attribute.HasField("t") or attribute.tensors or attribute.graphs:
            raise ValueError(f"node {node.name!r}: attribute {attribute.name!r} holds a tensor")
        if attribute.HasField("g") and node.op_type != "Loop":
            raise ValueError(f"node {node.name!r}: only a Loop may hold a graph")


def _check_signature(graph: onnx.GraphProto, signature: Signature) -> None:
    for kind, values, expected in (
        ("inputs", graph.input, signature.inputs),
        ("outputs", graph.output, signature.outputs),
    ):
        found = {value.name: _row_shape(value) for value in values}
        if found != dict(expected):
            raise ValueError(f"{kind}: expected {dict(expected)}, got {found}")


def _row_shape(value: onnx.ValueInfoProto) -> tuple[Any, ...]:
    """The shape of one row; where the batch axis is not the dynamic one, None comes first."""
    dims = list(value.type.tensor_type.shape.dim)
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims)
    return shape[1:] if dims and dims[0].HasField("dim_param") else (None, *shape)
