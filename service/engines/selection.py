"""What an engine is made of, and what making one gives."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from service.engines.engine import Engine
from service.engines.registry import FLOAT32

if TYPE_CHECKING:
    import torch

    from models.checkpoints.folder import Checkpoint
    from models.flow import Flow


class EngineUnavailable(RuntimeError):
    """An engine cannot serve this model; the message says why."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What an engine is made of.

    threads: of one call, where the engine has threads of its own. max_rows: the largest batch.
    row_seconds: where engines are compared, what the first of them takes for a row: one that takes
        long to make for such a model refuses. None where this engine was asked for.
    precision: of networks, one of `PRECISIONS`.
    """

    checkpoint: "Checkpoint"
    threads: int
    max_rows: int
    row_seconds: float | None = None
    precision: str = FLOAT32

    @property
    def flow(self) -> "Flow":
        """The model's, where it will compute."""
        return self.checkpoint.flow


@dataclass(frozen=True, slots=True)
class EngineSelection:
    """An engine, and what is known of it.

    certificate: of an engine's graphs, empty where it has none.
    comparison: where engines were compared, the seconds a call of each, and why one was left out;
        of an engine in CUDA graphs, what was captured; of onnx on a device, what a CPU computes.
    batch_sizes: of an engine that computes batches of a few sizes alone, these.
    precision: of another precision than float32, what was measured; else empty.
    is_batch_invariant: whether a row has the same bits in every batch.
    is_neighbour_invariant: whether it has in every batch of one fixed size.
    """

    engine: Engine
    certificate: dict[str, Any] = field(default_factory=dict)
    comparison: dict[str, Any] = field(default_factory=dict)
    batch_sizes: tuple[int, ...] = ()
    precision: dict[str, Any] = field(default_factory=dict)
    is_batch_invariant: bool = False
    is_neighbour_invariant: bool = True


class MakeEngine(Protocol):
    """How every engine's module makes one; `service.engines.registry` lists them."""

    def __call__(self, config: EngineConfig) -> EngineSelection:
        """Make an engine.

        Raises:
            EngineUnavailable, ValueError, RuntimeError: it cannot serve this model; says why.
        """
        ...


def dtype_name(dtype: "torch.dtype") -> str:
    """Name a dtype as numpy and the wire do."""
    return str(dtype).removeprefix("torch.")
