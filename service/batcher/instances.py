"""The instances of a model's operation: threads that take batches from its one queue."""

import asyncio
import contextlib
import logging
import threading
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from typing import Protocol

from service.batcher.batch_queue import BatchQueue
from service.batcher.entry import EntrySlice, QueueEntry
from service.batcher.executor import BatchExecutor, BatchResult, ComputedRows
from service.batcher.started_batch import StartedBatch
from service.contracts import Array
from service.engines.engine import EngineLost

# How often rows that wait are looked at whether one more instance pays, beside every arrival.
_LOOK_AGAIN_SECONDS = 0.05

# What is said of a queue is said under one name.
_logger = logging.getLogger("service.batcher.batcher")


class Owner(Protocol):
    """What answers requests: the batcher. All is called on the event loop but `shrink`."""

    def shrink(self, max_rows: int) -> None:
        """Take note that memory ran out for batches of twice as many rows; of any thread."""
        ...

    def deliver(self, finished: list[QueueEntry], result: BatchResult) -> None:
        """Answer the entries that a batch has completed."""
        ...

    def fail_all(self) -> None:
        """Fail all that was accepted, after a fault of ours."""
        ...

    def end(self, *, is_lost: bool) -> None:
        """Take note that the last thread has ended, or that the engine is lost."""
        ...


class Instances:
    """One thread from the start on, and more, up to `limit`, as soon as they pay.

    They share the engine, and with it one copy of the weights; memory for a batch is each one's.
    What is short is computed on the event loop itself: to hand it to a thread and back takes
    longer, and while both run they wait for each other's turn at the interpreter.

    Args:
        queue: where they take batches.
        make_executor: makes what computes a batch.
        owner: gets the results.
        name: of the threads.
        limit: threads at most.
        max_inline_seconds: what a batch on the event loop may be predicted to take.
    """

    def __init__(
        self,
        queue: BatchQueue,
        make_executor: Callable[[], BatchExecutor],
        owner: Owner,
        *,
        name: str,
        limit: int,
        max_inline_seconds: float = 0.0,
    ) -> None:
        self._max_inline_seconds = max_inline_seconds
        self._inline_executor: BatchExecutor | None = None
        self._queue = queue
        self._make_executor = make_executor
        self._owner = owner
        self._name = name
        self._has_more = limit > 1
        self._timer: TimerHandle | None = None
        self._loop: AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the first thread, on the running event loop.

        Raises:
            RuntimeError: the machine grants none.
        """
        self._loop = asyncio.get_running_loop()
        self._queue.add_thread()
        self._start_thread()

    def begin(self) -> None:
        """Compute what waits at the end of a turn of the event loop, or have it computed."""
        parts = None
        if self._max_inline_seconds:
            parts = self._queue.take_short(self._max_inline_seconds)
        if parts is None:
            self.wake()
        else:
            self._compute_inline(parts)

    def compute_now(self, rows: Array, context: Array | None) -> ComputedRows | None:
        """Compute rows that never wait; None where they are to wait.

        Raises:
            EngineLost: the engine will never work again; the owner was told.
        """
        slot = self._queue.reserve_short(len(rows), self._max_inline_seconds)
        if slot is None:
            return None
        try:
            return self._executor_of_loop().compute(rows, context)
        except EngineLost:
            self._lose()
            raise
        except Exception:
            return None  # found again, and told, where the rows at fault are looked for
        finally:
            self._queue.release_short(slot)

    def wake(self) -> None:
        """Wake or start the thread of one more instance, if it pays."""
        if self._queue.wake():
            self._start_thread()

    def watch(self) -> None:
        """Look at the rows that were put, again after a while: what computes may take long."""
        if self._has_more and self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(_LOOK_AGAIN_SECONDS, self._look_again)

    def cancel_timer(self) -> None:
        """Look no more: the timer would keep a drained batcher, and its engine, alive."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_again(self) -> None:
        self._timer = None
        if self._queue.waiting_rows and not self._queue.is_closed:
            self.wake()
            self.watch()

    def _start_thread(self) -> None:
        """Start a thread that the queue has counted."""
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._queue.remove_thread()
            if not self._queue.threads:
                raise

    def _work(self) -> None:
        try:
            executor = self._make_executor()
            while self._step(executor):
                pass
            if self._queue.is_closed and not self._queue.threads:
                self._post(lambda: self._owner.end(is_lost=False))
        except BaseException:
            # The engine is lost, or the thread is being ended. Say so: liveness turns false, and
            # nobody waits for an answer that cannot come.
            _logger.critical("%s: the worker ended", self._name, exc_info=True)
            self._queue.remove_thread()
            self._queue.close()
            self._post(lambda: self._owner.end(is_lost=True))

    def _step(self, executor: BatchExecutor) -> bool:
        """Run one batch.

        Returns:
            Whether there may be another.
        """
        try:
            parts = self._queue.take()
            if parts is None:
                return False
            if self._has_more and self._queue.waiting_rows:
                self.wake()
            if executor.is_pipelined:
                self._run_pipelined(executor, parts)
            else:
                self._post(self._owner.deliver, *self._compute(executor, parts))
        except EngineLost:
            raise
        except Exception:
            self._fail_all()
        return True

    def _run_pipelined(self, executor: BatchExecutor, parts: list[EntrySlice]) -> None:
        """Run a batch, and those that follow it without a pause: each is started before the next.

        While the device computes one the next is assembled and started.
        """
        started = self._start(executor, parts)
        while True:
            ahead = self._queue.take_ahead(parts)
            ahead_started = None if ahead is None else self._start(executor, ahead)
            try:
                self._post(self._owner.deliver, *self._compute(executor, parts, started))
            except EngineLost:
                raise
            except Exception:  # what is started goes on: somebody has to wait for it
                self._fail_all()
            if ahead is None:
                return
            parts, started = ahead, ahead_started

    def _start(self, executor: BatchExecutor, parts: list[EntrySlice]) -> StartedBatch | None:
        try:
            return executor.start(parts)
        except BaseException:
            self._queue.finish(parts, 0, 0.0)
            raise

    def _fail_all(self) -> None:
        """Fail all that was accepted, in the handler of a fault of ours; the thread goes on."""
        _logger.exception("%s: a batch could not be run", self._name)
        self._queue.clear()
        self._post(self._owner.fail_all)

    def _compute_inline(self, parts: list[EntrySlice]) -> None:
        try:
            self._owner.deliver(*self._compute(self._executor_of_loop(), parts))
        except EngineLost:
            self._lose()
        except Exception:  # a fault of ours, as in a thread
            _logger.exception("%s: a batch could not be run", self._name)
            self._queue.clear()
            self._owner.fail_all()

    def _executor_of_loop(self) -> BatchExecutor:
        if self._inline_executor is None:
            self._inline_executor = self._make_executor()
        return self._inline_executor

    def _lose(self) -> None:
        """Give up, in the handler of what the engine raised on the event loop."""
        _logger.critical("%s: the engine was lost", self._name, exc_info=True)
        self._queue.close()
        self._owner.end(is_lost=True)

    def _compute(
        self, executor: BatchExecutor, parts: list[EntrySlice], started: StartedBatch | None = None
    ) -> tuple[list[QueueEntry], BatchResult]:
        result = BatchResult()
        try:
            finished, result = executor.run(parts, started)
        finally:
            self._queue.finish(parts, result.rows, result.seconds)
        if result.fitting_rows is not None:
            self._owner.shrink(result.fitting_rows)
        if result.first_error is not None:
            _logger.error("%s: engine error", self._name, exc_info=result.first_error)
            result.first_error = None  # its traceback leads back to the result, and to the rows
        return finished, result

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        # A closed loop has nobody left to answer.
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call, *arguments)
