"""The thread budget of a process: how many batches of all its models are computed at a time."""

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

# A batch predicted to take no longer than this does not wait behind others' long ones.
SHORT_SECONDS = 0.005
# A batch that takes longer than this does not count any more: its engine may hang, and the other
# models are not to wait for that.
STALLED_SECONDS = 5.0


class ComputeSlots:
    """A counting semaphore, first come first served, that all instances of a process share.

    A model's further instances start only on a slot that nobody waits for. Its first one waits for
    its turn, unless its batch is short: up to as many short ones again are computed beside the
    budget, so that a row of one model does not wait for a long batch of another. What the threads
    then share is the processor, as they would without a budget.

    Args:
        budget: batches at a time.
        clock: monotonic seconds.
    """

    def __init__(self, budget: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._lock = threading.Lock()
        # Below: only with the lock held, but for reading numbers.
        self._next = 0
        self._held: dict[int, float] = {}
        self._waiting: deque[SimpleQueue[int]] = deque()

    @property
    def free(self) -> int:
        """Slots that nobody holds or waits for."""
        return 0 if self._waiting else max(0, self._budget - len(self._held))

    @property
    def waiting(self) -> int:
        """Threads that wait for a slot."""
        return len(self._waiting)

    def try_acquire(self, predicted_seconds: float = 0.0, *, is_first: bool = False) -> int | None:
        """Take a slot if there is one now.

        Args:
            predicted_seconds: of the batch; 0 where nothing is known.
            is_first: whether the model has no other batch computed at this moment.

        Returns:
            The slot, for `release`; None where one has to wait.
        """
        is_short = is_first and 0.0 < predicted_seconds <= SHORT_SECONDS
        with self._lock:
            if not self._waiting and self._count() < self._budget:
                return self._grant()
            return self._grant() if is_short and self._count() < 2 * self._budget else None

    def acquire(self) -> int:
        """Wait for a slot."""
        turn: SimpleQueue[int] = SimpleQueue()
        with self._lock:
            if not self._waiting and self._count() < self._budget:
                return self._grant()
            self._waiting.append(turn)
        while True:
            try:
                return turn.get(timeout=STALLED_SECONDS / 2)
            except Empty:  # who held it for so long holds it no more
                with self._lock:
                    self._serve()

    def release(self, slot: int) -> None:
        """Give a slot back."""
        with self._lock:
            del self._held[slot]
            if self._waiting:
                self._serve()

    def _serve(self) -> None:
        while self._waiting and self._count() < self._budget:
            self._waiting.popleft().put(self._grant())

    def _count(self) -> int:
        if len(self._held) < self._budget:
            return len(self._held)
        latest = self._clock() - STALLED_SECONDS
        return sum(since > latest for since in self._held.values())

    def _grant(self) -> int:
        self._next += 1
        self._held[self._next] = self._clock()
        return self._next
