"""The memory of a GPU, and what of it a model took: read before and after it is loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """The memory of one GPU at a time, in bytes.

    total, free: of the card, whoever uses it. reserved: by torch in this process; allocated: what
    of that is in use.
    """

    total: int
    free: int
    reserved: int
    allocated: int


class MemoryReader(Protocol):
    """Reads the memory of one GPU.

    device: as engines call it in this process. card: what it is called by every process.
    """

    @property
    def device(self) -> str: ...

    @property
    def card(self) -> str: ...

    def read(self) -> GpuMemory:
        """Read it now.

        Raises:
            RuntimeError: the device is lost.
        """
        ...


MemoryOf = Callable[[str], MemoryReader | None]


class TorchMemoryReader:
    """Asks torch, which asks the driver for what belongs to the whole card."""

    def __init__(self, device: str) -> None:
        self.device = device

    @property
    def card(self) -> str:
        import torch

        return str(torch.cuda.get_device_properties(self.device).uuid)

    def read(self) -> GpuMemory:
        """Read it now."""
        import torch

        free, total = torch.cuda.mem_get_info(self.device)
        reserved = torch.cuda.memory_reserved(self.device)
        return GpuMemory(total, free, reserved, torch.cuda.memory_allocated(self.device))


def memory_of(device: str) -> MemoryReader | None:
    """The reader of a device; None of a CPU."""
    return TorchMemoryReader(device) if device.startswith("cuda") else None


def reading(reader: MemoryReader | None) -> GpuMemory | None:
    """Read where there is something to read; what a lost device says is for those who compute."""
    try:
        return None if reader is None else reader.read()
    except (AssertionError, RuntimeError):  # the first of a torch that is built without CUDA
        return None


def taken_bytes(before: GpuMemory, after: GpuMemory) -> int:
    """What was taken between two readings.

    The card has less free by what torch, its graphs and onnxruntime took; what torch had reserved
    before and uses now shows in what is allocated alone.
    """
    return max(0, before.free - after.free, after.allocated - before.allocated)
