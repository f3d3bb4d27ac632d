"""A discrete flow in every form that `bench_onnx` compares, as calls on one batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.flow import Flow
from models.fold import fold
from models.onnx.graphs import build_graphs
from models.onnx.runtime import load_runtime, open_session
from models.registry import build
from models.transforms.linear import InvertibleLinear

Array = NDArray[Any]
Call = Callable[[], Tensor | Array]

# Far enough from the start that no layer is the identity, and 96 couplings still decode.
WEIGHT_NOISE = 0.005


class PublicLinear(InvertibleLinear):
    """A 1x1 convolution as public Glow code has it.

    slogdet of W (in float64, as rosinality/glow-pytorch) at every call of encode, the inverse of W
    at every call of decode.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__(len(weight))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def matrix(self) -> Tensor:
        """W."""
        return self.weight

    def inverse_matrix(self) -> Tensor:
        """W^-1."""
        inverse: Tensor = torch.linalg.inv(self.weight)
        return inverse

    def log_abs_det(self) -> Tensor:
        """log|det W|."""
        log_abs_det: Tensor = torch.linalg.slogdet(self.weight.double()).logabsdet
        return log_abs_det.float()


def make_flow(family: str, config: dict[str, Any]) -> Flow:
    """A flow whose weights are drawn from a seed."""
    torch.manual_seed(0)
    flow = build(family, config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    for parameter in flow.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=WEIGHT_NOISE)
    return flow


def with_public_linear(flow: Flow) -> Flow:
    """Replace every invertible matrix by the same one in the form of public code; in place."""
    for module in list(flow.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, InvertibleLinear):
                setattr(module, name, PublicLinear(child.matrix()))
    return flow


class BoundGraph:
    """One output of a graph in onnxruntime, on buffers that are bound once.

    A call copies its rows in and its result out, as the service does.
    """

    def __init__(self, model: bytes, rows: Array, output: str) -> None:
        session = open_session(model)
        value_of = load_runtime().OrtValue.ortvalue_from_numpy
        shapes = {found.name: found.shape for found in session.get_outputs()}
        self._session, self._binding = session, session.io_binding()
        self._given = np.empty_like(rows)
        self._found = np.empty((len(rows), *shapes[output][1:]), rows.dtype)
        name = session.get_inputs()[0].name
        self._binding.bind_ortvalue_input(name, value_of(self._given))
        self._binding.bind_ortvalue_output(output, value_of(self._found))

    def __call__(self, rows: Array) -> Array:
        """Compute."""
        np.copyto(self._given, rows)
        self._session.run_with_iobinding(self._binding)
        return self._found.copy()


class Forms:
    """A flow unfolded, folded, as graphs, and with the arithmetic of public code."""

    def __init__(self, flow: Flow, public: Flow | None = None) -> None:
        self.flow, self.public = flow, public
        self.folded = fold(flow)
        graphs = build_graphs(self.folded, flow.dtype)
        self._encode = graphs.encode.SerializeToString()
        self._decode = graphs.decode.SerializeToString()

    def scoring(self, x: Tensor) -> dict[str, Call]:
        """log_prob of x; the first is the baseline."""
        graph = BoundGraph(self._encode, x.numpy(), "log_prob")
        return self._calls(Flow.log_prob, x) | {"onnx": partial(graph, x.numpy())}

    def sampling(self, z: Tensor) -> dict[str, Call]:
        """The x that z decodes to; the first is the baseline."""
        graph = BoundGraph(self._decode, z.numpy(), "x")
        return self._calls(_decoded, z) | {"onnx": partial(graph, z.numpy())}

    def _calls(self, of: Callable[[Flow, Tensor], Tensor], rows: Tensor) -> dict[str, Call]:
        flows = {"eager torch": self.flow, "public arithmetic": self.public, "folded": self.folded}
        return {
            name: torch.no_grad()(partial(of, flow, rows))
            for name, flow in flows.items()
            if flow is not None
        }


def _decoded(flow: Flow, z: Tensor) -> Tensor:
    return flow.decode(z)[0]
