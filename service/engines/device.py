"""Which device a setting means: torch is asked only where there may be a GPU."""

import ctypes
import sys

# The libraries of the driver, without which no CUDA device can be used, by platform.
_DRIVERS = {"win32": "nvcuda.dll"}
_DRIVER = "libcuda.so.1"


def resolve_device(device: str) -> str:
    """Turn "auto" into the device there is, and check one that was named.

    Raises:
        ValueError: if the device is not there.
    """
    if device == "cpu" or (device == "auto" and not _may_have_cuda()):
        return "cpu"
    devices = _count_devices()
    if device == "auto":
        return "cuda:0" if devices else "cpu"
    index = int(device.partition(":")[2] or 0)
    if index >= devices:
        raise ValueError(f"expected one of {devices} CUDA devices, got {device}; cpu always works")
    return f"cuda:{index}"


def _may_have_cuda() -> bool:
    """Whether it is worth asking torch, which takes a second to import."""
    if "torch" in sys.modules:
        return True
    try:
        ctypes.CDLL(_DRIVERS.get(sys.platform, _DRIVER))
    except OSError:
        return False
    return True


def _count_devices() -> int:
    try:
        import torch
    except ModuleNotFoundError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
