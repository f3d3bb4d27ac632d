"""The GPUs that a process may use, asked of NVIDIA's driver: torch takes a second to import.

The driver is only asked how many there are and how large: no memory is taken on any of them.
"""

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol

from service.engines.device import CUDA_DRIVER, CUDA_DRIVERS, has_gpu_driver

# Names the GPUs that a process sees, and in which order; inherited by the processes it starts.
VISIBLE = "CUDA_VISIBLE_DEVICES"

_SUCCESS = 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that this process sees.

    index: N of "cuda:N". visible: what `VISIBLE` calls it. memory_bytes: all that it has.
    """

    index: int
    visible: str
    memory_bytes: int

    @property
    def device(self) -> str:
        """As engines call it here."""
        return f"cuda:{self.index}"


class GpuDriver(Protocol):
    """What is asked of a driver."""

    def memory(self) -> Sequence[int]:
        """The memory of each GPU in bytes, in the order of their indices."""
        ...


class CudaDriver:
    """NVIDIA's driver."""

    def memory(self) -> Sequence[int]:
        """The memory of each GPU in bytes; nothing where there is no driver, or no GPU."""
        try:
            library = ctypes.CDLL(CUDA_DRIVERS.get(sys.platform, CUDA_DRIVER))
            return list(_memory(library))
        except (OSError, AttributeError):
            return ()


def _memory(library: ctypes.CDLL) -> Iterator[int]:
    count, device, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    if library.cuInit(0) != _SUCCESS or library.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
        return
    for index in range(count.value):
        library.cuDeviceGet(ctypes.byref(device), index)
        library.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        yield size.value


def find_gpus(
    driver: GpuDriver | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Gpu, ...]:
    """Find the GPUs that this process sees.

    Args:
        driver: is asked; NVIDIA's, where it is left out.
        environ: the variables of this process.
    """
    memory = (driver or CudaDriver()).memory()
    named = [part.strip() for part in environ.get(VISIBLE, "").split(",") if part.strip()]
    names = named if len(named) >= len(memory) else [str(index) for index in range(len(memory))]
    return tuple(Gpu(index, names[index], size) for index, size in enumerate(memory))


def usable_gpus() -> tuple[Gpu, ...]:
    """The GPUs that this process sees, where torch is there and not a build for CPUs."""
    if not has_gpu_driver():
        return ()
    try:
        is_for_cpus = metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return ()
    return () if is_for_cpus else find_gpus()


def chosen_gpus(device: str, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The GPUs that the setting `device` means: all of them, those that it names, or none.

    Raises:
        ValueError: one that it names is not there, or is named twice.
    """
    kind, _, numbers = device.partition(":")
    if kind == "cpu":
        return ()
    if not numbers:
        return tuple(gpus)
    indices = [int(number) for number in numbers.split(",")]
    if len(set(indices)) < len(indices):
        raise ValueError(f"expected each device once, got {device}")
    missing = [index for index in indices if index >= len(gpus)]
    if missing:
        raise ValueError(f"expected some of {len(gpus)} CUDA devices, got {device}")
    return tuple(gpus[index] for index in indices)
