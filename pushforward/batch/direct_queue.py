"""Rows of one model that the thread that brings them computes itself: nobody waits beside them."""

import asyncio
import logging
import threading
import time
from dataclasses import replace

from service.batcher.batcher import Batcher
from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.executor import BatchExecutor
from service.contracts import (
    Array,
    InferenceResult,
    QueueHandle,
    QueueShare,
    ReplySink,
    ServedModel,
)
from service.engines.engine import EngineLost
from service.errors import EngineError

_logger = logging.getLogger(__name__)


class DirectQueue:
    """A `RowQueue` that computes rows at once, in batches as those of a batcher.

    No batch is joined of several requests, and none is handed to another thread: of a file of rows
    every batch is full as it is. Each thread that comes has memory for a batch of its own.

    Args:
        batcher: whose engine function and limits it has.
    """

    def __init__(self, batcher: Batcher) -> None:
        self._make_executor = batcher.make_executor
        self._of_thread = threading.local()

    @property
    def max_coalesced_rows(self) -> int:
        """Requests are not joined."""
        return 1

    def check(self, rows: int, deadline: float, share: QueueShare | None = None) -> None:
        """Take any number of rows."""

    def compute_now(
        self, rows: Array, context: Array | None, deadline: float, *, requests: int = 1
    ) -> InferenceResult | None:
        """Leave all rows to `enqueue`."""
        return None

    def enqueue(
        self,
        rows: Array,
        context: Array | None,
        deadline: float,
        sink: ReplySink,
        *,
        requests: int = 1,
        is_accepted: bool = False,
        share: QueueShare | None = None,
    ) -> QueueHandle:
        """Compute rows; see `service.contracts.RowQueue`.

        Raises:
            EngineError: the engine failed on them, or was lost.
        """
        entry = QueueEntry(
            rows, context, deadline=deadline, arrived=time.monotonic(), sink=sink, owner=self
        )
        executor = self._executor()
        for start in range(0, entry.total, executor.max_rows):
            part = EntrySlice(entry, start, min(start + executor.max_rows, entry.total))
            try:
                _, result = executor.run([part])
            except EngineLost:
                raise EngineError("the engine was lost") from None
            if result.first_error is not None:
                _logger.error("engine error", exc_info=result.first_error)
        if entry.error is not None:
            raise entry.error
        asyncio.get_running_loop().call_soon(sink.set_result, entry.result())
        return entry

    def cancel(self, entry: QueueEntry) -> None:
        """Nothing is left to cancel: all of it is computed."""

    def cancel_row(self, entry: QueueEntry, row: int) -> bool:
        """Nothing is left to cancel."""
        return False

    def _executor(self) -> BatchExecutor:
        found: BatchExecutor | None = getattr(self._of_thread, "executor", None)
        if found is None:
            found = self._of_thread.executor = self._make_executor()
        return found


def served_directly(
    served: ServedModel, encode: Batcher, decode: Batcher, generate: Batcher | None
) -> ServedModel:
    """A model whose rows are computed by the threads that bring them."""
    return replace(
        served,
        encode=DirectQueue(encode),
        decode=DirectQueue(decode),
        generate=None if generate is None else DirectQueue(generate),
    )
