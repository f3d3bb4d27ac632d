"""The table of torch operations that have a form in ONNX, one function an operation.

Every form gives a row the same bits in a batch of any size and at any place in it, in onnxruntime
with one thread; `models.onnx.pointwise` says where that takes care.
"""

from collections.abc import Callable
from typing import Any

import torch

from models.onnx.graph import Graph, Value

# (graph, outputs without names, **arguments named as in torch) -> names of the outputs.
Translate = Callable[..., list[str]]
Operand = Value | float | int | bool

OPERATORS: dict[Any, Translate] = {}


def on(*overloads: Any) -> Callable[[Translate], Translate]:
    """Register the form of some operations."""

    def register(function: Translate) -> Translate:
        OPERATORS.update(dict.fromkeys(overloads, function))
        return function

    return register


def operand(graph: Graph, value: Operand, dtype: torch.dtype) -> str:
    """The name of a value or of a number, in `dtype`."""
    if isinstance(value, Value):
        return graph.ref(value, dtype)
    return graph.constant(torch.tensor(value, dtype=dtype))
