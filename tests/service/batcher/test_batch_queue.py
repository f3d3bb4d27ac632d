"""The queue that two threads share: whoever changes it has it alone."""

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from service.batcher.batch_queue import BatchQueue
from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.fair_queue import FairQueue
from service.contracts import InferenceResult
from tests.service.batcher.batching import NoOwner

LOOP = asyncio.new_event_loop()
LOOP.close()
# How long a second thread gets to break in: it only ever costs time where the lock holds.
BREAK_IN_SECONDS = 0.05


def entry(rows: int) -> QueueEntry:
    sink: asyncio.Future[InferenceResult] = asyncio.Future(loop=LOOP)
    return QueueEntry(
        np.zeros((rows, 1)), None, deadline=9.0, arrived=0.0, sink=sink, owner=NoOwner()
    )


class Interrupted(FairQueue):
    """A queue that lets another thread try its luck in the middle of every change."""

    def __init__(self, max_rows: int) -> None:
        super().__init__(max_rows)
        self.rival: Callable[[], object] | None = None
        self.threads: list[threading.Thread] = []
        self.broken_in = 0

    def add(self, entry: QueueEntry) -> None:
        self._interrupt()
        super().add(entry)

    def take(self) -> list[EntrySlice]:
        self._interrupt()
        return super().take()

    def _interrupt(self) -> None:
        rival, self.rival = self.rival, None
        if rival is None:
            return
        thread = threading.Thread(target=rival)
        thread.start()
        thread.join(BREAK_IN_SECONDS)
        self.broken_in += not thread.is_alive()
        self.threads.append(thread)


@pytest.mark.parametrize("change", ["put", "take"])
@pytest.mark.parametrize("rival", ["put", "take", "discard", "drop", "clear"])
def test_the_queue_changes_only_behind_the_lock(change: str, rival: str) -> None:
    queue = Interrupted(4)
    batch_queue = BatchQueue(queue)
    first = entry(3)
    batch_queue.put(first)
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: batch_queue.put(entry(1)),
        "take": batch_queue.take,
        "discard": lambda: batch_queue.discard(first),
        "drop": lambda: batch_queue.drop(first, 0),
        "clear": batch_queue.clear,
    }
    queue.rival = calls[rival]
    calls[change]()
    batch_queue.close()  # whoever waits for rows ends
    for thread in queue.threads:
        thread.join()
    assert len(queue.threads) == 1
    assert queue.broken_in == 0
