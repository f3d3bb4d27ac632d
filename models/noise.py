"""Base noise: numpy only, so that every engine, device and process draws the same."""

import numpy as np
from numpy.typing import NDArray

MAX_SEED = 2**64 - 1


def base_noise(
    rows: int, features: int, *, seed: int | None = None, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Draw z ~ N(0, T^2 I) in float64.   -> (rows, features).

    One seed gives one stream: the first k rows are the same whatever `rows` is. The generator is
    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").

    Raises:
        ValueError: if the seed is not in 0 .. 2^64 - 1.
    """
    if seed is not None and not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed: expected 0 .. {MAX_SEED}, got {seed}")
    generator = np.random.Generator(np.random.Philox(seed))
    return temperature * generator.standard_normal((rows, features))


def draw_seed() -> int:
    """Make a seed where none was given, small enough for every JSON reader (53 bits)."""
    return int(np.random.default_rng().integers(2**53))
