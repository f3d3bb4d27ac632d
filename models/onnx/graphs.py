"""The two graphs of a flow: encode and decode."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from models.flow import Flow
from models.fold.chain import FoldedChain
from models.onnx.graph import Graph
from models.onnx.trace import trace
from models.transforms.ode import SolveReport, join_reports, solve_reports

# What onnx 1.16 and onnxruntime 1.17 (both of 2024) and everything since can read.
DEFAULT_OPSET = 20
MIN_OPSET = 18
MAX_OPSET = 23

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Graphs:
    """encode: x[, context] -> z, log_det, log_prob; decode: z[, context] -> x, log_det.

    Log-dets and log_prob are summed in float64 and given in the dtype of the flow, in nats. Both
    graphs of a continuous flow also give status (of `models.solver.SolveStatus`) and evaluations,
    int64, one a row.
    """

    encode: onnx.ModelProto
    decode: onnx.ModelProto


class _Encode(nn.Module):
    def __init__(self, chain: FoldedChain) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        with solve_reports() as reports:
            z, log_det = self.chain.walk(x, context)
        squares = z.double().square().sum(1)
        log_prob = log_det - 0.5 * squares - z.shape[1] * _HALF_LOG_TWO_PI
        outputs = {"z": z, "log_det": log_det, "log_prob": log_prob}
        return {name: value.to(x.dtype) for name, value in outputs.items()} | _told(reports)


class _Decode(nn.Module):
    def __init__(self, chain: FoldedChain) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, z: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        with solve_reports() as reports:
            x, log_det = self.chain.walk(z, context, decoding=True)
        return {"x": x.to(z.dtype), "log_det": log_det.to(z.dtype)} | _told(reports)


def _told(reports: Sequence[SolveReport]) -> dict[str, Tensor]:
    report = join_reports(reports)
    return {} if report is None else {"status": report.status, "evaluations": report.evaluations}


def build_graphs(folded: Flow, dtype: torch.dtype, opset: int = DEFAULT_OPSET) -> Graphs:
    """Trace a folded flow in both directions.

    Args:
        folded: see `models.fold`.
        dtype: of inputs and outputs.
        opset: version of the ONNX operators.

    Raises:
        UnsupportedOperator: if it does something that has no form in ONNX here.
        ValueError: if the opset is not one of MIN_OPSET .. MAX_OPSET.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ValueError(f"opset: expected {MIN_OPSET} .. {MAX_OPSET}, got {opset}")
    (chain,) = folded.chain
    if not isinstance(chain, FoldedChain):
        raise TypeError("flow: expected a folded one, see models.fold")
    context = {} if folded.context_shape is None else {"context": folded.context_shape}
    models = []
    for name, module, given in (
        ("encode", _Encode(chain), {"x": folded.event_shape}),
        ("decode", _Decode(chain), {"z": (folded.features,)}),
    ):
        graph = Graph(name, opset)
        models.append(graph.model(trace(module, given | context, dtype, graph)))
    return Graphs(*models)
