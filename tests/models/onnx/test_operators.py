"""Every operation that has a form in ONNX: the values of torch, the same bits in every batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from models.onnx.graph import Graph, UnsupportedOperator
from models.onnx.runtime import open_session
from models.onnx.trace import trace

Function = Callable[[Tensor], Tensor]

CONSTANT = torch.linspace(-1, 1, 5)
KERNEL = torch.linspace(-0.3, 0.4, 2 * 3 * 9).reshape(2, 3, 3, 3)

# Rows of 5 features: no multiple of any vector's length.
FEATURES: dict[str, Function] = {
    "add_scaled": lambda x: torch.add(x, x.exp(), alpha=-0.3),
    "addcmul": lambda x: torch.addcmul(x, x.exp(), x),
    "abs": torch.abs,
    "add": lambda x: x + CONSTANT,
    "add_wide": lambda x: x + CONSTANT.double(),
    "atan": torch.atan,
    "clamp": lambda x: x.clamp(-0.5, 1.0),
    "clamp_below": lambda x: x.clamp(min=0.1),
    "cos": torch.cos,
    "cumsum": lambda x: x.cumsum(1),
    "divide": lambda x: x / (x.square() + 1.5),
    "elu": lambda x: F.elu(x, 0.7),
    "equal": lambda x: torch.where(x.floor() == x, 1.0, x),
    "erf": torch.erf,
    "exp": torch.exp,
    "expand": lambda x: x[:, :1].expand(-1, 4) * 1,
    "floor": torch.floor,
    "gelu": F.gelu,
    "index": lambda x: x.index_select(1, torch.tensor([3, 0, 1])),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "less": lambda x: torch.where(x < CONSTANT, x, 0.0),
    "linear": lambda x: F.linear(x, torch.eye(5)[:3] + 0.1, CONSTANT[:3]),
    "log": lambda x: (x.abs() + 0.1).log(),
    "log1p": lambda x: x.abs().log1p(),
    "logical": lambda x: torch.where((x > 0) & ~(x >= 1) | (x <= -1), x, 7.0),
    "logsigmoid": F.logsigmoid,
    "masked_fill": lambda x: x.masked_fill(x > 0.3, -1.0),
    "maximum": lambda x: torch.maximum(x, CONSTANT),
    "minimum": lambda x: torch.minimum(x, CONSTANT),
    "matmul": lambda x: x @ torch.ones(5, 2),
    "negative": lambda x: -x,
    "pad": lambda x: F.pad(x, (2, 1), value=3.0),
    "power": lambda x: x.abs() ** 1.5,
    "reciprocal": lambda x: (x.square() + 1).reciprocal(),
    "relu": F.relu,
    "rsqrt": lambda x: (x.square() + 1).rsqrt(),
    "rsub": lambda x: 2.0 - x,
    "select": lambda x: x[:, 3] * 2,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sin": torch.sin,
    "slice": lambda x: x[:, 1:4:2] + 0,
    "softmax": lambda x: x.softmax(1),
    "softplus": F.softplus,
    "split": lambda x: torch.cat(x.split((2, 3), 1)[::-1], 1),
    "sqrt": lambda x: x.abs().sqrt(),
    "square": torch.square,
    "stack": lambda x: torch.stack((x, x + 1), 2),
    "stack_constant": lambda x: torch.stack((x, torch.zeros_like(x)), 1),
    "sum": lambda x: x.sum(1),
    "sum_kept": lambda x: x.sum(1, keepdim=True),
    "sum_wide": lambda x: x.double().sum(1),
    "tanh": torch.tanh,
    "transpose": lambda x: x[:, :4].unflatten(1, (2, 2)).mT.flatten(1),
    "unbind": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "unflatten": lambda x: x[:, :4].unflatten(1, (2, 2)).permute(0, 2, 1).flatten(1),
    "var_mean": lambda x: torch.cat(torch.var_mean(x, 1, keepdim=True), 1),
}
# Functions that libraries compute by vectors of elements, in float64 too.
CURVES = (
    "atan", "cos", "elu", "erf", "exp", "gelu", "log", "log1p", "logsigmoid", "power", "selu",
    "sigmoid", "silu", "sin", "softmax", "softplus", "sqrt", "tanh",
)  # fmt: skip


def in_float64(function: Function) -> Function:
    return lambda x: function(x.double())


# Images of 3 x 3 x 3, so rows of 27.
IMAGES: dict[str, Function] = {
    "batch_norm": lambda x: torch.native_batch_norm(
        x, CONSTANT[:3], CONSTANT[1:4], CONSTANT[2:], CONSTANT[2:] + 1, False, 0.0, 1e-5
    )[0],
    "convolution": lambda x: F.conv2d(x, KERNEL, CONSTANT[:2], padding=1),
    "convolution_valid": lambda x: F.conv2d(x, KERNEL),
    "convolution_wide": lambda x: F.conv2d(
        x.double(), KERNEL.double(), CONSTANT[:2].double(), padding=1
    ),
    "convolution_wide_strided": lambda x: F.conv2d(
        x.double(), KERNEL[:, :, :2].double(), stride=(2, 1), padding=(0, 2), dilation=(1, 2)
    ),
    "convolution_wide_1x1": lambda x: F.conv2d(x.double(), KERNEL[:, :, :1, :1].double()),
    "log": lambda x: (x.abs() + 0.1).log(),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1), value=1.0),
    "sum": lambda x: x.sum((1, 2, 3)),
    "sum_channels": lambda x: x.sum(1),
    "sum_kept": lambda x: x.sum((1, 2, 3), keepdim=True),
}
CASES = {
    **{f"features-{name}": ((5,), function) for name, function in FEATURES.items()},
    **{f"features-{name}_wide": ((5,), in_float64(FEATURES[name])) for name in CURVES},
    **{f"images-{name}": ((3, 3, 3), function) for name, function in IMAGES.items()},
}


class Apply(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"y": self.function(x)}


def model_of(function: Function, shape: tuple[int, ...]) -> onnx.ModelProto:
    graph = Graph("test", 20)
    return graph.model(trace(Apply(function), {"x": shape}, torch.float32, graph))


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_torch_does_and_a_row_keeps_its_bits(name: str) -> None:
    shape, function = CASES[name]
    model = model_of(function, shape)
    onnx.checker.check_model(model, full_check=True)
    session = open_session(model.SerializeToString())
    x = torch.randn(100, *shape, generator=torch.Generator().manual_seed(0)) * 2

    def run(rows: Tensor) -> NDArray[Any]:
        found: NDArray[Any] = session.run(None, {"x": rows.contiguous().numpy()})[0]
        return found

    whole, wanted = run(x), function(x)
    assert whole.dtype == wanted.numpy().dtype
    np.testing.assert_allclose(whole, wanted, rtol=1e-5, atol=1e-6)
    for size in (1, 2, 3, 7, 64):
        parts = np.concatenate([run(part) for part in x.split(size)])
        np.testing.assert_array_equal(parts, whole)


def test_extremes_of_softplus_stay_finite() -> None:
    session = open_session(model_of(F.logsigmoid, (4,)).SerializeToString())
    x = np.array([[-1e30, -100.0, 100.0, 1e30]], np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], [[-1e30, -100, 0, 0]], atol=1e-30)


def test_what_depends_on_constants_alone_is_a_constant() -> None:
    model = model_of(lambda x: x + CONSTANT.softmax(0).cumsum(0).log() * 3, (5,))
    assert [node.op_type for node in model.graph.node] == ["Add", "Identity"]


def test_equal_nodes_become_one_and_idle_ones_go() -> None:
    def function(x: Tensor) -> Tensor:
        x.tanh()
        return x.exp() + x.exp()

    model = model_of(function, (5,))
    assert [node.op_type for node in model.graph.node] == ["Exp", "Add", "Identity"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.sum(0), "along the batch axis"),
        (lambda x: torch.cat((x, x), 0), "along the batch axis"),
        (lambda x: F.softplus(x, beta=2), "softplus with beta = 2"),
        (lambda x: F.gelu(x, approximate="tanh"), "gelu approximated by tanh"),
        (lambda x: torch.addcmul(x, x, x, value=2), "addcmul with value = 2"),
        (lambda x: x.flip(1), r"aten\.flip\.default has no form"),
    ],
    ids=["sum", "cat", "softplus", "gelu", "addcmul", "flip"],
)
def test_what_has_no_form_is_refused(function: Function, message: str) -> None:
    with pytest.raises(UnsupportedOperator, match=message):
        model_of(function, (5,))
