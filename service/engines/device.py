"""Which device a setting means: torch is asked only where there may be a GPU."""

import ctypes
import sys
from functools import cache
from pathlib import Path

# The library of NVIDIA's driver, by platform, and what AMD's shows: without them there is no GPU
# that torch could use.
_CUDA_DRIVERS = {"win32": "nvcuda.dll"}
_CUDA_DRIVER = "libcuda.so.1"
_ROCM_DEVICE = Path("/dev/kfd")


def resolve_device(device: str) -> str:
    """Turn "auto" into the device there is, and check one that was named.

    Raises:
        ValueError: if the device is not there.
    """
    if device == "cpu" or (device == "auto" and not has_gpu_driver()):
        return "cpu"
    devices = _count_devices()
    if device == "auto":
        return "cuda:0" if devices else "cpu"
    index = int(device.partition(":")[2] or 0)
    if index >= devices:
        raise ValueError(f"expected one of {devices} CUDA devices, got {device}; cpu always works")
    return f"cuda:{index}"


@cache
def has_gpu_driver() -> bool:
    """Whether it is worth asking torch, which takes a second to import."""
    try:
        ctypes.CDLL(_CUDA_DRIVERS.get(sys.platform, _CUDA_DRIVER))
    except OSError:
        return _ROCM_DEVICE.exists()
    return True


def _count_devices() -> int:
    try:
        import torch
    except ModuleNotFoundError:
        return 0
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
