"""Loops: the body is traced into a graph of its own, the body of an ONNX `Loop`.

What the body uses from outside, a context for one, it finds by name: a graph sees the names of
those around it.
"""

from collections.abc import Callable

import torch

from models.onnx.graph import Graph, Value

# What is carried in -> what is carried on.
TraceBody = Callable[[Graph, list[Value]], list[Value]]


def add_loop(outer: Graph, inputs: list[Value], most: int, trace_body: TraceBody) -> list[Value]:
    """Add a loop that goes on while any row does, `most` times at most.

    Args:
        inputs: what is carried at first; the first of them says which rows go on.
        trace_body: adds the body to a graph.
    """
    inner = outer.inside("loop")

    def name(part: str) -> str:
        return f"{inner.prefix}{part}"

    inner.input(name("iteration"), (), torch.int64)
    inner.input(name("went_on"), (), torch.bool)
    carried = [
        inner.input(name(f"in_{index}"), value.shape, value.dtype)
        for index, value in enumerate(inputs)
    ]
    ended = trace_body(inner, carried)
    outputs = {name("goes_on"): _any(inner, ended[0])}
    outputs |= {name(f"out_{index}"): value for index, value in enumerate(ended)}
    bounds = [outer.constant(torch.tensor(most)), outer.constant(torch.tensor(True))]
    first = [outer.materialised(value) for value in inputs]
    results = outer.add_loop([*bounds, *first], inner.part(outputs))
    return [Value(v.shape, v.dtype, result) for v, result in zip(inputs, results, strict=True)]


def _any(graph: Graph, rows: Value) -> Value:
    """Whether any row (B, 1) is true."""
    number = Value(rows.shape, torch.int32, graph.ref(rows, torch.int32))
    (most,) = graph.add("ReduceMax", [number.name], keepdims=0)
    return Value((), torch.bool, graph.ref(Value((), torch.int32, most), torch.bool))
