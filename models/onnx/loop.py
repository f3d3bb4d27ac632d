"""Loops: the body is traced into a graph of its own, the body of an ONNX `Loop`.

Two loops, one in the other: the inner applies the body to the rows that stand in lanes, the outer
picks rows that go on, sets them in lanes and puts them back. See `models.loop`.
"""

from collections.abc import Callable, Sequence

import torch

from models.loop import BURST, FEW, LANES
from models.onnx.graph import LANES as LANES_AXIS
from models.onnx.graph import Graph, Value

# (graph, carried, given) -> carried on.
TraceBody = Callable[[Graph, list[Value], list[Value]], list[Value]]

_ENDLESS = torch.iinfo(torch.int64).max


def add_loop(
    graph: Graph, carry: Sequence[Value], given: Sequence[Value], trace_body: TraceBody
) -> list[Value]:
    """Add a loop that goes on while any row does.

    Args:
        carry: what is carried at first; the first of them says which rows go on.
        given: what the body needs beside.
        trace_body: adds the body to a graph.
    """
    beside = [_renamed(value, graph.materialised(value)) for value in given]

    def burst(outer: Graph, carried: list[Value]) -> list[Value]:
        rows, trips = _lanes(outer, carried[0])
        lanes = [_renamed(value, _gather(outer, value, rows)) for value in carried]
        others = [_renamed(value, _gather(outer, value, rows)) for value in beside]
        inner = outer.inside("loop", LANES_AXIS)
        moved = _repeat(outer, inner, lanes, trips, lambda part, c: trace_body(part, c, others))
        places = outer.add("Unsqueeze", [rows, outer.ints([1])])
        return [
            _renamed(old, *outer.add("ScatterND", [old.name, *places, new.name]))
            for old, new in zip(carried, moved, strict=True)
        ]

    endless = graph.constant(torch.tensor(_ENDLESS))
    return _repeat(graph, graph.inside("loop", graph.axis), carry, endless, burst)


def _repeat(
    outer: Graph,
    inner: Graph,
    carry: Sequence[Value],
    most: str,
    trace_body: Callable[[Graph, list[Value]], list[Value]],
) -> list[Value]:
    """Add one loop: `most` times at most, and while any row goes on."""
    first = [_renamed(value, outer.materialised(value)) for value in carry]
    goes_on = _any(outer, first[0])

    def name(part: str) -> str:
        return f"{inner.prefix}{part}"

    inner.input(name("iteration"), (), torch.int64)
    inner.input(name("went_on"), (), torch.bool)
    carried = [
        inner.input(name(f"in_{index}"), value.shape, value.dtype)
        for index, value in enumerate(first)
    ]
    ended = trace_body(inner, carried)
    outputs = {name("goes_on"): _any(inner, ended[0])}
    outputs |= {name(f"out_{index}"): value for index, value in enumerate(ended)}
    names = [value.name for value in first]
    results = outer.add_loop([most, goes_on.name, *names], inner.part(outputs))
    return [_renamed(value, result) for value, result in zip(first, results, strict=True)]


def _lanes(graph: Graph, goes_on: Value) -> tuple[str, str]:
    """The places of the first rows that go on, (n,) with n <= LANES, and the length of a burst."""
    flat = graph.add("Reshape", [goes_on.name, graph.ints([-1])])
    every = graph.add("Reshape", [*graph.add("NonZero", flat), graph.ints([-1])])
    ends = [graph.ints([bound]) for bound in (0, LANES)]
    (rows,) = graph.add("Slice", [*every, *ends])
    few = graph.add("LessOrEqual", [*graph.add("Size", [rows]), graph.constant(torch.tensor(FEW))])
    trips = [graph.constant(torch.tensor(number)) for number in (_ENDLESS, BURST)]
    return rows, graph.add("Where", [*few, *trips])[0]


def _gather(graph: Graph, value: Value, rows: str) -> str:
    return graph.add("Gather", [value.name, rows], axis=0)[0]


def _any(graph: Graph, rows: Value) -> Value:
    """Whether any row (B, 1) is true."""
    number = Value(rows.shape, torch.int32, graph.ref(rows, torch.int32))
    (most,) = graph.add("ReduceMax", [number.name], keepdims=0)
    return Value((), torch.bool, graph.ref(Value((), torch.int32, most), torch.bool))


def _renamed(value: Value, name: str) -> Value:
    return Value(value.shape, value.dtype, name)
