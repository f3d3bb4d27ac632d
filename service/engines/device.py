"""Which device a setting means: torch is asked only where there may be a GPU."""

import ctypes
import os
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

# The library of NVIDIA's driver, by platform, and what AMD's shows: without them there is no GPU
# that torch could use.
CUDA_DRIVERS = {"win32": "nvcuda.dll"}
CUDA_DRIVER = "libcuda.so.1"
_ROCM_DEVICE = Path("/dev/kfd")


def resolve_device(device: str) -> str:
    """Turn "auto" into the device there is, and check those that were named: the first computes.

    Raises:
        ValueError: if a device is not there.
    """
    if device == "cpu" or (device == "auto" and not has_gpu_driver()):
        return "cpu"
    devices, reason = _find_devices()
    if device == "auto":
        return "cuda:0" if devices else "cpu"
    indices = [int(index) for index in (device.partition(":")[2] or "0").split(",")]
    if max(indices) >= devices:
        why = f" ({reason})" * bool(reason)
        raise ValueError(
            f"expected one of {devices} CUDA devices, got {device}{why}; cpu always works"
        )
    return f"cuda:{indices[0]}"


def why_cpu() -> str:
    """Say why "auto" means the CPU; empty where it means a GPU."""
    if not has_gpu_driver():
        return f"no GPU driver is installed ({CUDA_DRIVERS.get(sys.platform, CUDA_DRIVER)})"
    return _find_devices()[1]


@cache
def has_gpu_driver() -> bool:
    """Whether it is worth asking torch, which takes a second to import."""
    try:
        ctypes.CDLL(CUDA_DRIVERS.get(sys.platform, CUDA_DRIVER))
    except OSError:
        return _ROCM_DEVICE.exists()
    return True


def is_torch_for_gpus() -> bool:
    """Whether torch is there, and is no build for CPUs; whether there is a GPU is not asked."""
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return bool(torch.version.cuda or getattr(torch.version, "hip", None))


def count_devices(torch: Any, environ: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """Count the devices that torch can use.

    Args:
        torch: the module.
        environ: where the devices may be hidden.

    Returns:
        Their number, and why there is none.
    """
    with warnings.catch_warnings(record=True) as said:  # of a driver that is too old, say
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count:
        return count, ""
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return 0, f"torch {torch.__version__} is built without CUDA"
    if said:
        return 0, str(said[0].message).partition("\n")[0]
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    shown = "" if hidden is None else f" with CUDA_VISIBLE_DEVICES={hidden!r}"
    return 0, f"torch finds no device{shown}"


def _find_devices() -> tuple[int, str]:
    try:
        import torch
    except ModuleNotFoundError:
        return 0, "torch is not installed"
    return count_devices(torch)
