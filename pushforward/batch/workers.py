"""The threads in which requests for rows are answered."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from service.operations.thread_pool import RequestThreadPool

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Workers(Protocol):
    """What runs coroutines, some at a time.

    pool: for what they would hand to a thread.
    """

    pool: RequestThreadPool

    def submit(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> "Future[_T]":
        """Run the coroutine that is made, once its turn comes."""

    def close(self) -> None:
        """End the threads."""


class ThreadWorkers:
    """Threads with an event loop each: a coroutine computes in the thread that runs it.

    Args:
        count: of the threads.
    """

    def __init__(self, count: int) -> None:
        self.pool: RequestThreadPool = _SameThread()
        self._loops: list[asyncio.AbstractEventLoop] = []
        self._of_thread = threading.local()
        self._threads = ThreadPoolExecutor(count, "rows", initializer=self._open_loop)

    def submit(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> "Future[_T]":
        """Run the coroutine that is made, once a thread is free."""
        return self._threads.submit(lambda: self._of_thread.loop.run_until_complete(make()))

    def close(self) -> None:
        """Finish what was submitted, end the threads."""
        self._threads.shutdown()
        for loop in self._loops:
            loop.close()

    def _open_loop(self) -> None:
        loop = self._of_thread.loop = asyncio.new_event_loop()
        self._loops.append(loop)


class LoopWorkers:
    """One event loop: coroutines wait on it for an engine that computes beside it.

    Args:
        loop: it runs in a thread of its own.
        count: how many coroutines run at a time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.pool = RequestThreadPool()
        self._loop = loop
        self._turns = asyncio.Semaphore(count)

    def submit(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> "Future[_T]":
        """Run the coroutine that is made, once fewer than `count` run."""

        async def run() -> _T:
            async with self._turns:
                return await make()

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def close(self) -> None:
        """The loop is its owner's."""


class _SameThread(RequestThreadPool):
    """Makes calls where they are asked for: no event loop waits for others there."""

    async def run(
        self, deadline: float, call: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs
    ) -> _T:
        """Make a call."""
        return call(*arguments, **named)
