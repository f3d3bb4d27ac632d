"""The placement of models on GPUs: by size, where they do not fit beside each other on each.

How much a model takes is known once it serves; what is placed before is estimated from its weights.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from models.checkpoints.manifest import WEIGHTS_FILE
from service.engines.gpus import Gpu
from service.repository.folders import ModelLocation

_MIB = 2**20
# The weights as they were read and as they are folded.
_COPIES = 2
# Of a model: buffers of batches, graphs, and what libraries compute in.
_WORKSPACE_BYTES = 256 * _MIB
# Of a process: its context, and the code of libraries.
_PROCESS_BYTES = 1024 * _MIB
# The rest is left to others, and to what is lost between allocations.
_USABLE = 0.9

# A model's name and its version.
_Version = tuple[str, str]

_log = logging.getLogger(__name__)


def needed_bytes(folder: Path) -> int:
    """Estimate what a model takes on a GPU."""
    try:
        weights = (folder / WEIGHTS_FILE).stat().st_size
    except OSError:
        weights = 0  # whoever loads it says what is wrong
    return _COPIES * weights + _WORKSPACE_BYTES


def usable_bytes(gpu: Gpu) -> int:
    """What one process has for its models."""
    return int(_USABLE * gpu.memory_bytes) - _PROCESS_BYTES


def fits_on_each(needs: Iterable[int], gpus: Sequence[Gpu], processes_a_gpu: int = 1) -> bool:
    """Whether all models fit beside each other on every GPU, in so many processes on each."""
    total = sum(needs)
    least = min(gpu.memory_bytes for gpu in gpus)
    return processes_a_gpu * (total + _PROCESS_BYTES) <= _USABLE * least


@dataclass(slots=True)
class ModelPlacement:
    """Which GPU each version of a model is on; it stays where it was put.

    Args:
        gpus: of the process.
    """

    gpus: Sequence[Gpu]
    _devices: dict[_Version, Gpu] = field(default_factory=dict, init=False)
    _taken: dict[_Version, int] = field(default_factory=dict, init=False)

    def place(self, locations: Iterable[ModelLocation]) -> None:
        """Put models where most is free, the largest first."""
        by_size = sorted(locations, key=lambda one: needed_bytes(one.folder), reverse=True)
        for location in by_size:
            self.device_of(location)

    def device_of(self, location: ModelLocation) -> str:
        """The device of a version, which is put where most is free when it comes first."""
        need, version = needed_bytes(location.folder), (location.name, location.version)
        gpu = self._devices.get(version)
        if gpu is None:
            gpu = max(self.gpus, key=self._free)
            self._devices[version] = gpu
            if need > self._free(gpu):
                _log.warning(
                    "%s: takes about %d MiB, and %s has about %d MiB left beside the others",
                    location.name,
                    need // _MIB,
                    gpu.device,
                    max(0, self._free(gpu)) // _MIB,
                )
        self._taken[version] = need
        return gpu.device

    def keep(self, name: str, versions: Collection[str]) -> None:
        """Forget the versions of a model that are served no longer."""
        gone = [key for key in self._devices if key[0] == name and key[1] not in versions]
        for key in gone:
            del self._devices[key], self._taken[key]

    def _free(self, gpu: Gpu) -> int:
        taken = sum(self._taken.get(key, 0) for key, on in self._devices.items() if on == gpu)
        return usable_bytes(gpu) - taken
