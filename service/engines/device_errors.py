"""What the error of a device means: too little memory, a lost device, or a fault of these rows.

Libraries tell these apart by their texts alone, so this is a table of texts. What came of it is
always a fresh error: the one that a library raised leads, by its traceback, to every tensor of the
call that failed, and keeps their memory from the smaller batches that are tried next.
"""

import traceback

from service.engines.engine import EngineLost, EngineOutOfMemory
from service.engines.probe import DeviceProbe

# How allocators say that memory ran out, those inside the libraries of a device among them. In
# lower case, as below. This comes first: "CUDA error: out of memory" is no lost device.
ALLOCATION_PHRASES = (
    "out of memory",
    "out_of_memory",
    "can't allocate memory",
    "not enough memory",
    "unable to allocate",
    "failed to allocate memory",
    "bad_alloc",
    "alloc_failed",
    "allocation_failed",
    "errormemoryallocation",
    "is smaller than requested bytes",  # the arena of onnxruntime, at its limit
)
# How what computes on a device says that it failed. Which of it lasts, only the device can tell.
DEVICE_PHRASES = (
    "cuda error",
    "cuda driver error",
    "cuda failure",
    "cuda_error_",
    "cublas",
    "cudnn",
    "cufft",
    "cusolver",
    "cusparse",
    "nvrtc",
    "hip error",
    "hip failure",
    "miopen",
    "rocblas",
    "triton error",
    "device-side assert",
    "illegal memory access",
    "unspecified launch failure",
)
# A library that cannot even begin: for want of memory, where the device computes.
_HANDLE_PHRASE = "status_not_initialized"


def device_fault(
    error: BaseException, probe: DeviceProbe | None = None
) -> EngineOutOfMemory | EngineLost | None:
    """Tell what a smaller batch may mend, and what nothing can, from ordinary errors.

    Args:
        error: that an engine, or what makes one, raised.
        probe: of the device that it computes on; without one, what the text says is believed.

    Returns:
        A fresh error, which holds nothing of the call; None where it is an ordinary one.
    """
    if isinstance(error, EngineOutOfMemory | EngineLost):
        return type(error)(str(error))
    text = str(error)
    known = text.lower()
    if isinstance(error, MemoryError) or any(phrase in known for phrase in ALLOCATION_PHRASES):
        return EngineOutOfMemory(text)
    if not any(phrase in known for phrase in DEVICE_PHRASES):
        return None
    reason = text if probe is None else probe.ask()
    if reason:
        return EngineLost(reason)
    return EngineOutOfMemory(text) if _HANDLE_PHRASE in known else None


def release_frames(error: BaseException) -> None:
    """Let go of what the calls held that an error came through; its traceback stays readable."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
