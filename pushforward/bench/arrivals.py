"""When the requests of an open loop are due: as a Poisson process, or at equal distances."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Arrivals = Literal["poisson", "constant"]
ARRIVALS: tuple[Arrivals, ...] = get_args(Arrivals)


def due_times(rate: float, seconds: float, arrivals: Arrivals, seed: int) -> NDArray[np.float64]:
    """Seconds after the start at which requests are due, in order.

    Poisson arrivals are those of many clients who know nothing of each other: their number varies,
    by its square root, and several may be due at nearly the same time. Constant ones are 1 / rate
    apart, which is kinder to a server than any crowd.

    Raises:
        ValueError: the rate is not positive.
    """
    if not rate > 0:
        raise ValueError(f"rate: expected more than 0 requests a second, got {rate}")
    if arrivals == "constant":
        return np.arange(int(rate * seconds)) / rate
    rng = np.random.default_rng(seed)
    # That a Poisson number is so far above its mean happens once in 10^20 runs.
    most = int(rate * seconds + 10 * np.sqrt(rate * seconds) + 10)
    due = np.cumsum(rng.exponential(1 / rate, most))
    return due[due < seconds]
