"""The graphs engine: the folded flow in CUDA graphs, proved when the model is loaded."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from models.flow import Flow
from models.ode.transform import is_continuous
from models.onnx.replay import ReplayRows
from models.transforms.transform import counts_evaluations
from service.contracts import Array, EngineOutput
from service.engines.cuda.buckets import candidate_sizes, choose_sizes
from service.engines.cuda.buffers import RowShapes
from service.engines.cuda.capture import CaptureFailed
from service.engines.cuda.graphed import (
    BATCHES_A_SIZE,
    CapturedBatch,
    GraphedBatch,
    GraphedFunction,
)
from service.engines.cuda.proof import ProofFailed, prove
from service.engines.cuda.runtime import CudaRuntime, TorchCudaRuntime
from service.engines.cuda.solved import SolvedBatch
from service.engines.engine import ComputedBatch, Engine, Operation, PendingBatch
from service.engines.precision import fold_in_precision
from service.engines.probe import PROBES
from service.engines.selection import EngineConfig, EngineSelection, EngineUnavailable
from service.engines.torch import TorchEngine

# Replays that are timed: the least of them counts.
_TIMED_REPLAYS = 5

TimeReplay = Callable[[CapturedBatch], float]

_log = logging.getLogger(__name__)


def make_engine(config: EngineConfig) -> EngineSelection:
    """Capture the folded flow; see `service.engines.selection.MakeEngine`."""
    device = config.flow.device
    if device.type != "cuda":
        raise EngineUnavailable(
            f"CUDA graphs are for CUDA devices, and the model is on {device}: choose device cuda, "
            "or another engine"
        )
    flow, precision = fold_in_precision(config)
    selection = capture_flow(flow, config, "graphs", TorchCudaRuntime(device))
    return replace(selection, precision=precision)


def capture_flow(
    flow: Flow,
    config: EngineConfig,
    name: str,
    runtime: CudaRuntime,
    *,
    time_replay: TimeReplay | None = None,
) -> EngineSelection:
    """Capture both directions of a flow at a few batch sizes, and prove them.

    A direction that cannot be captured, or that fails its proof, is computed without graphs.

    Args:
        flow: what is captured, where it computes: another form of the model's flow.
        config: of the engine.
        name: of the engine.
        runtime: of the device.
        time_replay: gives the seconds of a batch.

    Raises:
        EngineUnavailable: engines are compared, and neither direction can be captured.
        torch.OutOfMemoryError: the device has no memory for a single row.
    """
    eager = TorchEngine(flow, name=name, probe=PROBES.of(str(flow.device)))
    rows = ReplayRows.of(
        {key: tensor.numpy() for key, tensor in config.checkpoint.record.items()}, eager.dtype
    )
    capturing = _Capturing(flow, rows, runtime, config.max_rows, time_replay or best_seconds)
    functions: dict[Operation, GraphedFunction] = {}
    facts: dict[str, Any] = {}
    for operation in capturing.operations:
        try:
            functions[operation] = capturing.capture(operation)
            facts[operation] = {"batch_sizes": list(functions[operation].sizes)}
        except (CaptureFailed, ProofFailed) as error:
            _log.warning(
                "%s: %s is not captured: %s", config.checkpoint.folder.name, operation, error
            )
            facts[operation] = {"uncaptured": str(error)}
    if not functions and config.row_seconds is not None:
        raise EngineUnavailable(
            "; ".join(f"{key}: {one['uncaptured']}" for key, one in facts.items())
        )
    most = min((function.sizes[-1] for function in functions.values()), default=0)
    sizes = sorted({size for function in functions.values() for size in function.sizes})
    return EngineSelection(
        GraphsEngine(eager, functions),
        comparison={"graphs": facts},
        # Beyond, a direction has no memory.
        batch_sizes=tuple(size for size in sizes if size <= most),
        # Of what is not captured, nothing is proved.
        is_neighbour_invariant=len(functions) == len(capturing.operations),
    )


class GraphsEngine:
    """Functions of a flow as captured graphs; see `PipelinedEngine`.

    Args:
        eager: computes what is not captured.
        functions: by operation.
    """

    def __init__(self, eager: Engine, functions: Mapping[Operation, GraphedFunction]) -> None:
        self.name = eager.name
        self._eager = eager
        self._functions = dict(functions)

    @property
    def device(self) -> str:
        return self._eager.device

    @property
    def dtype(self) -> str:
        return self._eager.dtype

    def start(self, operation: Operation, rows: Array, context: Array | None) -> PendingBatch:
        function = self._functions.get(operation)
        if function is not None:
            return function.start(rows, context)
        compute = {
            "encode": self._eager.encode,
            "decode": self._eager.decode,
            "generate": self._eager.generate,
        }[operation]
        return ComputedBatch(compute(rows, context))

    def encode(self, x: Array, context: Array | None) -> EngineOutput:
        return self.start("encode", x, context).finish()

    def decode(self, z: Array, context: Array | None) -> EngineOutput:
        return self.start("decode", z, context).finish()

    def generate(self, z: Array, context: Array | None) -> EngineOutput:
        return self.start("generate", z, context).finish()


@dataclass(frozen=True, slots=True)
class _Capturing:
    """What the capture of both directions has in common."""

    flow: Flow
    rows: ReplayRows
    runtime: CudaRuntime
    max_rows: int
    time_replay: TimeReplay

    @property
    def searches(self) -> bool:
        """Whether values say how often a part of the flow is computed."""
        return counts_evaluations(self.flow)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What is captured: to leave the log-dets out is cheaper for continuous flows alone."""
        return (
            ("encode", "decode", "generate") if is_continuous(self.flow) else ("encode", "decode")
        )

    def capture(self, operation: Operation) -> GraphedFunction:
        """Capture a direction at the sizes that pay, the largest first, and prove each batch."""
        make, golden = self._direction(operation)
        measured = self._measure(make, golden)
        if not measured:
            raise torch.OutOfMemoryError("no memory for a captured batch of a single row")
        sizes = choose_sizes({size: seconds for size, (_, seconds) in measured.items()})
        batches: list[CapturedBatch] = []
        for size in reversed(sizes):
            try:
                more = [make(size) for _ in range(BATCHES_A_SIZE - 1)]
            except torch.OutOfMemoryError as error:
                _log.warning("no memory for two captured batches of %d rows: %s", size, error)
                continue
            batches += [measured[size][0], *more]
        if not batches:
            raise torch.OutOfMemoryError("no memory for two captured batches of a single row")
        for batch in batches:
            prove(batch, golden, self.rows.context)
        return GraphedFunction(batches, PROBES.of(str(self.flow.device)))

    def _direction(self, operation: Operation) -> tuple[Callable[[int], CapturedBatch], Array]:
        """What makes a batch of some size, and the golden rows for it."""
        flow = self.flow
        takes, gives = flow.event_shape, (flow.features,)
        if operation != "encode":
            takes, gives = gives, takes
        shapes = RowShapes(takes, gives, flow.context_shape, flow.dtype)
        golden = self.rows.x if operation == "encode" else self.rows.z
        function = flow.encode if operation == "encode" else flow.decode

        def make(size: int) -> CapturedBatch:
            if not self.searches:
                return GraphedBatch(function, shapes, size, self.runtime)
            wants_log_det = operation != "generate"
            return SolvedBatch(function, shapes, size, self.runtime, wants_log_det=wants_log_det)

        return make, golden

    def _measure(
        self, make: Callable[[int], CapturedBatch], golden: Array
    ) -> dict[int, tuple[CapturedBatch, float]]:
        """Capture all candidate sizes that the device has memory for, and time them."""
        measured = {}
        for size in candidate_sizes(self.max_rows):
            try:
                batch = make(size)
            except torch.OutOfMemoryError as error:
                _log.warning("no memory for a captured batch of %d rows: %s", size, error)
                continue
            taken = np.arange(size) % len(golden)
            context = None if self.rows.context is None else self.rows.context[taken]
            batch.buffers.write(golden[taken], context)
            measured[size] = batch, self.time_replay(batch)
        return measured


def best_seconds(batch: CapturedBatch) -> float:
    """The least time of a replay, from its launch until it is computed."""
    batch.replay().synchronize()
    least = float("inf")
    for _ in range(_TIMED_REPLAYS):
        began = time.perf_counter()
        batch.replay().synchronize()
        least = min(least, time.perf_counter() - began)
    return least
