"""The base N(0, I): its noise and its log-density.

Imports numpy only, so that every engine, device and process draws the same noise, and a server
without torch scores it.
"""

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

MAX_SEED = 2**64 - 1
LOG_TWO_PI = math.log(2 * math.pi)

# Rows that share one stretch of the generator: drawing row n costs at most this many rows before
# it. Part of the contract: another number gives other samples.
_ROWS_IN_BLOCK = 256
# Numbers of a block from which on it is worth a thread: less is drawn before one has begun.
_VALUES_FOR_THREAD = 2**15


class _Drawers:
    """The threads that draw blocks, beside the one that asks; started when first needed."""

    def __init__(self) -> None:
        self.threads = 1
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        """The threads, all but one."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(max(1, self.threads - 1), "noise")
            return self._pool

    def resize(self, threads: int) -> None:
        """Let so many draw from now on."""
        with self._lock:
            pool, self._pool, self.threads = self._pool, None, threads
        if pool is not None:
            pool.shutdown(wait=False)


_drawers = _Drawers()


def set_noise_threads(threads: int) -> None:
    """Set how many threads draw the blocks of a call, 1 at first: the bits are the same.

    1,024 latents of 3,072 numbers take 55 ms on one thread, 27 ms on two.
    """
    _drawers.resize(threads)


def base_noise(
    rows: int,
    features: int,
    *,
    seed: int | None = None,
    temperature: float = 1.0,
    first_row: int = 0,
) -> NDArray[np.float64]:
    """Draw rows first_row, first_row + 1, ... of z ~ N(0, T^2 I) in float64.

    One seed gives one endless table, from which any rows can be had: row n is the same whatever is
    drawn before it or with it. The generator is Philox (Salmon et al. 2011, "Parallel random
    numbers: as easy as 1, 2, 3"), whose counter is set anew for each block of 256 rows, 2^128
    numbers apart.

    Returns:
        (rows, features).

    Raises:
        ValueError: if the seed is not in 0 .. 2^64 - 1.
    """
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed: expected 0 .. {MAX_SEED}, got {seed}")
    philox = np.random.Philox(seed)
    if first_row + rows <= _ROWS_IN_BLOCK:
        generator = np.random.Generator(philox)
        return temperature * generator.standard_normal((first_row + rows, features))[first_row:]
    noise = np.empty((rows, features))
    key = philox.state["state"]["key"]
    parts = list(_parts(rows, first_row))
    threads = min(_drawers.threads, len(parts))
    if features * _ROWS_IN_BLOCK < _VALUES_FOR_THREAD:
        threads = 1
    shares = [parts[first::threads] for first in range(threads)]
    others = [_drawers.pool().submit(_draw, noise, share, key, temperature) for share in shares[1:]]
    _draw(noise, shares[0], key, temperature)
    for other in others:
        other.result()
    return noise


class _Part(NamedTuple):
    """Rows of one block: those after `skipped` ones, to lie in rows start .. stop - 1."""

    block: int
    skipped: int
    start: int
    stop: int


def _parts(rows: int, first_row: int) -> Iterator[_Part]:
    """Split rows by the blocks they lie in."""
    start = 0
    while start < rows:
        block, skipped = divmod(first_row + start, _ROWS_IN_BLOCK)
        stop = min(start + _ROWS_IN_BLOCK - skipped, rows)
        yield _Part(block, skipped, start, stop)
        start = stop


def _draw(
    noise: NDArray[np.float64], parts: list[_Part], key: NDArray[np.uint64], temperature: float
) -> None:
    """Draw parts into their place; the interpreter is free for others meanwhile."""
    philox = np.random.Philox(0)
    generator = np.random.Generator(philox)
    state = philox.state
    state["state"]["key"] = key
    for block, skipped, start, stop in parts:
        state["state"]["counter"][2] = block
        philox.state = state
        if skipped:
            generator.standard_normal((skipped, noise.shape[1]))
        generator.standard_normal(out=noise[start:stop])
        noise[start:stop] *= temperature


def draw_seed() -> int:
    """Make a seed where none was given, small enough for every JSON reader (53 bits)."""
    return int(np.random.default_rng().integers(2**53))


def base_log_prob(z: NDArray[Any]) -> NDArray[np.float64]:
    """log N(z; 0, I) = -(|z|^2 + D log 2 pi) / 2, in nats, of z (B, D), summed in float64.

    A row's sum does not depend on the other rows: each is a dot product of its own.

    Returns:
        (B,), in float64 whatever z is: what is added to it is added before it is rounded.
    """
    squares = np.vecdot(z, z, dtype=np.float64)
    log_prob: NDArray[np.float64] = -0.5 * (squares + z.shape[1] * LOG_TWO_PI)
    return log_prob


def base_log_prob_of_row(z: NDArray[Any]) -> float:
    """`base_log_prob` of one row z (D,), in nats: the same bits in half the time.

    The arrays of the general form cost a fifth of a one-row request.
    """
    row = z.astype(np.float64)
    return -0.5 * (float(row.dot(row)) + len(row) * LOG_TWO_PI)


def base_log_prob_torch(z: "Tensor") -> "Tensor":
    """log N(z; 0, I) = -(|z|^2 + D log 2 pi) / 2, in nats, of z (B, D), summed in float64.

    Returns:
        (B,), in the dtype of z.
    """
    from models.row_sum import row_sum

    wide = z.double()
    return (-0.5 * (row_sum(wide.square(), 1) + z.shape[1] * LOG_TWO_PI)).to(z.dtype)
