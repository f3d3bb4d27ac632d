"""Engines whose every step a test controls."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np

from service.contracts import Array

FEATURES = 3
POISON = -1.0


def rows(*values: float) -> Array:
    """One row per value, all its features the same."""
    return np.repeat(np.array(values, np.float32)[:, None], FEATURES, axis=1)


class Doubling:
    """value = 2 x, log_det = sum x (+ context): easy to check row by row."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        self.sizes.append(len(x))
        log_det = x.sum(1)
        if context is not None:
            log_det = log_det + context.sum(1)
        return 2 * x, log_det


class Clock:
    """Time that passes only when the test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Gated(Doubling):
    """A doubling engine that computes a batch only when the test permits it.

    With a clock, each batch takes `seconds` of its time.
    """

    def __init__(self, clock: Clock | None = None, seconds: float = 0.0) -> None:
        super().__init__()
        self._clock = clock or Clock()
        self._seconds = seconds
        self._permits = threading.Semaphore(0)
        self.started: SimpleQueue[int] = SimpleQueue()

    def set_seconds(self, seconds: float) -> None:
        self._seconds = seconds

    def permit(self, calls: int = 1) -> None:
        self._permits.release(calls)

    def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        self.started.put(len(x))
        if not self._permits.acquire(timeout=30):
            raise TimeoutError("the test never permitted this batch")
        self._clock.now += self._seconds
        return super().__call__(x, context)


class Poisoned(Doubling):
    """Raises on every batch that holds a row of POISON."""

    def __init__(self, error: Callable[[], BaseException] = lambda: RuntimeError("poison")) -> None:
        super().__init__()
        self._error = error

    def __call__(self, x: Array, context: Array | None) -> tuple[Array, Array]:
        result = super().__call__(x, context)
        if (x == POISON).any():
            raise self._error()
        return result
