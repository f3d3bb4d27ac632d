"""Where a graph leaves the flow it was made from: the output of every layer, compared in turn."""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.flow import Flow
from models.fold.chain import FoldedChain
from models.onnx.graph import Graph
from models.onnx.runtime import open_session
from models.onnx.trace import trace
from models.transforms.split import FactorOut

# A value this far off (relative to max(1, |value|)) is a drift, whatever it does to the log-det.
_VALUE_TOLERANCE = 1e-4


class _LayerRecorder(nn.Module):
    """Runs a folded flow and gives what every layer on the way returned."""

    def __init__(self, folded: Flow, *, decoding: bool) -> None:
        super().__init__()
        self.chain = copy.deepcopy(cast(FoldedChain, folded.chain[0]))
        self.decoding = decoding
        self.layers: list[str] = []
        self._seen: list[Tensor] = []
        self._watch(self.chain, "")

    def forward(self, value: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        self.layers.clear()
        self._seen.clear()
        self.chain.walk(value, context, decoding=self.decoding)
        return {str(index): tensor for index, tensor in enumerate(self._seen)}

    def _watch(self, chain: FoldedChain, prefix: str) -> None:
        for transform, sources in zip(chain.transforms, chain.sources, strict=True):
            name = prefix + " + ".join(sources)
            if isinstance(transform, FactorOut):
                self._watch(cast(FoldedChain, transform.rest), f"{name}: rest: ")
                if transform.prior is not None:
                    self._watch(cast(FoldedChain, transform.prior), f"{name}: prior: ")
                continue
            method = "decode" if self.decoding else "encode"
            setattr(transform, method, self._recorded(getattr(transform, method), name))

    def _recorded(self, step: Callable[..., Any], name: str) -> Callable[..., Any]:
        def recorded(
            value: Tensor, context: Tensor | None = None, **call: Any
        ) -> tuple[Tensor, Tensor]:
            result: tuple[Tensor, Tensor] = step(value, context, **call)
            self.layers.append(name)
            self._seen += result
            return result

        return recorded


@torch.no_grad()
def first_drift(
    folded: Flow,
    reference: Flow,
    value: Tensor,
    context: Tensor | None = None,
    *,
    decoding: bool,
    tolerance: float,
    dtype: torch.dtype,
    opset: int,
) -> str:
    """Name the first layer at which the graph of `folded` and `reference` part.

    Args:
        folded: the folded flow that the graph was traced from.
        reference: the same flow folded in float64.
        value, context: rows for which they part at the end, in float64.
        decoding: which of the two graphs.
        tolerance: in nats, of all log-dets so far.
        dtype, opset: of the graph.

    Returns:
        The layers of the flow that the folded layer was made of, by index and kind.
    """
    recorder = _LayerRecorder(folded, decoding=decoding)
    exact = _LayerRecorder(reference, decoding=decoding)(value, context)
    given = {"value": value} if context is None else {"value": value, "context": context}
    got = _run_graph(recorder, given, dtype, opset)
    drift = torch.zeros(len(value), dtype=torch.float64)
    for index, layer in enumerate(recorder.layers):
        wanted, log_det = exact[str(2 * index)], exact[str(2 * index + 1)]
        drift += got[2 * index + 1] - log_det
        apart = ((got[2 * index] - wanted) / wanted.abs().clamp(min=1)).abs().max()
        if not (drift.abs().max() <= tolerance and apart <= _VALUE_TOLERANCE):
            return layer
    return recorder.layers[-1] if recorder.layers else "the base"


def _run_graph(
    recorder: _LayerRecorder, given: dict[str, Tensor], dtype: torch.dtype, opset: int
) -> list[Tensor]:
    """Trace what every layer returns, and run the graph of it."""
    graph = Graph("drift", opset)
    shapes = {name: tuple(value.shape[1:]) for name, value in given.items()}
    model = graph.model(trace(recorder, shapes, dtype, graph))
    feed = {name: value.to(dtype).numpy() for name, value in given.items()}
    found = open_session(model.SerializeToString()).run(None, feed)
    return [torch.from_numpy(array).double() for array in found]
