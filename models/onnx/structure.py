"""Operations that move, join, sum and mix elements."""

import math
from typing import Any

import torch

from models.onnx.graph import NO_ROWS, Graph, UnsupportedOperator, Value
from models.onnx.operators import on, operand

_aten = torch.ops.aten


# Rows of whole vectors are treated alike wherever they stand: 8 float32 are a vector of AVX, the
# widest that onnxruntime's builds use outside their own kernels.
VECTOR = 8


def reshaped(g: Graph, name: str, out: Value) -> list[str]:
    """Give a tensor the shape of `out`."""
    sizes = [-1 if size == NO_ROWS else size for size in out.shape]
    return g.add("Reshape", [g.before_reshape(name), g.ints(sizes)])


def _axis(dim: int, value: Value) -> int:
    axis = dim % len(value.shape)
    if axis == 0 and value.has_rows:
        raise UnsupportedOperator("an operation along the batch axis")
    return axis


@on(
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.unsqueeze.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
)
def _reshape(g: Graph, out: list[Value], self: Value, **_: Any) -> list[str]:
    return reshaped(g, g.ref(self), out[0])


@on(
    _aten._to_copy.default,
    _aten.alias.default,
    _aten.clone.default,
    _aten.detach.default,
    _aten.lift_fresh_copy.default,
)
def _cast(g: Graph, out: list[Value], self: Value, **_: Any) -> list[str]:
    return [g.ref(self, out[0].dtype)]


@on(_aten.expand.default)
def _expand(g: Graph, out: list[Value], self: Value, size: list[int], **_: Any) -> list[str]:
    if out[0].shape == self.shape:
        return [g.ref(self)]
    sizes = [1 if size == NO_ROWS else size for size in out[0].shape]
    return g.add("Expand", [g.ref(self), g.ints(sizes)])


@on(_aten.permute.default)
def _permute(g: Graph, out: list[Value], self: Value, dims: list[int]) -> list[str]:
    return g.add("Transpose", [g.ref(self)], perm=[dim % len(self.shape) for dim in dims])


@on(_aten.transpose.int)
def _transpose(g: Graph, out: list[Value], self: Value, dim0: int, dim1: int) -> list[str]:
    order = list(range(len(self.shape)))
    first, second = _axis(dim0, self), _axis(dim1, self)
    order[first], order[second] = second, first
    return g.add("Transpose", [g.ref(self)], perm=order)


@on(_aten.slice.Tensor)
def _slice(
    g: Graph,
    out: list[Value],
    self: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> list[str]:
    if out[0].shape == self.shape:
        return [g.ref(self)]
    axis = _axis(dim, self)
    length = self.shape[axis]
    first, last, _ = slice(start, end, step).indices(length)
    return g.add("Slice", [g.ref(self), *(g.ints([k]) for k in (first, last, axis, step))])


@on(_aten.select.int)
def _select(g: Graph, out: list[Value], self: Value, dim: int, index: int) -> list[str]:
    axis = _axis(dim, self)
    place = g.constant(torch.tensor(index % self.shape[axis]))
    return g.add("Gather", [g.ref(self), place], axis=axis)


@on(_aten.index_select.default)
def _index_select(g: Graph, out: list[Value], self: Value, dim: int, index: Value) -> list[str]:
    return g.add("Gather", [g.ref(self), g.ref(index)], axis=_axis(dim, self))


@on(_aten.split.Tensor, _aten.split_with_sizes.default)
def _split(g: Graph, out: list[Value], self: Value, dim: int = 0, **_: Any) -> list[str]:
    if len(out) == 1:
        return [g.ref(self)]
    axis = _axis(dim, self)
    sizes = g.ints(part.shape[axis] for part in out)
    return g.add("Split", [g.ref(self), sizes], outputs=len(out), axis=axis)


@on(_aten.unbind.int)
def _unbind(g: Graph, out: list[Value], self: Value, dim: int = 0) -> list[str]:
    axis = _axis(dim, self)
    parts = g.add("Split", [g.ref(self), g.ints([1] * len(out))], outputs=len(out), axis=axis)
    return [reshaped(g, part, value)[0] for part, value in zip(parts, out, strict=True)]


@on(_aten.cat.default)
def _cat(g: Graph, out: list[Value], tensors: list[Value], dim: int = 0) -> list[str]:
    names = [g.materialised(part, out[0].dtype) for part in tensors]
    return g.add("Concat", names, axis=_axis(dim, out[0])) if len(names) > 1 else names


@on(_aten.stack.default)
def _stack(g: Graph, out: list[Value], tensors: list[Value], dim: int = 0) -> list[str]:
    axis = _axis(dim, out[0])
    names = []
    for part in tensors:
        shape = (*part.shape[:axis], 1, *part.shape[axis:])
        wider = Value(shape, part.dtype)
        names += reshaped(g, g.materialised(part, out[0].dtype), wider)
    return g.add("Concat", names, axis=axis)


@on(_aten.constant_pad_nd.default)
def _pad(g: Graph, out: list[Value], self: Value, pad: list[int], value: float = 0) -> list[str]:
    # torch lists (before, after) from the last axis, ONNX all befores and then all afters.
    idle = [0] * (len(self.shape) - len(pad) // 2)
    before, after = [*idle, *pad[-2::-2]], [*idle, *pad[-1::-2]]
    filler = operand(g, value, self.dtype)
    return g.add("Pad", [g.ref(self), g.ints([*before, *after]), filler])


def summed(g: Graph, name: str, shape: tuple[int, ...], axes: list[int], out: Value) -> list[str]:
    """Sum a tensor of `shape` and the dtype of `out` over some axes, each row in one order.

    onnxruntime's ReduceSum adds in an order that depends on where in memory a row starts; rows of
    whole vectors all start alike. Others are multiplied by a column of ones, which is as fast.
    """
    width = math.prod(shape[axis] for axis in axes)
    last = sorted(axes) == list(range(len(shape) - len(axes), len(shape)))
    if width % VECTOR == 0 or not last:
        keeps = int(len(out.shape) == len(shape))
        return g.add("ReduceSum", [name, g.ints(axes)], keepdims=keeps)
    if len(axes) > 1:
        flat = Value((*shape[: -len(axes)], width), out.dtype)
        (name,) = reshaped(g, name, flat)
    ones = g.constant(torch.ones(width, 1, dtype=out.dtype))
    return reshaped(g, g.add("MatMul", [name, ones])[0], out)


@on(_aten.sum.dim_IntList)
def _sum(g: Graph, out: list[Value], self: Value, dim: list[int], **_: Any) -> list[str]:
    axes = [_axis(one, self) for one in dim]
    return summed(g, g.ref(self, out[0].dtype), self.shape, axes, out[0])


@on(_aten.var_mean.correction)
def _var_mean(
    g: Graph,
    out: list[Value],
    self: Value,
    dim: list[int],
    correction: float = 1,
    keepdim: bool = False,
) -> list[str]:
    (axis,) = (_axis(one, self) for one in dim)
    x, count = g.ref(self), self.shape[axis]
    kept = Value((*self.shape[:axis], 1, *self.shape[axis + 1 :]), self.dtype)

    def average(name: str, terms: float) -> str:
        total = summed(g, name, self.shape, [axis], kept)
        return g.add("Div", [*total, operand(g, terms, self.dtype)])[0]

    mean = average(x, count)
    centred = g.add("Sub", [x, mean])
    variance = average(g.add("Mul", [*centred, *centred])[0], count - correction)
    return [reshaped(g, variance, out[0])[0], reshaped(g, mean, out[1])[0]]


@on(_aten._softmax.default)
def _softmax(g: Graph, out: list[Value], self: Value, dim: int, **_: Any) -> list[str]:
    return g.add("Softmax", [g.ref(self)], axis=_axis(dim, self))


@on(_aten.cumsum.default)
def _cumsum(g: Graph, out: list[Value], self: Value, dim: int, **_: Any) -> list[str]:
    return g.add("CumSum", [g.ref(self), g.constant(torch.tensor(_axis(dim, self)))])


@on(_aten.amax.default)
def _amax(
    g: Graph, out: list[Value], self: Value, dim: list[int], keepdim: bool = False
) -> list[str]:
    axes = g.ints(_axis(one, self) for one in dim)
    return g.add("ReduceMax", [g.ref(self), axes], keepdims=int(keepdim))


@on(_aten.mm.default, _aten.bmm.default)
def _mm(g: Graph, out: list[Value], self: Value, mat2: Value) -> list[str]:
    return g.add("MatMul", [g.ref(self), g.ref(mat2)])


@on(_aten.addmm.default)
def _addmm(
    g: Graph,
    out: list[Value],
    self: Value,
    mat1: Value,
    mat2: Value,
    beta: float = 1,
    alpha: float = 1,
) -> list[str]:
    names = [g.ref(mat1), g.ref(mat2), g.ref(self)]
    return g.add("Gemm", names, alpha=float(alpha), beta=float(beta))


@on(_aten.native_batch_norm.default)
def _batch_norm(
    g: Graph,
    out: list[Value],
    input: Value,
    weight: Value,
    bias: Value,
    running_mean: Value,
    running_var: Value,
    training: bool,
    momentum: float,
    eps: float,
) -> list[str]:
    if training:
        raise UnsupportedOperator("batch norm in train mode")
    names = [g.ref(part) for part in (input, weight, bias, running_mean, running_var)]
    return [*g.add("BatchNormalization", names, epsilon=float(eps)), "", ""]
