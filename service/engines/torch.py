"""The torch engine: a `models.Flow` behind arrays."""

from typing import Protocol

import torch
from torch import Tensor

from models.flow import Flow
from models.ode.call import SolveCall, SolveReport, join_reports
from models.ode.transform import is_continuous
from models.transforms.transform import counts_evaluations
from service.contracts import Array, EngineOutput, SolverStats
from service.engines.device_errors import device_fault, release_frames
from service.engines.probe import PROBES, DeviceProbe
from service.engines.selection import EngineConfig, EngineSelection
from service.engines.torch_library import release_memory


class _FlowCall(Protocol):
    """`Flow.encode` or `Flow.decode`."""

    def __call__(
        self, value: Tensor, context: Tensor | None, /, *, call: SolveCall | None
    ) -> tuple[Tensor, Tensor]: ...


def make_engine(config: EngineConfig) -> EngineSelection:
    """Serve the flow as it is; see `service.engines.selection.MakeEngine`."""
    # The solver takes rows that are done out of its batch: the sizes of its matrices, and with them
    # last bits, depend on neighbours in batches of a fixed size too. On a GPU libraries choose how
    # the parts of a batch are summed, and promise nothing of its places.
    is_invariant = not is_continuous(config.flow) and config.flow.device.type == "cpu"
    probe = PROBES.of(str(config.flow.device))
    return EngineSelection(
        TorchEngine(config.flow, probe=probe), is_neighbour_invariant=is_invariant
    )


class TorchEngine:
    """Runs a flow in evaluation mode, where it lies and in the dtype it has.

    Args:
        flow: computes.
        name: of the engine.
        probe: of the device; None on a CPU.
    """

    def __init__(
        self, flow: Flow, name: str = "torch", *, probe: DeviceProbe | None = None
    ) -> None:
        self.name = name
        self._probe = probe
        self._flow = flow.eval()
        self._device = flow.device
        self._counts = counts_evaluations(flow)

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def dtype(self) -> str:
        return str(self._flow.dtype).removeprefix("torch.")

    def encode(self, x: Array, context: Array | None) -> EngineOutput:
        return self._run(self._flow.encode, x, context)

    def decode(self, z: Array, context: Array | None) -> EngineOutput:
        return self._run(self._flow.decode, z, context)

    def generate(self, z: Array, context: Array | None) -> EngineOutput:
        return self._run(self._flow.decode, z, context, wants_log_det=False)

    def _run(
        self, step: _FlowCall, rows: Array, context: Array | None, *, wants_log_det: bool = True
    ) -> EngineOutput:
        try:
            return self._compute(step, rows, context, wants_log_det=wants_log_det)
        except (RuntimeError, MemoryError) as error:
            fault = device_fault(error, self._probe)
            if fault is None:
                raise
            release_frames(error)
        # Out of the clause: the error is gone, and with it what its frames held.
        release_memory(self.device)
        raise fault

    def _compute(
        self, step: _FlowCall, rows: Array, context: Array | None, *, wants_log_det: bool
    ) -> EngineOutput:
        call = SolveCall(wants_log_det=wants_log_det)
        with torch.inference_mode():
            given = torch.from_numpy(rows)
            condition = None if context is None else torch.from_numpy(context).to(self._device)
            value, log_det = step(given.to(self._device), condition, call=call)
            if not wants_log_det:
                log_det = torch.zeros_like(log_det)
            if not self._counts:
                return _own_array(value, given), _own_array(log_det, given)
            stats = _solver_stats(join_reports(call.reports))
            return _own_array(value, given), _own_array(log_det, given), stats


def _solver_stats(report: SolveReport | None) -> SolverStats:
    if report is None:
        raise RuntimeError("flow: expected its transforms to report")
    columns = (report.status, report.evaluations, report.log_det_error)
    return SolverStats(*(column.cpu().numpy() for column in columns))


def _own_array(value: Tensor, given: Tensor) -> Array:
    """Make a result an array that shares no memory with what was given."""
    value = value.cpu().contiguous()
    if value.untyped_storage().data_ptr() == given.untyped_storage().data_ptr():
        value = value.clone()
    return value.numpy()
