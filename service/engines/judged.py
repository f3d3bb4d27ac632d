"""The functions of any engine on a device, whose errors are judged before a batcher sees them."""

from collections.abc import Callable
from typing import TypeVar

from service.contracts import Array, EngineOutput
from service.engines.device_errors import device_fault, release_frames
from service.engines.engine import PendingBatch
from service.engines.probe import PROBES, DeviceProbe, ProbeTable
from service.engines.torch_library import release_memory

_Result = TypeVar("_Result")
_Call = Callable[[Array, Array | None], _Result]


def judged_call(
    call: _Call[EngineOutput], device: str, probes: ProbeTable = PROBES
) -> _Call[EngineOutput]:
    """Have the errors of a function judged; on a CPU it stays as it is.

    Args:
        call: of an engine.
        device: that it computes on.
        probes: of the devices.
    """
    probe = probes.of(device)
    if probe is None:
        return call
    return lambda rows, context: _run(lambda: call(rows, context), probe)


def judged_start(
    start: _Call[PendingBatch] | None, device: str, probes: ProbeTable = PROBES
) -> _Call[PendingBatch] | None:
    """Have the errors of what begins a batch judged, and those of the batch; as `judged_call`."""
    probe = probes.of(device)
    if probe is None or start is None:
        return start
    return lambda rows, context: JudgedBatch(_run(lambda: start(rows, context), probe), probe)


class JudgedBatch:
    """A batch whose errors are judged; see `PendingBatch`."""

    def __init__(self, pending: PendingBatch, probe: DeviceProbe) -> None:
        self._pending: PendingBatch | None = pending
        self._probe = probe

    def finish(self) -> EngineOutput:
        """Wait for what was computed; nothing is kept of a batch that failed."""
        return _run(self._take().finish, self._probe)

    def _take(self) -> PendingBatch:
        pending, self._pending = self._pending, None
        if pending is None:
            raise RuntimeError("batch: expected it to be waited for once")
        return pending


def _run(call: Callable[[], _Result], probe: DeviceProbe) -> _Result:
    try:
        return call()
    except Exception as error:  # an engine may raise whatever its library does
        fault = device_fault(error, probe)
        if fault is None:
            raise
        release_frames(error)
    del call  # what it holds goes before memory is given back
    release_memory(probe.device)
    raise fault
