"""The flow of a model in torch, which is imported when it is first asked for.

A model that its graphs serve alone has none of this in memory until then: the folder is read and
proved as a server with torch reads it.
"""

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from models.checkpoints.errors import CheckpointError
from models.checkpoints.manifest import WEIGHTS_FILE, digest
from models.extras import install_command
from service.engines.device_errors import device_fault, release_frames
from service.engines.probe import PROBES
from service.engines.torch_library import import_torch, release_memory

if TYPE_CHECKING:
    from models.flow import Flow

Computed = TypeVar("Computed")


class FlowUnavailable(RuntimeError):
    """There is no flow in torch of this model; the message says why."""


class FlowOnDemand:
    """A copy of its own of a served flow, in evaluation mode, in the engine's place and dtype.

    Args:
        folder: of the model.
        weights: SHA-256 of the weights that are served.
        dtype: that the model is served in.
        device: where it is computed.
        threads: of one call of torch.
    """

    def __init__(
        self, folder: Path, *, weights: str, dtype: str, device: str, threads: int
    ) -> None:
        self.device = device
        self._folder = folder
        self._weights = weights
        self._dtype = dtype
        self._threads = threads
        self._flow: Flow | None = None
        self._lock = threading.Lock()
        self._refusal = ""

    def refusal(self, wanted: str) -> str:
        """Why there is none, as far as is known without reading the model; else empty.

        Args:
            wanted: what is to be computed with it.
        """
        if self._refusal or self._flow is not None:
            return self._refusal
        if importlib.util.find_spec("torch") is None:
            return f"the server has no torch, which computes {wanted}: {install_command('cpu')}"
        if not (self._folder / WEIGHTS_FILE).is_file():
            return f"the model's folder has no {WEIGHTS_FILE}: it is served by its graphs alone"
        return ""

    def run(self, compute: Callable[["Flow"], Computed]) -> Computed:
        """Compute with the flow, from any thread.

        Raises:
            FlowUnavailable: the folder cannot be read any more, or not with torch.
            EngineOutOfMemory: a smaller batch may pass.
            EngineLost: the device will never work again.
        """
        try:
            return compute(self._load())
        except FlowUnavailable:
            raise
        except (RuntimeError, MemoryError) as error:
            fault = device_fault(error, PROBES.of(self.device))
            if fault is None:
                raise
            release_frames(error)
        release_memory(self.device)
        raise fault

    def _load(self) -> "Flow":
        with self._lock:
            if self._flow is None:
                self._flow = self._read()
            return self._flow

    def _read(self) -> "Flow":
        if self._refusal:
            raise FlowUnavailable(self._refusal)
        try:
            import_torch(self._threads)
            from models.checkpoints.loading import DTYPES, load_checkpoint

            if digest(self._folder) != self._weights:
                raise CheckpointError(
                    f"{self._folder / WEIGHTS_FILE}: other weights than are served"
                )
            dtype = DTYPES[self._dtype]
            flow = load_checkpoint(self._folder, dtype=dtype, device=self.device).flow
        except (CheckpointError, ImportError, OSError) as error:
            self._refusal = f"torch does not read the model: {error}"
            raise FlowUnavailable(self._refusal) from error
        return flow.requires_grad_(False)
