"""Operations on one element at a time, and on elements that meet by broadcasting."""

import math
from typing import Any

import torch

from models.onnx.graph import Graph, UnsupportedOperator, Value
from models.onnx.operators import OPERATORS, Operand, Translate, on, operand
from models.onnx.structure import VECTOR, reshaped

_aten = torch.ops.aten

# onnxruntime computes these with vector instructions, and the elements that do not fill a last
# vector one by one, which rounds differently: an element's bits would depend on how many stand
# before it, the rows of other callers among them. Rows of whole vectors are never cut.
_UNEVEN = {"Atan", "Log", "Elu", "Sin", "Cos"}
# Those that it computes itself in float32, and as above in float64.
_UNEVEN_WIDE = _UNEVEN | {"Exp", "Sigmoid", "Tanh"}


def _apply(g: Graph, operator: str, name: str, out: Value, **attributes: Any) -> list[str]:
    """Apply a function of one argument, every element with bits of its own."""
    width = math.prod(out.shape[1:])
    uneven = _UNEVEN_WIDE if out.dtype == torch.float64 else _UNEVEN
    if operator not in uneven or width % VECTOR == 0 or not out.has_rows:
        return g.add(operator, [name], **attributes)
    flat = g.add("Reshape", [name, g.ints((-1, width))])
    filler = g.constant(torch.ones((), dtype=out.dtype))
    padded = g.add("Pad", [*flat, g.ints((0, 0, 0, -width % VECTOR)), filler])
    wide = g.add(operator, padded, **attributes)
    cut = g.add("Slice", [*wide, g.ints([0]), g.ints([width]), g.ints([1])])
    return reshaped(g, cut[0], out)


def _unary(operator: str) -> Translate:
    def translate(g: Graph, out: list[Value], self: Value, **_: Any) -> list[str]:
        return _apply(g, operator, g.ref(self), out[0])

    return translate


def _arithmetic(operator: str) -> Translate:
    def translate(
        g: Graph, out: list[Value], self: Operand, other: Operand, alpha: float = 1
    ) -> list[str]:
        dtype = out[0].dtype
        name = operand(g, other, dtype)
        if alpha != 1:
            (name,) = g.add("Mul", [name, operand(g, alpha, dtype)])
        return g.add(operator, [operand(g, self, dtype), name])

    return translate


def _comparison(operator: str) -> Translate:
    def translate(g: Graph, out: list[Value], self: Value, other: Operand) -> list[str]:
        dtype = self.dtype
        if isinstance(other, Value):
            dtype = torch.promote_types(dtype, other.dtype)
        return g.add(operator, [g.ref(self, dtype), operand(g, other, dtype)])

    return translate


for _operator, _overloads in {
    "Abs": [_aten.abs.default],
    "Atan": [_aten.atan.default],
    "Cos": [_aten.cos.default],
    "Exp": [_aten.exp.default],
    "Floor": [_aten.floor.default],
    "Log": [_aten.log.default],
    "Neg": [_aten.neg.default],
    "Not": [_aten.bitwise_not.default, _aten.logical_not.default],
    "Reciprocal": [_aten.reciprocal.default],
    "Relu": [_aten.relu.default],
    "Sigmoid": [_aten.sigmoid.default],
    "Sin": [_aten.sin.default],
    "Sqrt": [_aten.sqrt.default],
    "Tanh": [_aten.tanh.default],
}.items():
    on(*_overloads)(_unary(_operator))

for _operator, _overloads in {
    "Add": [_aten.add.Tensor, _aten.add.Scalar],
    "Sub": [_aten.sub.Tensor, _aten.sub.Scalar],
    "Mul": [_aten.mul.Tensor, _aten.mul.Scalar],
    "Div": [_aten.div.Tensor, _aten.div.Scalar],
    "And": [_aten.bitwise_and.Tensor, _aten.logical_and.default],
    "Or": [_aten.bitwise_or.Tensor, _aten.logical_or.default],
    "Max": [_aten.maximum.default],
    "Min": [_aten.minimum.default],
}.items():
    on(*_overloads)(_arithmetic(_operator))

for _operator, _overloads in {
    "Equal": [_aten.eq.Tensor, _aten.eq.Scalar],
    "Less": [_aten.lt.Tensor, _aten.lt.Scalar],
    "LessOrEqual": [_aten.le.Tensor, _aten.le.Scalar],
    "Greater": [_aten.gt.Tensor, _aten.gt.Scalar],
    "GreaterOrEqual": [_aten.ge.Tensor, _aten.ge.Scalar],
}.items():
    on(*_overloads)(_comparison(_operator))


@on(_aten.rsub.Scalar)
def _rsub(g: Graph, out: list[Value], self: Value, other: float, alpha: float = 1) -> list[str]:
    return OPERATORS[_aten.sub.Tensor](g, out, self=other, other=self, alpha=alpha)


@on(_aten.addcmul.default)
def _addcmul(
    g: Graph, out: list[Value], self: Value, tensor1: Value, tensor2: Value, value: float = 1
) -> list[str]:
    if value != 1:
        raise UnsupportedOperator(f"addcmul with value = {value}")
    dtype = out[0].dtype
    product = g.add("Mul", [g.ref(tensor1, dtype), g.ref(tensor2, dtype)])
    return g.add("Add", [g.ref(self, dtype), *product])


@on(_aten.pow.Tensor_Scalar)
def _power(g: Graph, out: list[Value], self: Value, exponent: float) -> list[str]:
    name = g.ref(self, out[0].dtype)
    if exponent == 2:
        return g.add("Mul", [name, name])
    return g.add("Pow", [name, operand(g, exponent, out[0].dtype)])


@on(_aten.square.default)
def _square(g: Graph, out: list[Value], self: Value) -> list[str]:
    return g.add("Mul", [g.ref(self), g.ref(self)])


@on(_aten.rsqrt.default)
def _rsqrt(g: Graph, out: list[Value], self: Value) -> list[str]:
    return g.add("Reciprocal", g.add("Sqrt", [g.ref(self)]))


@on(_aten.log1p.default)
def _log1p(g: Graph, out: list[Value], self: Value) -> list[str]:
    one = operand(g, 1.0, self.dtype)
    return _apply(g, "Log", g.add("Add", [g.ref(self), one])[0], out[0])


@on(_aten.erf.default)
def _erf(g: Graph, out: list[Value], self: Value) -> list[str]:
    # In float64, which onnxruntime has not, `models.onnx.wide` traces another form.
    return g.add("Erf", [g.ref(self, torch.float32)])


@on(_aten.clamp.default)
def _clamp(
    g: Graph, out: list[Value], self: Value, min: float | None = None, max: float | None = None
) -> list[str]:
    bounds = ["" if bound is None else operand(g, bound, self.dtype) for bound in (min, max)]
    return g.add("Clip", [g.ref(self), *bounds])


@on(_aten.where.self)
def _where(g: Graph, out: list[Value], condition: Value, self: Value, other: Value) -> list[str]:
    dtype = out[0].dtype
    return g.add("Where", [g.ref(condition), g.ref(self, dtype), g.ref(other, dtype)])


@on(_aten.masked_fill.Scalar)
def _masked_fill(g: Graph, out: list[Value], self: Value, mask: Value, value: float) -> list[str]:
    return g.add("Where", [g.ref(mask), operand(g, value, self.dtype), g.ref(self)])


@on(_aten.softplus.default)
def _softplus(
    g: Graph, out: list[Value], self: Value, beta: float = 1, threshold: float = 20
) -> list[str]:
    # Above the threshold torch returns its argument: to rounding that is the same.
    if beta != 1:
        raise UnsupportedOperator(f"softplus with beta = {beta}")
    zero = operand(g, 0.0, self.dtype)
    return g.add("Add", [*g.add("Max", [g.ref(self), zero]), _bend(g, self, out[0])])


@on(_aten.log_sigmoid_forward.default)
def _log_sigmoid(g: Graph, out: list[Value], self: Value) -> list[str]:
    zero = operand(g, 0.0, self.dtype)
    return [*g.add("Sub", [*g.add("Min", [g.ref(self), zero]), _bend(g, self, out[0])]), ""]


def _bend(g: Graph, x: Value, out: Value) -> str:
    """log(1 + exp(-|x|)): what softplus adds to max(x, 0), without overflow.

    onnxruntime's Softplus takes five times as long and has no float64; its Sigmoid, of which one
    could take the log, has no digits left below e^-18.
    """
    (distance,) = g.add("Neg", g.add("Abs", [g.ref(x)]))
    exp = _apply(g, "Exp", distance, out)
    return _apply(g, "Log", g.add("Add", [*exp, operand(g, 1.0, x.dtype)])[0], out)[0]


@on(_aten.leaky_relu.default)
def _leaky_relu(g: Graph, out: list[Value], self: Value, negative_slope: float = 0.01) -> list[str]:
    if self.dtype != torch.float64:
        return g.add("LeakyRelu", [g.ref(self)], alpha=float(negative_slope))
    # onnxruntime has LeakyRelu in float32 alone.
    name, zero = g.ref(self), operand(g, 0.0, self.dtype)
    left = g.add("Mul", [*g.add("Min", [name, zero]), operand(g, negative_slope, self.dtype)])
    return g.add("Add", [*g.add("Max", [name, zero]), *left])


@on(_aten.elu.default)
def _elu(
    g: Graph,
    out: list[Value],
    self: Value,
    alpha: float = 1,
    scale: float = 1,
    input_scale: float = 1,
) -> list[str]:
    if input_scale != 1:
        raise UnsupportedOperator(f"elu with input_scale = {input_scale}")
    if self.dtype == torch.float64:
        name = _wide_elu(g, self, alpha, out[0])
    else:
        name = _apply(g, "Elu", g.ref(self), out[0], alpha=float(alpha))
    return name if scale == 1 else g.add("Mul", [*name, operand(g, scale, self.dtype)])


def _wide_elu(g: Graph, x: Value, alpha: float, out: Value) -> list[str]:
    """max(x, 0) + alpha (exp(min(x, 0)) - 1): onnxruntime has Elu in float32 alone."""
    zero = operand(g, 0.0, x.dtype)
    exp = _apply(g, "Exp", g.add("Min", [g.ref(x), zero])[0], out)
    (bent,) = g.add("Sub", [*exp, operand(g, 1.0, x.dtype)])
    scaled = g.add("Mul", [bent, operand(g, alpha, x.dtype)])
    return g.add("Add", [*g.add("Max", [g.ref(x), zero]), *scaled])


@on(_aten.silu.default)
def _silu(g: Graph, out: list[Value], self: Value) -> list[str]:
    name = g.ref(self)
    return g.add("Mul", [name, *_apply(g, "Sigmoid", name, out[0])])


@on(_aten.gelu.default)
def _gelu(g: Graph, out: list[Value], self: Value, approximate: str = "none") -> list[str]:
    if approximate != "none":
        raise UnsupportedOperator(f"gelu approximated by {approximate}")
    name, dtype = g.ref(self), self.dtype
    scaled = g.add("Mul", [name, operand(g, math.sqrt(0.5), dtype)])
    gate = g.add("Add", [*g.add("Erf", scaled), operand(g, 1.0, dtype)])
    return g.add("Mul", [*g.add("Mul", [name, operand(g, 0.5, dtype)]), *gate])
