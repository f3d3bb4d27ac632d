"""Loops: the body is traced into a graph of its own, the body of an ONNX `Loop`.

Two loops, one in the other: the inner applies the body to the active rows, the outer picks rows
that go on, packs them together and puts them back. See `models.ode.while_loop`.
"""

from collections.abc import Callable, Sequence

import torch

from models.ode.while_loop import ACTIVE_ROWS, FEW_ROWS, STEPS_PER_COMPACTION
from models.onnx.graph import ACTIVE_ROWS_AXIS, Graph, Value

# (graph, carried, given) -> carried on.
TraceBody = Callable[[Graph, list[Value], list[Value]], list[Value]]
# The same, with the number of the turn.
TraceTurn = Callable[[Graph, list[Value], list[Value], Value], list[Value]]
# (graph, carried, number of the iteration) -> carried on, and what else must hold to go on.
_Body = Callable[[Graph, list[Value], str], tuple[list[Value], str | None]]

# Bounds that no batch reaches: a graph that could run for ever is refused (`models.onnx.validate`).
_MOST_COMPACTIONS = 2**20
_MOST_STEPS = 2**10


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

    def compact(outer: Graph, carried: list[Value], _: str) -> tuple[list[Value], None]:
        rows, last = _active_rows(outer, carried[0])
        active, others = (
            [_renamed(value, *outer.add("Gather", [value.name, rows], axis=0)) for value in part]
            for part in (carried, beside)
        )

        def body(inner: Graph, standing: list[Value], iteration: str) -> tuple[list[Value], str]:
            return trace_body(inner, standing, others), inner.add("Less", [iteration, last])[0]

        moved = _repeat(outer, outer.inside("loop", ACTIVE_ROWS_AXIS), active, _MOST_STEPS, body)
        places = outer.add("Unsqueeze", [rows, outer.ints([1])])
        return [
            _renamed(old, *outer.add("ScatterND", [old.name, *places, new.name]))
            for old, new in zip(carried, moved, strict=True)
        ], None

    return _repeat(graph, graph.inside("loop", graph.axis), carry, _MOST_COMPACTIONS, compact)


def add_counted_loop(
    graph: Graph,
    carry: Sequence[Value],
    given: Sequence[Value],
    times: int,
    trace_turn: TraceTurn,
    *,
    ends_early: bool,
) -> list[Value]:
    """Add a loop that all rows go through so many times, where they are; see `repeat`."""
    beside = [_renamed(value, graph.materialised(value)) for value in given]

    def body(inner: Graph, carried: list[Value], iteration: str) -> tuple[list[Value], None]:
        (number,) = inner.add("Reshape", [iteration, inner.ints([1])])
        return trace_turn(inner, carried, beside, Value((1,), torch.int64, number)), None

    inside = graph.inside("loop", graph.axis)
    return _repeat(graph, inside, carry, times, body, is_counted=not ends_early)


def _repeat(
    outer: Graph,
    inner: Graph,
    carry: Sequence[Value],
    most: int,
    body: _Body,
    *,
    is_counted: bool = False,
) -> list[Value]:
    """Add one loop: `most` times at most, and while any row goes on, or exactly so often."""
    first = [_renamed(value, outer.materialised(value)) for value in carry]
    always = Value((), torch.bool, constant=torch.tensor(True))
    goes_on = outer.ref(always) if is_counted else _any(outer, first[0]).name

    def name(part: str) -> str:
        return f"{inner.prefix}{part}"

    iteration = inner.input(name("iteration"), (), torch.int64)
    inner.input(name("went_on"), (), torch.bool)
    carried = [
        inner.input(name(f"in_{index}"), value.shape, value.dtype)
        for index, value in enumerate(first)
    ]
    ended, more = body(inner, carried, iteration.name)
    still = always if is_counted else _any(inner, ended[0])
    if more is not None:
        still = _renamed(still, *inner.add("And", [still.name, more]))
    outputs = {name("goes_on"): still}
    outputs |= {name(f"out_{index}"): value for index, value in enumerate(ended)}
    names = [outer.constant(torch.tensor(most)), goes_on, *(value.name for value in first)]
    results = outer.add_loop(names, inner.part(outputs))
    return [_renamed(value, result) for value, result in zip(first, results, strict=True)]


def _active_rows(graph: Graph, goes_on: Value) -> tuple[str, str]:
    """The places of the first rows that go on, (n,), n <= ACTIVE_ROWS; the last step's number."""
    flat = graph.add("Reshape", [goes_on.name, graph.ints([-1])])
    every = graph.add("Reshape", [*graph.add("NonZero", flat), graph.ints([-1])])
    ends = [graph.ints([bound]) for bound in (0, ACTIVE_ROWS)]
    (rows,) = graph.add("Slice", [*every, *ends])
    few = graph.add(
        "LessOrEqual", [*graph.add("Size", [rows]), graph.constant(torch.tensor(FEW_ROWS))]
    )
    numbers = (_MOST_STEPS, STEPS_PER_COMPACTION)
    last = [graph.constant(torch.tensor(steps - 1)) for steps in numbers]
    return rows, graph.add("Where", [*few, *last])[0]


def _any(graph: Graph, rows: Value) -> Value:
    """Whether any row (B, 1) is true."""
    number = Value(rows.shape, torch.int32, graph.ref(rows, torch.int32))
    (most,) = graph.add("ReduceMax", [number.name], keepdims=0)
    return Value((), torch.bool, graph.ref(Value((), torch.int32, most), torch.bool))


def _renamed(value: Value, name: str) -> Value:
    return Value(value.shape, value.dtype, name)
