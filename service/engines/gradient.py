"""The gradient of log p with respect to the pixels, by torch, which is imported when first asked.

A model that its graphs serve alone has none of this in memory until somebody asks for a heat map:
the folder is then read and proved as a server with torch reads it.
"""

import importlib.util
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from models.checkpoints.errors import CheckpointError
from models.checkpoints.manifest import WEIGHTS_FILE, digest
from models.extras import install_command
from service.contracts import Array
from service.engines.device_errors import device_fault, release_frames
from service.engines.probe import PROBES
from service.engines.torch_library import import_torch, release_memory

if TYPE_CHECKING:
    from models.flow import Flow


class GradientUnavailable(RuntimeError):
    """There is no gradient of this model; the message says why."""


class PixelGradient:
    """d log p / d x of the rows of one model, in nats per unit of x.

    The flow is a copy of its own, in evaluation mode, where the engine computes and in its dtype.

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
        self._folder = folder
        self._weights = weights
        self._dtype = dtype
        self._device = device
        self._threads = threads
        self._flow: Flow | None = None
        self._lock = threading.Lock()
        self._refusal = ""

    @property
    def refusal(self) -> str:
        """Why there is none, as far as is known without reading the model; else empty."""
        if self._refusal or self._flow is not None:
            return self._refusal
        if importlib.util.find_spec("torch") is None:
            return f"the server has no torch, which computes gradients: {install_command('cpu')}"
        if not (self._folder / WEIGHTS_FILE).is_file():
            return f"the model's folder has no {WEIGHTS_FILE}: it is served by its graphs alone"
        return ""

    def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        """Compute the gradient of each row: (B, *event_shape), and its log p (B,).

        Continuous flows are solved row by row as for any answer, and differentiated through.

        Raises:
            GradientUnavailable: the folder cannot be read any more, or not with torch.
            EngineOutOfMemory: a smaller batch may pass.
            EngineLost: the device will never work again.
        """
        try:
            return self._compute(self._load(), x, context)
        except GradientUnavailable:
            raise
        except (RuntimeError, MemoryError) as error:
            fault = device_fault(error, PROBES.of(self._device))
            if fault is None:
                raise
            release_frames(error)
        release_memory(self._device)
        raise fault

    def _compute(self, flow: "Flow", x: Array, context: Array | None) -> tuple[Array, Array]:
        import torch

        from models.noise import base_log_prob_torch

        with torch.enable_grad():
            rows = torch.from_numpy(x).to(self._device).requires_grad_(True)
            condition = None if context is None else torch.from_numpy(context).to(self._device)
            z, log_det = flow.encode(rows, condition)
            log_prob = base_log_prob_torch(z) + log_det
            # Rows do not see each other: the gradient of the sum holds that of each row.
            (gradient,) = torch.autograd.grad(log_prob.sum(), rows)
        return gradient.cpu().numpy(), log_prob.detach().cpu().numpy()

    def _load(self) -> "Flow":
        with self._lock:
            if self._flow is None:
                self._flow = self._read()
            return self._flow

    def _read(self) -> "Flow":
        if self._refusal:
            raise GradientUnavailable(self._refusal)
        try:
            import_torch(self._threads)
            from models.checkpoints.loading import DTYPES, load_checkpoint

            if digest(self._folder) != self._weights:
                raise CheckpointError(
                    f"{self._folder / WEIGHTS_FILE}: other weights than are served"
                )
            dtype = DTYPES[self._dtype]
            flow = load_checkpoint(self._folder, dtype=dtype, device=self._device).flow
        except (CheckpointError, ImportError, OSError) as error:
            self._refusal = f"torch does not read the model: {error}"
            raise GradientUnavailable(self._refusal) from error
        return flow.requires_grad_(False)
