"""The queue of one model's operation: admission, replies, deadlines, draining."""

import asyncio
import logging
import math
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable

from service.batcher.admission import Admission
from service.batcher.batch_queue import BatchQueue
from service.batcher.deadlines import DeadlineTimer
from service.batcher.entry import QueueEntry
from service.batcher.executor import BatchExecutor, BatchResult, ComputedRows, EngineCall
from service.batcher.fair_queue import FairQueue
from service.batcher.instances import Instances
from service.batcher.policy import QueuePolicy
from service.batcher.slots import ComputeSlots
from service.contracts import Array, InferenceResult, QueueHandle, QueueShare, ReplySink
from service.engines.engine import EngineLost
from service.errors import DeadlineExceeded, EngineError, InternalError, NotReady, ServiceError
from service.telemetry import QueueMetrics

_logger = logging.getLogger(__name__)

_LOST = "the engine was lost"


class Batcher:
    """A `RowQueue` over one engine function, with threads of its own: one, and more where they pay.

    Each thread is an instance: it computes one batch at a time. All state belongs to the event loop
    but for the batch queue, which is made for several threads. An instance returns all replies of a
    batch with one wake-up of the loop. Deadlines are answered by one timer, whatever the engine is
    doing.

    Args:
        engine_call: what to run; called by several threads at once where there are instances.
        policy: the limits.
        metrics: where to count.
        name: for logs and the threads, "moons.encode".
        clock: monotonic seconds; deadlines are given in it.
        slots: the thread budget that is shared with others.
    """

    def __init__(
        self,
        engine_call: EngineCall,
        policy: QueuePolicy,
        metrics: QueueMetrics,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
        slots: ComputeSlots | None = None,
    ) -> None:
        self._metrics = metrics
        self._name = name
        self._clock = clock
        self._queue = BatchQueue(
            FairQueue(policy.max_batch_rows),
            max_delay_seconds=policy.max_delay_seconds,
            clock=clock,
            instances=policy.instances,
            slots=slots,
        )
        self._engine_call, self._policy = engine_call, policy
        self._results_lock = threading.Lock()
        self._instances = Instances(
            self._queue,
            self.make_executor,
            self,
            name=name,
            limit=policy.instances,
            max_inline_seconds=policy.max_inline_seconds,
        )
        self._admission = Admission(policy, self._queue, metrics, clock)
        self._is_fixed = policy.is_fixed
        self._may_compute_now = policy.max_inline_seconds > 0.0 and not policy.is_fixed
        self._deadlines = DeadlineTimer(self._expire, clock)
        self._pending: set[QueueEntry] = set()
        self._is_accepting = False
        self._is_warming = False
        self._is_lost = False
        self._emptied = asyncio.Event()
        self._ended = asyncio.Event()
        self._loop: AbstractEventLoop | None = None

    def make_executor(self) -> BatchExecutor:
        """Make what computes batches as its instances do, also for a thread that needs no queue."""
        return BatchExecutor(
            self._engine_call,
            self._policy.max_batch_rows,
            is_fixed=self._policy.is_fixed,
            clock=self._clock,
            lock=self._results_lock,
        )

    @property
    def is_alive(self) -> bool:
        """Whether its threads run and the engine is not lost; true before `start`."""
        if self._is_lost or self._ended.is_set():
            return False
        return self._loop is None or self._queue.threads > 0

    @property
    def computed_batches(self) -> int:
        """Batches that the engine has computed, but for those of single rows that never waited."""
        return self._queue.computed_batches

    def stuck_seconds(self, passed: float) -> float:
        """For how long a batch runs that takes far longer than its pace; see `BatchQueue`."""
        return self._queue.stuck_seconds(passed)

    def start(self) -> None:
        """Begin to take requests, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._is_accepting = True
        self._instances.start()

    def publish_gauges(self) -> None:
        """Let the gauges of its model and operation be those of this batcher from now on."""
        self._metrics.watch(
            lambda: self._queue.waiting_rows, self._count_pending, lambda: self._queue.max_rows
        )

    async def submit(self, rows: Array, context: Array | None, deadline: float) -> InferenceResult:
        """Compute the rows of one request and wait for them; as `enqueue`."""
        reply: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
        handle = self.enqueue(rows, context, deadline, reply)
        try:
            return await reply
        except asyncio.CancelledError:
            handle.cancel()
            raise

    async def warm_up(self, rows: Array, context: Array | None) -> InferenceResult:
        """Compute rows as `submit` does, uncounted, in one instance: its pace is learned."""
        self._is_warming = True
        is_spreading, self._queue.is_spreading = self._queue.is_spreading, False
        try:
            return await self.submit(rows, context, math.inf)
        finally:
            self._is_warming = False
            self._queue.is_spreading = is_spreading

    async def drain(self) -> None:
        """Refuse new requests, answer the accepted ones, end the threads."""
        self._is_accepting = False
        self._queue.flush()
        while self._pending:  # rows that a model before this one had taken may still come
            self._emptied.clear()
            await self._emptied.wait()
        self._queue.close()
        self._cancel_timers()
        if self._loop is not None:
            await self._ended.wait()

    def abort(self, detail: str) -> None:
        """Refuse new requests, fail the accepted ones as not ready, let the threads end."""
        self._is_accepting = False
        self._queue.close()
        self._cancel_timers()
        self._fail_all(NotReady, detail)
        self._ended.set()  # a thread may be deep in the engine: nobody waits for it

    def _cancel_timers(self) -> None:
        # They would keep a drained batcher, and its engine, alive.
        self._deadlines.cancel()
        self._instances.cancel_timer()

    # Admission.

    @property
    def max_coalesced_rows(self) -> int:
        """As many as may come as one short request; see `service.contracts.RowQueue`."""
        return self._admission.free_short_rows()

    def compute_now(
        self, rows: Array, context: Array | None, deadline: float, *, requests: int = 1
    ) -> InferenceResult | None:
        """Compute rows at once, if that is short; see `service.contracts.RowQueue`."""
        loop, arrived = self._loop, self._clock()
        is_due = arrived < deadline and len(rows) <= self._admission.max_rows
        if loop is None or not self._is_accepting or not self._may_compute_now or not is_due:
            return None
        try:
            computed = self._instances.compute_now(rows, context)
        except EngineLost:
            raise EngineError(_LOST) from None
        if computed is None:
            return None
        waited = computed.began - arrived
        # Not now: clients wait for the answers.
        loop.call_soon(self._count_computed, computed, waited, requests)
        return InferenceResult(
            computed.value, computed.log_det, waited, computed.seconds, computed.stats
        )

    def _count_computed(self, computed: ComputedRows, waited: float, requests: int) -> None:
        """Count rows that were computed at once, and learn from them."""
        rows, seconds, metrics = len(computed.log_det), computed.seconds, self._metrics
        self._queue.learn(rows, seconds)
        metrics.batch(rows, seconds, computed.non_finite_rows)
        metrics.queued(waited, requests)
        if computed.stats is not None:
            metrics.solved(computed.stats.evaluations.tolist())

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
        """Let rows wait; see `service.contracts.RowQueue`."""
        loop, now = self._loop, self._clock()
        may_wait = self._is_accepting or (is_accepted and not self._queue.is_closed)
        if loop is None or not may_wait or self._is_lost:
            raise self._not_ready()
        if not is_accepted:
            self._admission.check(len(rows), deadline - now, requests, share)
        entry = QueueEntry(
            rows,
            context,
            deadline=deadline,
            arrived=now,
            sink=sink,
            owner=self,
            requests=requests,
            share=share,
        )
        self._pending.add(entry)
        if self._queue.put(entry):
            # Not now but at the end of this turn of the loop: requests whose packets came together
            # then share the batch.
            loop.call_soon(self._instances.begin)
        self._instances.watch()
        self._deadlines.add(deadline)
        return entry

    def check(self, rows: int, deadline: float, share: QueueShare | None = None) -> None:
        """Refuse rows before they are made; see `service.contracts.RowQueue`."""
        if not self._is_accepting or self._is_lost:
            raise self._not_ready()
        self._admission.check(rows, deadline - self._clock(), 1, share)

    def _not_ready(self) -> NotReady:
        return NotReady(f"{self._name}: not taking requests now")

    def cancel(self, entry: QueueEntry) -> None:
        """Cancel an entry: drop what is not computed of it yet."""
        self._remove(entry)
        self._metrics.drop("cancelled")

    def cancel_row(self, entry: QueueEntry, row: int) -> bool:
        """Drop one request of an entry; see `service.contracts.QueueHandle`."""
        entry.requests -= 1
        self._metrics.drop("cancelled")
        return self._queue.drop(entry, row)

    def _count_pending(self) -> int:
        return sum(entry.requests for entry in list(self._pending))

    # Replies.

    def deliver(self, finished: list[QueueEntry], result: BatchResult) -> None:
        """Answer the entries that a batch has completed."""
        for entry in finished:
            try:
                self._reply(entry)
            except Exception:  # a fault of ours in one reply must not cost its neighbours theirs
                _logger.exception("%s: a reply could not be made", self._name)
                self._fail(entry, InternalError("the answer could not be put together"))
        if not self._pending:
            self._emptied.set()
        if result.fitting_rows is not None:
            self._metrics.out_of_memory()
        if result.rows and not self._is_warming:
            self._metrics.batch(result.rows, result.seconds, result.non_finite_rows)
            if result.evaluations:
                self._metrics.solved(result.evaluations)

    def _reply(self, entry: QueueEntry) -> None:
        if entry.error is not None:
            self._fail(entry, entry.error)
            return
        self._pending.discard(entry)
        if not entry.sink.done():
            result = entry.result()
            entry.sink.set_result(result)
            if not self._is_warming:
                self._metrics.queued(result.queue_seconds, entry.requests)

    def _fail(self, entry: QueueEntry, error: ServiceError) -> None:
        self._remove(entry)
        if not entry.sink.done():
            entry.sink.set_exception(error)

    def _fail_all(self, kind: type[ServiceError], detail: str) -> None:
        for entry in list(self._pending):
            self._fail(entry, kind(detail))

    def _remove(self, entry: QueueEntry) -> None:
        """Remove an entry: what no batch has taken yet is never computed."""
        self._queue.discard(entry)
        self._pending.discard(entry)
        if not self._pending:
            self._emptied.set()

    def fail_all(self) -> None:
        """Fail all that was accepted, after a fault of ours."""
        self._fail_all(InternalError, "the batch could not be run")

    def end(self, *, is_lost: bool) -> None:
        """Take note that the last thread has ended, or that the engine is lost."""
        self._ended.set()
        if is_lost:
            self._is_lost = True
            self._fail_all(EngineError, _LOST)

    def shrink(self, max_rows: int) -> None:
        """Take note that memory ran out for larger batches: there are none of them any more.

        Where all batches are of one size they stay so: a row's bits depend on it.
        """
        if not self._is_fixed and self._queue.shrink(max_rows):
            _logger.warning(
                "%s: memory ran out: batches of at most %d rows from now on", self._name, max_rows
            )

    # Deadlines.

    def _expire(self, now: float) -> float:
        """Answer every request whose deadline has passed.

        Returns:
            The next deadline.
        """
        late = [entry for entry in self._pending if entry.deadline <= now]
        for entry in sorted(late, key=lambda entry: entry.deadline):
            self._metrics.drop("deadline", entry.requests)
            self._fail(entry, DeadlineExceeded("no answer before the deadline"))
        return min((entry.deadline for entry in self._pending), default=math.inf)
