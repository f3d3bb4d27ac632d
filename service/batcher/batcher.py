"""The queue of one model's operation: admission, replies, deadlines, draining."""

import asyncio
import contextlib
import logging
import math
import threading
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable

from service.batcher.admission import Admission
from service.batcher.batch_queue import BatchQueue
from service.batcher.entry import QueueEntry
from service.batcher.executor import BatchExecutor, BatchResult, Operation
from service.batcher.policy import QueuePolicy
from service.batcher.throughput import ThroughputEstimator
from service.contracts import Array, InferenceResult, QueueHandle, ReplySink
from service.engines.engine import EngineLost
from service.errors import (
    DeadlineExceeded,
    EngineError,
    InternalError,
    NotReady,
    ServiceError,
)
from service.telemetry import QueueMetrics

_logger = logging.getLogger(__name__)

# Deadlines closer together than this are answered together: it bounds the cost of many of them.
_DEADLINE_STEP_SECONDS = 0.002


class _EntryHandle:
    """A ticket in its batcher; see `service.contracts.QueueHandle`."""

    __slots__ = ("_batcher", "_ticket")

    def __init__(self, batcher: "Batcher", ticket: QueueEntry) -> None:
        self._batcher = batcher
        self._ticket = ticket

    def leave(self) -> None:
        self._batcher.leave(self._ticket)

    def drop(self, row: int) -> bool:
        return self._batcher.drop(self._ticket, row)


class Batcher:
    """A `RowQueue` over one engine function, with a worker thread of its own.

    All state belongs to the event loop but for the hand-off, which is made for two threads, and
    the pace, which the worker writes. The worker hands all replies of a batch back with one wake-up
    of the loop. Deadlines are answered by one timer, whatever the engine is doing.

    Args:
        operation: what to run.
        policy: the limits.
        metrics: where to count.
        name: for logs and the thread, "moons.encode".
        clock: monotonic seconds; deadlines are given in it.
    """

    def __init__(
        self,
        operation: Operation,
        policy: QueuePolicy,
        metrics: QueueMetrics,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._name = name
        self._clock = clock
        rows, delay = policy.max_batch_rows, policy.max_delay_seconds
        self._kernel = BatchExecutor(operation, rows, is_fixed=policy.is_fixed, clock=clock)
        self._handoff = BatchQueue(rows, max_delay_seconds=delay, clock=clock)
        self._pace = ThroughputEstimator(rows)
        self._admission = Admission(policy.max_queue_rows, self._handoff, self._pace, metrics)
        self._pending: set[QueueEntry] = set()
        self._is_accepting = False
        self._is_warming = False
        self._is_lost = False
        self._alarm: TimerHandle | None = None
        self._alarm_at = math.inf
        self._emptied = asyncio.Event()
        self._ended = asyncio.Event()
        self._worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._loop: AbstractEventLoop | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the worker runs and its engine is not lost; true before `start`."""
        if self._is_lost or self._ended.is_set():
            return False
        return self._loop is None or self._worker.is_alive()

    def start(self) -> None:
        """Begin to take requests, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._is_accepting = True
        self._worker.start()

    def show(self) -> None:
        """Let the gauges of its model and operation be those of this batcher from now on."""
        self._metrics.watch(lambda: self._handoff.waiting_rows, self._count_pending)

    async def submit(self, rows: Array, context: Array | None, deadline: float) -> InferenceResult:
        """Compute one request; see `service.contracts.RowQueue`."""
        reply: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
        place = self.enter(rows, context, deadline, reply)
        try:
            return await reply
        except asyncio.CancelledError:
            place.leave()
            raise

    async def warm_up(self, rows: Array, context: Array | None) -> InferenceResult:
        """Compute rows as `submit` does, uncounted; the pace is learned from them."""
        self._is_warming = True
        try:
            return await self.submit(rows, context, math.inf)
        finally:
            self._is_warming = False

    async def drain(self) -> None:
        """Refuse new requests, answer the accepted ones, end the worker."""
        self._is_accepting = False
        self._handoff.hurry()
        while self._pending:  # what an engine error met in company comes again
            self._emptied.clear()
            await self._emptied.wait()
        self._handoff.close()
        self._set_alarm(math.inf)  # a timer would keep a drained batcher, and its engine, alive
        if self._loop is not None:
            await self._ended.wait()

    def abort(self, detail: str) -> None:
        """Refuse new requests, fail the accepted ones as not ready, let the worker end."""
        self._is_accepting = False
        self._handoff.close()
        self._fail_all(NotReady, detail)
        self._ended.set()  # the worker may be deep in the engine: nobody waits for it

    # Admission.

    @property
    def company_rows(self) -> int:
        """As many as may come as one short request; see `service.contracts.RowQueue`."""
        return self._admission.most_short_rows()

    def enter(
        self,
        rows: Array,
        context: Array | None,
        deadline: float,
        slot: ReplySink,
        *,
        requests: int = 1,
        is_accepted: bool = False,
    ) -> QueueHandle:
        """Let rows wait; see `service.contracts.RowQueue`."""
        loop, now = self._loop, self._clock()
        may_wait = self._is_accepting or (is_accepted and not self._ended.is_set())
        if loop is None or not may_wait or self._is_lost:
            raise self._not_ready()
        if not is_accepted:
            self._admission.check(len(rows), deadline - now, requests)
        ticket = QueueEntry(
            rows, context, deadline=deadline, arrived=now, slot=slot, requests=requests
        )
        self._pending.add(ticket)
        if self._handoff.put(ticket):
            # Not now but at the end of this turn of the loop: requests that came in the same
            # burst of packets then share the batch.
            loop.call_soon(self._handoff.ring)
        if deadline < self._alarm_at:
            self._set_alarm(deadline)
        return _EntryHandle(self, ticket)

    def check(self, rows: int, deadline: float) -> None:
        """Refuse rows before they are made; see `service.contracts.RowQueue`."""
        if not self._is_accepting or self._is_lost:
            raise self._not_ready()
        self._admission.check(rows, deadline - self._clock(), 1)

    def _not_ready(self) -> NotReady:
        return NotReady(f"{self._name}: not taking requests now")

    def leave(self, ticket: QueueEntry) -> None:
        """Drop what is not computed yet of a ticket."""
        self._forget(ticket)
        self._metrics.drop("cancelled")

    def drop(self, ticket: QueueEntry, row: int) -> bool:
        """Drop one request of a ticket; see `service.contracts.QueueHandle`."""
        ticket.requests -= 1
        self._metrics.drop("cancelled")
        return self._handoff.drop(ticket, row)

    def _count_pending(self) -> int:
        return sum(ticket.requests for ticket in list(self._pending))

    # Replies.

    def _deliver(self, outcome: BatchResult) -> None:
        for ticket in outcome.finished:
            try:
                self._settle(ticket)
            except Exception:  # a fault of ours in one reply must not cost its neighbours theirs
                _logger.exception("%s: a reply could not be made", self._name)
                self._fail(ticket, InternalError("the answer could not be put together"))
        if not self._pending:
            self._emptied.set()
        if outcome.rows and not self._is_warming:
            self._metrics.batch(outcome.rows, outcome.seconds, outcome.non_finite_rows)
            if outcome.evaluations:
                self._metrics.solved(outcome.evaluations)

    def _settle(self, ticket: QueueEntry) -> None:
        if ticket.error is not None:
            self._fail(ticket, ticket.error)
            return
        self._pending.discard(ticket)
        if not ticket.slot.done():
            answer = ticket.answer()
            ticket.slot.set_result(answer)
            if not self._is_warming:
                self._metrics.queued(answer.queue_seconds, ticket.requests)

    def _fail(self, ticket: QueueEntry, error: ServiceError) -> None:
        self._forget(ticket)
        if not ticket.slot.done():
            ticket.slot.set_exception(error)

    def _fail_all(self, kind: type[ServiceError], detail: str) -> None:
        for ticket in list(self._pending):
            self._fail(ticket, kind(detail))

    def _forget(self, ticket: QueueEntry) -> None:
        """Stop caring for a ticket: what no batch has taken yet is never computed."""
        self._handoff.withdraw(ticket)
        self._pending.discard(ticket)
        if not self._pending:
            self._emptied.set()

    def _lose(self) -> None:
        self._is_lost = True
        self._ended.set()
        self._fail_all(EngineError, "the engine was lost")

    # Deadlines.

    def _set_alarm(self, deadline: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = None, deadline
        if self._loop is not None and deadline < math.inf:
            self._alarm = self._loop.call_later(deadline - self._clock(), self._expire)

    def _expire(self) -> None:
        """Answer every request whose deadline has passed."""
        now = self._clock()
        late = [ticket for ticket in self._pending if ticket.deadline <= now]
        for ticket in sorted(late, key=lambda ticket: ticket.deadline):
            self._metrics.drop("deadline", ticket.requests)
            self._fail(ticket, DeadlineExceeded("no answer before the deadline"))
        next_deadline = min((ticket.deadline for ticket in self._pending), default=math.inf)
        self._set_alarm(max(next_deadline, now + _DEADLINE_STEP_SECONDS))

    # The worker thread.

    def _work(self) -> None:
        try:
            while self._step():
                pass
            self._post(self._ended.set)
        except BaseException:
            # The engine is lost, or the thread is being ended. Say so: liveness turns false, and
            # nobody waits for an answer that cannot come.
            _logger.critical("%s: the worker ended", self._name, exc_info=True)
            self._post(self._lose)

    def _step(self) -> bool:
        """Run one batch.   -> whether there may be another."""
        try:
            pieces = self._handoff.take()
            if pieces is None:
                return False
            outcome = self._kernel.run(pieces)
            if outcome.first_error is not None:
                _logger.error("%s: engine error", self._name, exc_info=outcome.first_error)
            self._pace.observe(outcome.rows, outcome.seconds)
            self._post(self._deliver, outcome)
        except EngineLost:
            raise
        except Exception:  # a fault of ours: all that was accepted is told, the worker goes on
            _logger.exception("%s: a batch could not be run", self._name)
            self._handoff.clear()
            self._post(self._fail_all, InternalError, "the batch could not be run")
        return True

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        # A closed loop has nobody left to tell.
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call, *arguments)
