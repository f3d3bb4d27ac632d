"""An ONNX graph under construction: nodes, constants, and values with their torch shapes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

# Names of the dynamic axis, as the graphs that ship have them: in a model, and in a loop over some
# of its rows.
BATCH_AXIS = "batch"
ACTIVE_ROWS_AXIS = "lanes"
# Functions are traced with an empty batch: no other axis has this length, and nothing is computed.
NO_ROWS = 0

_TYPES = {
    torch.float16: TensorProto.FLOAT16,
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


class UnsupportedOperator(ValueError):
    """A flow uses an operation that has no form here."""


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of the traced function.

    Attributes:
        shape: as traced, with an empty batch axis.
        name: in the graph; empty for a constant that no node has asked for.
        constant: its value where it does not depend on the inputs. Its batch axis, if it has one,
            then has length 1.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    name: str = ""
    constant: Tensor | None = None

    @property
    def has_rows(self) -> bool:
        """Whether the first axis is the batch."""
        return bool(self.shape) and self.shape[0] == NO_ROWS


class Graph:
    """Collects nodes; equal nodes and equal constants become one.

    Attributes:
        opset: version of the standard operators.
        prefix: of all names.
        axis: the name of the dynamic axis.
    """

    def __init__(self, name: str, opset: int, *, prefix: str = "", axis: str = BATCH_AXIS) -> None:
        self.name = name
        self.opset = opset
        self.prefix = prefix
        self.axis = axis
        self._inputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._known: dict[tuple[Any, ...], list[str]] = {}
        self._reshaped: dict[str, str] = {}
        self._rows = ""

    def input(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Value:
        """Declare an input with rows in front: shape (NO_ROWS, ...)."""
        self._inputs.append(self._declare(name, shape, dtype))
        if not self._rows and tuple(shape[:1]) == (NO_ROWS,):
            self._rows = name
        return Value(tuple(shape), dtype, name)

    def add(
        self, operator: str, inputs: Sequence[str], *, outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """Add a node, or find the one that does the same; return the names of its outputs."""
        key = (operator, tuple(inputs), outputs, repr(sorted(attributes.items())))
        if key not in self._known:
            self._known[key] = self._append(operator, inputs, outputs, attributes)
        return self._known[key]

    def before_reshape(self, name: str) -> str:
        """What a reshaped tensor was before: two reshapes in a row are one."""
        return self._reshaped.get(name, name)

    def add_loop(self, inputs: Sequence[str], body: onnx.GraphProto) -> list[str]:
        """Add a loop with a body made by `inside` and `part`; return the names of its outputs."""
        return self._append("Loop", inputs, len(inputs) - 2, {"body": body})

    def inside(self, name: str, axis: str) -> "Graph":
        """A new graph for the body of the next node; it sees the names of this one."""
        prefix = f"{self.prefix}{name}_{len(self._nodes)}_"
        return Graph(name, self.opset, prefix=prefix, axis=axis)

    def _append(
        self, operator: str, inputs: Sequence[str], outputs: int, attributes: dict[str, Any]
    ) -> list[str]:
        stem = f"{self.prefix}{operator.lower()}_{len(self._nodes)}"
        names = [stem] if outputs == 1 else [f"{stem}_{k}" for k in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, names, **attributes))
        if operator == "Reshape":
            self._reshaped[names[0]] = inputs[0]
        return names

    def constant(self, value: Tensor) -> str:
        """The name of a constant."""
        array = value.detach().cpu().contiguous().numpy()
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self.prefix}c{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(array, name)
        return self._constants[key].name

    def ints(self, values: Iterable[int]) -> str:
        """The name of a constant vector of integers."""
        return self.constant(torch.tensor(list(values), dtype=torch.int64))

    def owns(self, value: Value) -> bool:
        """Whether a value is a constant or was made in this graph, not in one around it."""
        return value.constant is not None or value.name.startswith(self.prefix)

    def ref(self, value: Value, dtype: torch.dtype | None = None) -> str:
        """The name under which a value is found, cast if need be."""
        wanted = dtype or value.dtype
        if value.constant is not None:
            return self.constant(value.constant.to(wanted))
        if wanted == value.dtype:
            return value.name
        return self.add("Cast", [value.name], to=_TYPES[wanted])[0]

    def materialised(self, value: Value, dtype: torch.dtype | None = None) -> str:
        """As `ref`, with as many rows as the inputs have even if the value is a constant."""
        name = self.ref(value, dtype)
        if value.constant is None or not value.has_rows:
            return name
        rows = self.add("Shape", [self._rows], start=0, end=1)
        shape = self.add("Concat", [*rows, self.ints(value.shape[1:])], axis=0)
        return self.add("Expand", [name, *(shape if len(value.shape) > 1 else rows)])[0]

    def model(self, outputs: dict[str, Value]) -> onnx.ModelProto:
        """The finished model; what no output needs is left out."""
        return helper.make_model(
            self.part(outputs),
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=helper.find_min_ir_version_for([helper.make_opsetid("", self.opset)]),
            producer_name="pushforward",
        )

    def part(self, outputs: dict[str, Value]) -> onnx.GraphProto:
        """The graph alone: of a model, or the body of a loop."""
        nodes = [
            helper.make_node("Identity", [self.materialised(value)], [name])
            for name, value in outputs.items()
        ]
        declared = [
            self._declare(name, value.shape, value.dtype) for name, value in outputs.items()
        ]
        needed = {name for node in nodes for name in _used(node)}
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(_used(node))
                nodes.append(node)
        constants = [tensor for tensor in self._constants.values() if tensor.name in needed]
        return helper.make_graph(nodes[::-1], self.name, self._inputs, declared, constants)

    def _declare(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> onnx.ValueInfoProto:
        sizes = [self.axis if size == NO_ROWS else size for size in shape]
        return helper.make_tensor_value_info(name, _TYPES[dtype], sizes)


def _used(node: onnx.NodeProto) -> set[str]:
    """The names a node uses, those of the graphs inside it among them."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner = {name for graph in graphs for part in graph.node for name in _used(part)}
    return inner.union(node.input)
