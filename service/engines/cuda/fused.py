"""The fused engine: the folded flow with whole couplings and solves as kernels, in CUDA graphs."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from models.flow import Flow
from models.fold import fold
from service.engines.cuda.graphs import capture_flow
from service.engines.cuda.runtime import TorchCudaRuntime
from service.engines.device_errors import device_fault
from service.engines.precision import PrecisionRefused, certify
from service.engines.probe import PROBES
from service.engines.registry import FLOAT32
from service.engines.selection import EngineConfig, EngineSelection, EngineUnavailable

# What the kernels call the precisions that they can compute in.
_OF_KERNELS = {FLOAT32: "ieee", "tf32": "tf32", "tf32x3": "tf32x3"}


def make_engine(config: EngineConfig) -> EngineSelection:
    """Fuse the folded flow; see `service.engines.selection.MakeEngine`."""
    device = config.flow.device
    if device.type != "cuda":
        raise EngineUnavailable(
            f"kernels are for CUDA devices, and the model is on {device}: choose device cuda, or "
            "another engine"
        )
    if find_spec("triton") is None:
        raise EngineUnavailable(
            "kernels are made by Triton, which is not installed: torch's builds for CUDA bring it"
        )
    flow, precision = fuse_flow(config)
    selection = capture_flow(flow, config, "fused", TorchCudaRuntime(device))
    # Kernels give a row its bits in every batch; what surrounds them may not.
    return replace(selection, precision=precision)


def fuse_flow(config: EngineConfig) -> tuple[Flow, dict[str, Any]]:
    """Put kernels in the place of what has some, and hold them to the model's own numbers.

    Returns:
        The flow, and the certificate of a precision for the card; empty for float32.

    Raises:
        EngineUnavailable: nothing of it has a kernel, or the kernels are off or cannot be made.
        EngineOutOfMemory, EngineLost: the device is at fault.
    """
    from models.kernels.fuse import fuse
    from models.kernels.refusal import NotFused

    if config.precision not in _OF_KERNELS:
        raise PrecisionRefused(
            f"precision {config.precision}: kernels compute in {', '.join(_OF_KERNELS)}"
        )
    try:
        flow = fuse(fold(config.flow), precision=_OF_KERNELS[config.precision])
    except NotFused as error:
        raise EngineUnavailable(f"no kernel: {error}") from None
    try:
        certificate = certify(flow, config)
    except EngineUnavailable:
        raise
    except Exception as error:  # no compiler, one that fails, or one that Triton does not know
        fault = device_fault(error, PROBES.of(str(config.flow.device)))
        if fault is None:
            reason = str(error) or type(error).__name__
            raise EngineUnavailable(f"its kernels cannot be compiled: {reason}") from error
        raise fault from None
    return flow, {} if config.precision == FLOAT32 else certificate.describe()
