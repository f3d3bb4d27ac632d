"""The batch sizes at which a function is captured: few, since each takes time and memory to make.

A graph computes as many rows as it was captured with. So the smallest holds as many rows as cost no
more than one, and the others lie between that and the largest batch, at equal ratios of their cost.
"""

from collections.abc import Iterable, Mapping

# What the smallest size may cost, in units of a single row.
SMALLEST_COST = 1.1
# How much more the next larger size must cost for one between to be worth a graph.
_LEAST_RATIO = 1.5
MOST_SIZES = 4


def candidate_sizes(max_rows: int) -> list[int]:
    """The sizes that are measured, the largest first: all powers of two, and `max_rows`."""
    powers = [2**power for power in range(max_rows.bit_length()) if 2**power < max_rows]
    return [max_rows, *reversed(powers)]


def choose_sizes(seconds: Mapping[int, float]) -> tuple[int, ...]:
    """Choose two to four sizes by what a batch of each takes; one where all cost the same.

    Args:
        seconds: size -> what a batch takes.

    Returns:
        The sizes, the smallest first.
    """
    largest = max(seconds)
    most = SMALLEST_COST * seconds[min(seconds)]
    smallest = max(size for size in seconds if seconds[size] <= most)
    if smallest == largest:
        return (largest,)
    ratio = seconds[largest] / seconds[smallest]
    between = [size for size in seconds if smallest < size < largest]
    chosen = {smallest, largest}
    steps = MOST_SIZES - 1
    for step in range(1, steps):
        wanted = seconds[smallest] * max(ratio, 1.0) ** (step / steps)
        free = [size for size in between if size not in chosen]
        free = [size for size in free if _saves(seconds, size, chosen)]
        if free:
            chosen.add(min(free, key=lambda size: abs(seconds[size] - wanted)))
    return tuple(sorted(chosen))


def size_for(rows: int, sizes: Iterable[int]) -> int | None:
    """The smallest size that holds so many rows; None where none does."""
    return min((size for size in sizes if size >= rows), default=None)


def _saves(seconds: Mapping[int, float], size: int, chosen: Iterable[int]) -> bool:
    """Whether a size costs so much less than the next larger one that it is worth a graph."""
    above = min(other for other in chosen if other > size)
    return seconds[above] >= _LEAST_RATIO * seconds[size]
