"""A batch that the engine computes while the next one is assembled."""

from dataclasses import dataclass

from service.batcher.entry import EntrySlice
from service.contracts import EngineOutput
from service.engines.engine import PendingBatch


@dataclass(slots=True)
class StartedBatch:
    """A batch that the engine computes, or failed to begin.

    group: its parts. count: rows of these. rows: the same with padding. began: when it was started.
    """

    group: list[EntrySlice]
    count: int
    rows: int
    began: float
    pending: PendingBatch | None = None
    error: Exception | None = None

    def finish(self) -> EngineOutput:
        """Wait for what was computed, once; raise what the engine raises.

        Nothing is kept of a batch that failed: its parts are tried again, and need the memory.
        """
        pending, self.pending = self.pending, None
        error, self.error = self.error, None
        if pending is None:
            raise error or RuntimeError("batch: expected it to be started")
        return pending.finish()
