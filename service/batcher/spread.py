"""The spread of waiting rows over instances: how many of them one more instance starts on.

To wake a thread and hand it a batch takes 0.1 to 0.2 ms on two cores, and what a thread more has
to do in Python keeps the event loop waiting. So an instance more must bring the finish forward by a
whole millisecond (docs/serving.md, "Instances").
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# From the decision to wake an instance until it computes.
HAND_OVER_SECONDS = 150e-6
# How much earlier all rows must be done for one more instance to start.
MIN_GAIN_SECONDS = 1e-3
# Of a row: what is no more than that above a whole number is that number.
_ROUNDING = 1e-6


class BatchCost(NamedTuple):
    """The cost of a batch on one instance: `fixed + per_row * rows` seconds."""

    fixed: float
    per_row: float


def predicted_finish(rows: int, cost: BatchCost, ready: Iterable[float]) -> float:
    """Seconds until all rows are done, shared so that the instances that help end together.

    Args:
        rows: that wait.
        cost: of a batch.
        ready: seconds until each instance could begin, in ascending order.

    Returns:
        The finish; infinity without instances.
    """
    finish, total = math.inf, rows * cost.per_row
    for helpers, seconds in enumerate(ready, 1):
        total += seconds + cost.fixed
        if total / helpers >= finish:
            break
        finish = total / helpers
    return finish


def rows_to_start(
    rows: int, cost: BatchCost, busy: Sequence[float], free: int, own: float = 0.0
) -> int:
    """How many of the waiting rows one more instance starts on now.

    The rule: k + 1 instances start only if all rows are predicted to be done at least
    `MIN_GAIN_SECONDS` earlier than with k; those who start share the rows so that all end at
    once, the busy ones included, as soon as they are free.

    Args:
        rows: that wait.
        cost: of a batch.
        busy: seconds until each instance that computes is predicted to be free.
        free: instances that could start, this one included.
        own: seconds until this one could begin: 0 for one that is awake.

    Returns:
        Its share; 0 where it would not pay.
    """
    work = rows * cost.per_row
    if not busy and (free == 1 or work < MIN_GAIN_SECONDS):
        return rows
    ready = sorted(busy)
    if ready and ready[0] + cost.fixed + work < MIN_GAIN_SECONDS:
        return 0
    before = predicted_finish(rows, cost, ready)
    ready = sorted([*ready, own])
    finish = predicted_finish(rows, cost, ready)
    if busy and before - finish < MIN_GAIN_SECONDS:
        return 0
    for _ in range(free - 1):
        more = sorted([*ready, HAND_OVER_SECONDS])
        earlier = predicted_finish(rows, cost, more)
        if finish - earlier < MIN_GAIN_SECONDS:
            break
        ready, finish = more, earlier
    if cost.per_row <= 0.0:
        return rows
    share = math.ceil((finish - own - cost.fixed) / cost.per_row - _ROUNDING)
    return min(rows, max(1, share))
