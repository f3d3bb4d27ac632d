"""The base N(0, I): its noise and its log-density.

Imports numpy only, so that every engine, device and process draws the same noise, and a server
without torch scores it.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

MAX_SEED = 2**64 - 1
LOG_TWO_PI = math.log(2 * math.pi)

# Rows that share one stretch of the generator: drawing row n costs at most this many rows before
# it. Part of the contract: another number gives other samples.
_ROWS_IN_BLOCK = 256


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
    generator = np.random.Generator(philox)
    if first_row + rows <= _ROWS_IN_BLOCK:
        return temperature * generator.standard_normal((first_row + rows, features))[first_row:]
    start = philox.state
    noise = np.empty((rows, features))
    row = first_row
    while row < first_row + rows:
        block, skipped = divmod(row, _ROWS_IN_BLOCK)
        count = min(_ROWS_IN_BLOCK - skipped, first_row + rows - row)
        start["state"]["counter"][2] = block
        philox.state = start
        drawn = generator.standard_normal((skipped + count, features))
        noise[row - first_row : row - first_row + count] = drawn[skipped:]
        row += count
    return temperature * noise


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
    wide = z.double()
    return (-0.5 * (wide.square().sum(1) + z.shape[1] * LOG_TWO_PI)).to(z.dtype)
