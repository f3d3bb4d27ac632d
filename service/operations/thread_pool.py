"""A thread pool for work of requests that takes too long for the event loop.

Drawing noise, decoding large bodies and pictures, writing archives and pictures. Each call has the
deadline of its request, also while it waits for a thread; and only so many wait.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from service.errors import DeadlineExceeded, Overloaded

_P = ParamSpec("_P")
_T = TypeVar("_T")

# What they do releases the interpreter's lock most of the time, but all share the processors.
_MOST_THREADS = 8
_MOST_CALLS = 256


class RequestThreadPool:
    """A few threads, and the bounded queue of calls before them.

    Args:
        workers: how many calls run at a time; one a processor if left out.
        max_calls: how many run and wait at most.
    """

    def __init__(self, workers: int | None = None, max_calls: int = _MOST_CALLS) -> None:
        count = workers or min(_MOST_THREADS, os.cpu_count() or 1)
        self._workers = count
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="request")
        self._max_calls = max_calls
        self._calls = 0

    @property
    def is_free(self) -> bool:
        """Whether a call would begin at once."""
        return self._calls < self._workers

    async def run(
        self, deadline: float, call: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs
    ) -> _T:
        """Make a call in a thread.

        One that still waits at its deadline, or whose client leaves, is never begun.

        Args:
            deadline: a `time.monotonic()` value.
            call: what to run.
            arguments, named: of the call.

        Raises:
            Overloaded: too many calls wait.
            DeadlineExceeded: at the deadline.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("no answer before the deadline")
        if self._calls >= self._max_calls:
            raise Overloaded(f"{self._calls} requests wait to be drawn, decoded or written")
        self._calls += 1
        try:
            async with asyncio.timeout(None if left == math.inf else left) as clock:
                # In no variable: it leads to the error of the call, the error to this frame, and in
                # such a cycle a large body stays in memory until the next collection.
                return await asyncio.wrap_future(self._executor.submit(call, *arguments, **named))
        except TimeoutError:
            if not clock.expired():
                raise
            raise DeadlineExceeded("no answer before the deadline") from None
        finally:
            self._calls -= 1
