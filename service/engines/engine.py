"""The one interface every engine implements, and how it says that its device failed."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from service.contracts import Array, EngineOutput

Operation = Literal["encode", "decode", "generate"]


class EngineOutOfMemory(RuntimeError):
    """The batch did not fit into the device's memory; a smaller one may."""


class EngineLost(RuntimeError):
    """The device is in a state it cannot leave; only a new process can help."""


class Engine(Protocol):
    """Deterministic functions of arrays; every row's result depends on that row alone.

    Continuous flows also give how each row's equation was solved: a row that could not be is NaN.

    On a CPU they are called by several threads at once (`instances`), each of which computes its
    batch on `EngineConfig.threads` threads, and gets the bits that it would get alone. An engine
    may not keep or change the arrays it is given, and never touches again what it has returned.
    """

    @property
    def name(self) -> str:
        """What users call it: "torch", "onnx"."""
        ...

    @property
    def device(self) -> str:
        """Where it really computes: "cpu", "cuda:0"."""
        ...

    @property
    def dtype(self) -> str:
        """What it computes in and takes: "float32", "float64"."""
        ...

    def encode(self, x: Array, context: Array | None) -> EngineOutput:
        """Map data to latents.

        Returns:
            z (B, D) of x (B, *event_shape), and log_det (B,) in nats.

        Raises:
            EngineOutOfMemory: a smaller batch may pass.
            EngineLost: the engine will never work again.
        """
        ...

    def decode(self, z: Array, context: Array | None) -> EngineOutput:
        """Map latents to data.

        Returns:
            x (B, *event_shape) of z (B, D), and log_det (B,) in nats.

        Raises:
            EngineOutOfMemory: a smaller batch may pass.
            EngineLost: the engine will never work again.
        """
        ...

    def generate(self, z: Array, context: Array | None) -> EngineOutput:
        """Map latents to data alone: as `decode`, with zeros for what it leaves out, the log_det.

        Continuous flows only: there it saves most of the work.
        """
        ...


class PendingBatch(Protocol):
    """A batch that a device computes while the processor goes on."""

    def finish(self) -> EngineOutput:
        """Wait for it; called once, by the thread that started it.

        Raises:
            EngineOutOfMemory, EngineLost: as the engine's functions do.
        """
        ...


@dataclass(frozen=True, slots=True)
class ComputedBatch:
    """A batch that was computed at once; see `PendingBatch`."""

    output: EngineOutput

    def finish(self) -> EngineOutput:
        """Give what was computed."""
        return self.output


@runtime_checkable
class PipelinedEngine(Engine, Protocol):
    """An engine whose next batch is assembled while one computes.

    An engine without `start` computes at once: its functions give what was computed. One with it
    has at most two batches of one operation pending a thread, and is asked by one thread an
    operation.
    """

    def start(self, operation: Operation, rows: Array, context: Array | None) -> PendingBatch:
        """Begin to compute a batch; the arrays may be changed as soon as it returns.

        Raises:
            EngineOutOfMemory, EngineLost: as the engine's functions do.
        """
        ...
