"""From a torch function to an ONNX graph: the function runs once, on a batch of no rows.

What depends on the weights alone is computed on the spot and becomes a constant of the graph.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# The modules are imported for the operations that they register.
from models.ode.while_loop import Body, Carry, Turn, counting_by, keeping_places
from models.onnx import convolution, pointwise, structure  # noqa: F401
from models.onnx.graph import NO_ROWS, Graph, UnsupportedOperator, Value
from models.onnx.operators import OPERATORS
from models.onnx.while_loop import add_counted_loop, add_loop
from models.onnx.wide import WIDE

_aten = torch.ops.aten

_VIEWS = {_aten.view.default, _aten._unsafe_view.default}
# Their values do not depend on the tensor that they take shape and dtype from.
_CREATORS = {
    _aten.empty.memory_format,
    _aten.full_like.default,
    _aten.new_full.default,
    _aten.new_zeros.default,
    _aten.ones_like.default,
    _aten.zeros_like.default,
}


@torch.no_grad()
def trace(
    module: nn.Module, inputs: dict[str, tuple[int, ...]], dtype: torch.dtype, graph: Graph
) -> dict[str, Value]:
    """Run `module(**inputs)` and add what it does to a graph.

    Args:
        module: returns its outputs by name; its code may depend on shapes, not on values.
        inputs: name -> shape of one row.
        dtype: of all inputs.
        graph: is given the inputs, the nodes and the constants.

    Raises:
        UnsupportedOperator: names the operation that has no form in `OPERATORS`.
    """
    recorder = _Recorder(graph)
    arguments = {}
    for name, shape in inputs.items():
        rows = (NO_ROWS, *shape)
        arguments[name] = torch.empty(rows, dtype=dtype)
        recorder.learn(arguments[name], graph.input(name, rows, dtype))
    loops = (keeping_places(recorder.loop), counting_by(recorder.counted_loop))
    with recorder, loops[0], loops[1], warnings.catch_warnings():
        # Some operations warn that a batch is empty.
        warnings.simplefilter("ignore", UserWarning)
        outputs: dict[str, Tensor] = module(**arguments)
    return {name: recorder.value(tensor) for name, tensor in outputs.items()}


class _Recorder(TorchDispatchMode):
    """Translates every operation as it is dispatched."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here; True would import the compiler first, which takes seconds.
        return False

    def __init__(self, graph: Graph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = graph
        # What a loop was given to use inside.
        self._given: set[str] = set()
        # Tensors are kept with their values, so that no id is used twice.
        self._known: dict[int, tuple[Tensor, Value]] = {}

    def learn(self, tensor: Tensor, value: Value) -> None:
        """Say what a tensor of the function is in the graph."""
        self._known[id(tensor)] = (tensor, value)

    def value(self, tensor: Tensor) -> Value:
        """What a tensor of the function is in the graph."""
        if id(tensor) in self._known:
            return self._known[id(tensor)][1]
        # Neither an input nor made of one: a weight.
        return Value(tuple(tensor.shape), tensor.dtype, constant=tensor)

    def loop(self, body: Body, carry: Carry, given: Carry) -> Carry:
        """Record `models.ode.while_loop.repeat_while_any`."""
        values, others = self._values(carry), self._values(given)

        def trace_body(graph: Graph, carried: list[Value], beside: list[Value]) -> list[Value]:
            with self._recording(graph, beside):
                return self._values(
                    body(self._stand_in(carry, carried), self._stand_in(given, beside))
                )

        return self._stand_in(carry, add_loop(self._graph, values, others, trace_body))

    def counted_loop(
        self, turn: Turn, carry: Carry, given: Carry, times: int, ends_early: bool
    ) -> Carry:
        """Record `models.ode.while_loop.repeat`."""
        values, others = self._values(carry), self._values(given)
        numbers = (torch.zeros(1, dtype=torch.int64),)

        def trace_turn(
            graph: Graph, carried: list[Value], beside: list[Value], number: Value
        ) -> list[Value]:
            with self._recording(graph, beside):
                (index,) = self._stand_in(numbers, [number])
                return self._values(
                    turn(index, self._stand_in(carry, carried), self._stand_in(given, beside))
                )

        found = add_counted_loop(
            self._graph, values, others, times, trace_turn, ends_early=ends_early
        )
        return self._stand_in(carry, found)

    def _values(self, tensors: Carry) -> list[Value]:
        return [self.value(tensor) for tensor in tensors]

    @contextmanager
    def _recording(self, graph: Graph, given: list[Value]) -> Iterator[None]:
        """Record into the body of a loop, which may use what it is given."""
        outer, self._graph = self._graph, graph
        self._given.update(value.name for value in given)
        yield
        self._graph = outer

    def _stand_in(self, tensors: Carry, values: list[Value]) -> Carry:
        """New tensors, like the given ones, for some values of the graph."""
        blank = tuple(torch.zeros(tensor.shape, dtype=tensor.dtype) for tensor in tensors)
        for tensor, value in zip(blank, values, strict=True):
            self.learn(tensor, value)
        return blank

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in WIDE and args[0].dtype == torch.float64:
            with self:
                return WIDE[func](*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        schema = func._schema
        if schema.is_mutable:
            raise UnsupportedOperator(f"{func} changes a tensor in place")
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise UnsupportedOperator(f"{func} is random; a graph must not be")
        arguments = dict(zip((one.name for one in schema.arguments), args, strict=False))
        arguments = tree_map(
            lambda part: self.value(part) if isinstance(part, Tensor) else part,
            arguments | (kwargs or {}),
        )
        tensors = tree_leaves(out)
        blank = [Value(tuple(one.shape), one.dtype) for one in tensors]
        for tensor, value in zip(tensors, self._translate(func, arguments, blank), strict=True):
            self.learn(tensor, value)
        return out

    def _translate(self, func: Any, arguments: dict[str, Any], out: list[Value]) -> list[Value]:
        used = [part for part in tree_leaves(arguments) if isinstance(part, Value)]
        if func in _CREATORS or all(part.constant is not None for part in used):
            return _computed(func, arguments, out)
        if func not in OPERATORS:
            raise UnsupportedOperator(f"{func} has no form in ONNX here: give it one in OPERATORS")
        if any(_joins_rows(part) for part in used):
            raise UnsupportedOperator(f"{func} of rows and of a constant with tokens for rows")
        if any(part.has_rows and not self._may_use(part) for part in used):
            raise UnsupportedOperator(f"{func} uses rows from outside the loop: give them to it")
        names = OPERATORS[func](self._graph, out, **arguments)
        return [
            Value(blank.shape, blank.dtype, name) for blank, name in zip(out, names, strict=True)
        ]

    def _may_use(self, rows: Value) -> bool:
        """Whether they are as many here as where they were made: in a loop there are fewer."""
        return self._graph.owns(rows) or rows.name in self._given


def _computed(func: Any, arguments: dict[str, Any], out: list[Value]) -> list[Value]:
    """Compute an operation on constants; what would have rows has one, to be broadcast."""

    def real(part: Any) -> Any:
        if not isinstance(part, Value):
            return part
        if part.constant is not None:
            return part.constant
        return torch.empty(_one_row(part.shape), dtype=part.dtype)

    concrete = tree_map(real, arguments)
    if func in _VIEWS:
        # A view may join the rows with another axis: of one row there are as many as that has.
        func = torch.reshape
        shape = [-1 if size == NO_ROWS else size for size in concrete["size"]]
        concrete = {"input": concrete["self"], "shape": shape}
    elif "size" in concrete:
        concrete["size"] = _one_row(concrete["size"])
    found = tree_leaves(func(**concrete))
    return [
        Value(blank.shape, blank.dtype, constant=tensor)
        for blank, tensor in zip(out, found, strict=True)
    ]


def _joins_rows(part: Value) -> bool:
    """Whether it is a constant whose batch axis was joined with another: it cannot be broadcast."""
    return part.constant is not None and part.has_rows and len(part.constant) > 1


def _one_row(shape: Sequence[int]) -> list[int]:
    return [1 if size == NO_ROWS else size for size in shape]
