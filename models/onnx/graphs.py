"""The graphs of a flow: encode, decode and, where decoding solves an equation, generate."""

from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from models.flow import Flow
from models.fold.chain import FoldedChain
from models.noise import LOG_TWO_PI
from models.ode.call import SolveCall, join_reports
from models.ode.transform import is_continuous
from models.onnx.graph import Graph
from models.onnx.names import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET
from models.onnx.trace import trace

# Name -> the shape of one row.
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Graphs:
    """encode: x[, context] -> z, log_det, log_prob; decode: z[, context] -> x, log_det.

    Log-dets and log_prob are summed in float64 and given in the dtype of the flow, in nats. The
    graphs of a flow that counts its evaluations also give status (of `SolveStatus`) and
    evaluations, int64, one a row; and of a continuous flow there is a third, generate: z[, context]
    -> x, without the traces that are most of the work of a decode.
    """

    encode: onnx.ModelProto
    decode: onnx.ModelProto
    generate: onnx.ModelProto | None = None

    @property
    def all(self) -> tuple[onnx.ModelProto, ...]:
        """Those that there are."""
        two = (self.encode, self.decode)
        return two if self.generate is None else (*two, self.generate)


class _Encode(nn.Module):
    def __init__(self, chain: FoldedChain) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        call = SolveCall()
        z, log_det = self.chain.walk(x, context, call)
        squares = z.double().square().sum(1)
        # `base_log_prob_torch`, wide and in the order of the graphs that ship: their bits stay.
        log_prob = log_det - 0.5 * squares - z.shape[1] * (0.5 * LOG_TWO_PI)
        outputs = {"z": z, "log_det": log_det, "log_prob": log_prob}
        return {name: value.to(x.dtype) for name, value in outputs.items()} | _solve_outputs(call)


class _Decode(nn.Module):
    def __init__(self, chain: FoldedChain) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, z: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        call = SolveCall()
        x, log_det = self.chain.walk(z, context, call, decoding=True)
        return {"x": x.to(z.dtype), "log_det": log_det.to(z.dtype)} | _solve_outputs(call)


class _Generate(nn.Module):
    def __init__(self, chain: FoldedChain) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, z: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        call = SolveCall(wants_log_det=False)
        x, _ = self.chain.walk(z, context, call, decoding=True)
        return {"x": x.to(z.dtype)} | _solve_outputs(call)


def _solve_outputs(call: SolveCall) -> dict[str, Tensor]:
    report = join_reports(call.reports)
    return {} if report is None else {"status": report.status, "evaluations": report.evaluations}


def build_graphs(folded: Flow, dtype: torch.dtype, opset: int = DEFAULT_OPSET) -> Graphs:
    """Trace a folded flow in both directions, and the third graph of a continuous one.

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
    context: Shapes = {} if folded.context_shape is None else {"context": folded.context_shape}

    def traced(name: str, module: nn.Module, given: Shapes) -> onnx.ModelProto:
        graph = Graph(name, opset)
        return graph.model(trace(module, given | context, dtype, graph))

    data: Shapes = {"x": folded.event_shape}
    latent: Shapes = {"z": (folded.features,)}
    solves = is_continuous(chain)
    return Graphs(
        encode=traced("encode", _Encode(chain), data),
        decode=traced("decode", _Decode(chain), latent),
        generate=traced("generate", _Generate(chain), latent) if solves else None,
    )
