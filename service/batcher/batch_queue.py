"""The queue between the event loop, which puts rows, and the instances, which take batches."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from service.batcher.cost import CostEstimator
from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.fair_queue import FairQueue
from service.batcher.slots import ComputeSlots
from service.batcher.spread import HAND_OVER_SECONDS, rows_to_start
from service.batcher.throughput import ThroughputEstimator
from service.contracts import QueueShare

# For how long a thread beyond the first is kept that finds nothing to do.
IDLE_SECONDS = 10.0
# A batch that takes longer than this, and than so many times what was predicted, is stuck.
_STUCK_SECONDS = 10.0
_STUCK_TIMES = 20.0
# A batch that takes so much longer than predicted may have been held up by the machine alone.
_PAUSE_SECONDS = 1.0
# Of the time between two requests, what a batch is held to have been late in: for longer than that
# the process itself may have been stopped.
_MOST_UNSEEN_SECONDS = 0.5


@dataclass(slots=True, eq=False)
class RunningBatch:
    """A batch that an instance computes.

    rows: of all its parts. ends: when its instance is predicted to be free. slot: of the thread
    budget, None where the batch that its instance computes next has it.
    late: for how long it has been seen to take longer than that, when it was looked at last.
    predicted: seconds that it takes; 0 where nothing is known.
    seen: for how long it has been seen to run, by `stuck_seconds`.
    """

    rows: int
    ends: float
    slot: int | None
    late: float = 0.0
    predicted: float = 0.0
    seen: float = 0.0


class BatchQueue:
    """A `FairQueue` behind a lock, with wake-ups for the threads of instances that sleep.

    An instance cuts its batch at the moment it is free, so rows that arrive while it computes join
    the next batch until the very last, and no round trip through the event loop stands between
    two batches. Nothing polls. It is the one place that several threads share.

    Args:
        queue: the entries; changed by nobody else from now on.
        max_delay_seconds: how long the oldest row may wait for a full batch; 0 takes what is there.
        clock: monotonic seconds.
        instances: threads that take batches, at most.
        slots: the thread budget they compute in; None is a budget of their own.
    """

    def __init__(
        self,
        queue: FairQueue,
        *,
        max_delay_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        instances: int = 1,
        slots: ComputeSlots | None = None,
    ) -> None:
        self._max_delay_seconds = max_delay_seconds
        self._clock = clock
        self._instances = instances
        self._slots = slots or ComputeSlots(instances)
        self._lock = threading.Lock()
        self.throughput = ThroughputEstimator(queue.max_rows, instances)
        # Below: only with the lock held, but for reading numbers.
        self._queue = queue
        self._cost = CostEstimator(queue.max_rows)
        self._running: dict[int, RunningBatch] = {}  # by the id of its parts
        self._threads = 0
        self._sleepers: list[SimpleQueue[None]] = []
        self._is_wake_due = False
        self._is_flushing = False
        self._is_closed = False
        self._looked_at = clock()  # by the event loop alone
        self.computed_batches = 0
        # Off while a model is warmed up: a batch is then what one instance takes for it.
        self.is_spreading = instances > 1

    @property
    def waiting_rows(self) -> int:
        """Rows in no batch yet."""
        return self._queue.rows

    @property
    def short_rows(self) -> int:
        """Rows of the largest request that does not wait behind others of its size."""
        return self._queue.short_rows

    @property
    def max_rows(self) -> int:
        """Rows of a batch at most."""
        return self._queue.max_rows

    @property
    def is_closed(self) -> bool:
        """Whether no batch is cut any more."""
        return self._is_closed

    @property
    def threads(self) -> int:
        """Threads that take batches."""
        return self._threads

    def fits(self, rows: int, limit: int, share: QueueShare | None) -> bool:
        """Whether more rows of a key may wait; see `FairQueue.fits`."""
        return self._queue.fits(rows, limit, share)

    def rows_before(self, rows: int, share: QueueShare | None = None) -> tuple[int, int]:
        """Count what a new request would find before it.

        Returns:
            Rows in no batch yet, and rows that it would see computed first, those of the running
            batches included.
        """
        running = sum(batch.rows for batch in list(self._running.values()))
        return self._queue.rows, self._queue.ahead_of(rows, share) + running

    def seconds_before(self, rows: int, share: QueueShare | None = None) -> float:
        """Predict how long a new request would wait for the batch that takes its first row.

        Returns:
            Seconds until an instance is free, and those of the full batches that come before.
        """
        busy = list(self._running.values())
        waiting = self._queue.ahead_of(rows, share)
        if not waiting and len(busy) < self._instances:
            return 0.0
        now = self._clock()
        since, self._looked_at = self._looked_at, now
        free = min((_seconds_left(batch, since, now) for batch in busy), default=0.0)
        full = self._queue.max_rows
        return free + self.throughput.seconds_for(waiting // full * full)

    def stuck_seconds(self, passed: float) -> float:
        """Look at what runs, for a watch over the device.

        Args:
            passed: seconds since it was looked at before.

        Returns:
            For how long a batch has run that takes far longer than predicted; 0 where none does, or
            where nothing is known of what a batch takes.
        """
        stuck = 0.0
        for batch in list(self._running.values()):
            batch.seen += passed
            if batch.predicted and batch.seen > max(_STUCK_SECONDS, _STUCK_TIMES * batch.predicted):
                stuck = max(stuck, batch.seen)
        return stuck

    def put(self, entry: QueueEntry) -> bool:
        """Append an entry.

        Returns:
            Whether to `wake` a thread: none looks at the queue by itself before it sleeps.
        """
        with self._lock:
            queue = self._queue
            is_first = queue.rows == 0
            queue.add(entry)
            if self._is_wake_due or self._coming() > 0 or len(self._running) >= self._instances:
                return False
            # A thread that waits for a full batch needs to see the first row and the last.
            if self._max_delay_seconds and not (is_first or queue.rows >= queue.max_rows):
                return False
            self._is_wake_due = True
            return True

    def wake(self) -> bool:
        """Wake a thread, where rows wait that one more instance would start on.

        Returns:
            Whether to start one more thread, which `add_thread` has counted: none sleeps.
        """
        with self._lock:
            self._is_wake_due = False
            if self._coming() > 0 or not self._queue.rows or not self._pays():
                return False
            if not self._sleepers:
                is_more = 0 < self._threads < self._instances
                self._threads += is_more
                return is_more
            sleeper = self._sleepers.pop()
        sleeper.put(None)
        return False

    def add_thread(self) -> None:
        """Count a thread that will `take`, until that returns None."""
        with self._lock:
            self._threads += 1

    def remove_thread(self) -> None:
        """Count a thread no more that could not be started, or ended otherwise."""
        with self._lock:
            self._threads -= 1

    def discard(self, entry: QueueEntry) -> None:
        """Take an entry out; rows already in a batch are not stopped."""
        with self._lock:
            self._queue.discard(entry)

    def drop(self, entry: QueueEntry, row: int) -> bool:
        """Take one row out of an entry.

        Returns:
            False where it is still in: some rows of the entry are in a batch.
        """
        with self._lock:
            return self._queue.drop(entry, row)

    def clear(self) -> None:
        """Take everything out."""
        with self._lock:
            self._queue.clear()

    def flush(self) -> None:
        """Wait for full batches no longer."""
        with self._lock:
            self._is_flushing = True
        self._wake_all()

    def close(self) -> None:
        """Let `take` return None from now on."""
        with self._lock:
            self._is_closed = True
        self._wake_all()

    def take(self) -> list[EntrySlice] | None:
        """Wait for rows and for a slot, and cut a batch; called by the thread of an instance.

        Returns:
            The parts of the batch, for `finish`; None where the thread is to end.
        """
        slot = None
        try:
            while True:
                with self._lock:
                    if self._is_closed:
                        self._threads -= 1
                        return None
                    delay, rows = self._plan(has_slot=slot is not None)
                    if rows and slot is None:
                        slot = self._try_acquire(rows)
                    if slot is not None and rows:
                        parts, slot = self._cut(rows, slot), None
                        return parts
                    if sleeps := not rows or bool(self._running):
                        sleeper = self._fall_asleep()
                if not sleeps:
                    slot = self._slots.acquire()
                    continue
                if slot is not None:
                    self._slots.release(slot)
                    slot = None
                if not self._sleep(sleeper, delay):
                    return None
        finally:
            if slot is not None:
                self._slots.release(slot)

    def take_ahead(self, computing: list[EntrySlice]) -> list[EntrySlice] | None:
        """Cut the batch that comes next, while the only instance computes one, if it is a full one.

        Fewer rows wait until that one is computed: more may join them, and two half batches take
        longer than a whole one.

        Args:
            computing: the parts of the batch before, as `take` or this gave them.

        Returns:
            The parts of the batch, for `finish`; None where it is left to `take`.
        """
        with self._lock:
            is_full = self._queue.rows >= self._queue.max_rows
            if self._is_closed or self._instances > 1 or not is_full:
                return None
            running = self._running[id(computing)]
            parts = self._cut(self._queue.rows, running.slot, after=running.ends)
            # One instance, one slot; and whoever waits for the instance waits for both.
            running.slot, running.ends = None, self._running[id(parts)].ends
            return parts

    def take_short(self, max_seconds: float) -> list[EntrySlice] | None:
        """Cut all that waits as one batch, if it is short and nobody else is about to.

        Args:
            max_seconds: that it may be predicted to take.

        Returns:
            The parts of the batch, for `finish`; None where it is left to the threads of instances.
        """
        with self._lock:
            rows = self._queue.rows
            if not 0 < rows <= self._queue.max_rows or self._max_delay_seconds:
                return None
            slot = self._reserve(rows, max_seconds)
            if slot is None:
                return None
            self._is_wake_due = False
            return self._cut(rows, slot)

    def reserve_short(self, rows: int, max_seconds: float) -> int | None:
        """Reserve a slot for a batch that never waits, where `take_short` would take it at once.

        Args:
            rows: of it.
            max_seconds: that it may be predicted to take.

        Returns:
            The slot, for `release_short`; None where something waits, or is about to be computed.
        """
        if self._queue.rows or rows > self._queue.max_rows or self._max_delay_seconds:
            return None
        with self._lock:
            return self._reserve(rows, max_seconds)

    def release_short(self, slot: int) -> None:
        """Give back what `reserve_short` gave."""
        self._slots.release(slot)

    def learn(self, rows: int, seconds: float) -> None:
        """Learn from a batch that `reserve_short` was asked for.

        Args:
            rows: that were computed.
            seconds: that the engine took for them.
        """
        with self._lock:
            self._learn(rows, seconds)

    def shrink(self, max_rows: int) -> bool:
        """Cut batches of at most so many rows from now on.

        Returns:
            Whether they were larger before.
        """
        with self._lock:
            if max_rows >= self._queue.max_rows:
                return False
            self._queue.shrink(max_rows)
            self._cost.shrink(max_rows)
            self.throughput.shrink(max_rows)
        return True

    def finish(self, parts: list[EntrySlice], rows: int, seconds: float) -> None:
        """Give back what a batch held, and learn from it.

        Args:
            parts: of the batch, as `take` gave them.
            rows: that were computed.
            seconds: that the engine took for them.
        """
        with self._lock:
            batch = self._running.pop(id(parts))
            self.computed_batches += rows > 0
            self._learn(rows, seconds)
            is_backlogged = self._queue.rows >= self._queue.max_rows
            self.throughput.complete(rows, self._clock(), is_backlogged=is_backlogged)
        if batch.slot is not None:
            self._slots.release(batch.slot)

    # Below: called with the lock held, but for sleeping.

    def _coming(self) -> int:
        """Threads that look at the queue before they sleep or compute."""
        return self._threads - len(self._sleepers) - len(self._running)

    def _plan(self, *, has_slot: bool) -> tuple[float | None, int]:
        """What a thread that is awake does.

        Returns:
            Seconds to sleep, None until a wake-up, and the rows to take now, 0 to sleep.
        """
        oldest = self._queue.oldest()
        if oldest is None:
            return None, 0
        is_due = self._is_flushing or self._queue.rows >= self._queue.max_rows
        if not is_due and self._max_delay_seconds:
            delay = oldest + self._max_delay_seconds - self._clock()
            if delay > 0:
                return delay, 0
        return None, self._share(0.0, has_slot=has_slot)

    def _pays(self) -> bool:
        """Whether one more instance would start on what waits."""
        if not self._running:
            return True
        return self.is_spreading and self._slots.free > 0 and self._share(HAND_OVER_SECONDS) > 0

    def _share(self, own: float, *, has_slot: bool = False) -> int:
        """How many rows one more instance takes; see `rows_to_start`."""
        rows = self._queue.rows
        if not self.is_spreading:
            return rows
        now = self._clock()
        # What takes longer than predicted is expected to take as long again.
        busy = [abs(batch.ends - now) for batch in self._running.values()]
        free = max(1, min(self._instances - len(busy), self._slots.free + has_slot))
        return rows_to_start(rows, self._cost.cost_of(rows), busy, free, own)

    def _reserve(self, rows: int, max_seconds: float) -> int | None:
        """Take a slot for a short batch on the event loop, if no thread computes or is about to."""
        if self._is_closed or self._running or self._coming() > 0:
            return None
        predicted = self._cost.seconds(rows)
        if not 0.0 < predicted <= max_seconds:
            return None
        return self._slots.try_acquire(predicted, is_first=True)

    def _learn(self, rows: int, seconds: float) -> None:
        self._cost.observe(rows, seconds)
        self.throughput.observe(rows, seconds)
        self.throughput.expect(self._cost.seconds(self._queue.max_rows))

    def _try_acquire(self, rows: int) -> int | None:
        predicted = self._cost.seconds(min(rows, self._queue.max_rows))
        return self._slots.try_acquire(predicted, is_first=not self._running)

    def _cut(self, rows: int, slot: int | None, *, after: float = -math.inf) -> list[EntrySlice]:
        waiting = self._queue.rows
        parts = self._queue.take(rows) if rows < waiting else self._queue.take()
        taken = waiting - self._queue.rows
        predicted = self._cost.seconds(taken)
        ends = max(after, self._clock()) + predicted
        self._running[id(parts)] = RunningBatch(taken, ends, slot, predicted=predicted)
        return parts

    def _fall_asleep(self) -> "SimpleQueue[None]":
        sleeper: SimpleQueue[None] = SimpleQueue()
        self._sleepers.append(sleeper)
        return sleeper

    def _sleep(self, sleeper: "SimpleQueue[None]", delay: float | None) -> bool:
        """Wait for a wake-up.

        Returns:
            False where a thread beyond the first has had nothing to do for long.
        """
        is_idle = delay is None and self._threads > 1
        try:
            sleeper.get(timeout=IDLE_SECONDS if is_idle else delay)
        except Empty:
            with self._lock:
                if sleeper in self._sleepers:
                    self._sleepers.remove(sleeper)
                    if is_idle and self._threads > 1:
                        self._threads -= 1
                        return False
        return True

    def _wake_all(self) -> None:
        with self._lock:
            sleepers, self._sleepers = self._sleepers, []
        for sleeper in sleepers:
            sleeper.put(None)


def _seconds_left(batch: RunningBatch, since: float, now: float) -> float:
    """Predict how long a batch goes on, which was looked at `since` then.

    An engine that hangs is expected to go on for as long again as it was seen to, a process that
    was stopped is not: nobody looked meanwhile.
    """
    if now > batch.ends:
        batch.late += min(now - max(since, batch.ends), _MOST_UNSEEN_SECONDS)
    return max(0.0, batch.ends - now, batch.late - _PAUSE_SECONDS)
