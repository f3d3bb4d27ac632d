"""The knee of a server: the highest rate at which p99 stays below a bound, and nothing fails.

Rates are doubled until one is not reached, then the interval is halved, and what was found is tried
once more, for longer. A rate is reached if its requests were answered as fast as they came, none
failed, and the p99 of their latency, from when they were due, is below the bound.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pushforward.bench.summary import KEPT_SHARE

# The interval in which the knee lies is halved until it is so narrow.
_TOLERANCE = 0.05
# What was found is tried for longer, and so many parts of it, until one is reached.
_CONFIRMED_PARTS = (1.0, 0.95, 0.88, 0.75, 0.5, 0.25)
_LEAST_RATE = 0.5


@dataclass(frozen=True, slots=True)
class Step:
    """One rate that was tried.

    rate: that was asked for.
    figures: of the load, as `summarize` gives them.
    problem: why it is not reached; "" if it is.
    is_confirmation: whether it was tried for longer, at the end.
    """

    rate: float
    figures: dict[str, Any]
    problem: str
    is_confirmation: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether the server can do it."""
        return not self.problem


@dataclass(slots=True)
class KneeSearch:
    """What a search has found so far.

    steps: all that was tried, in order.
    knee: the highest rate that was reached and confirmed; None while there is none.
    is_limited_by_generator: whether a higher rate could not be sent from here.
    is_ended: whether it was ended early.
    """

    steps: list[Step] = field(default_factory=list)
    knee: Step | None = None
    is_limited_by_generator: bool = False
    is_ended: bool = False


def judge(figures: dict[str, Any], p99_ms: float) -> str:
    """Why a rate is not reached; "" if it is."""
    errors, latency = figures["errors"]["total"], figures["latency_ms"]
    if errors:
        reason = next(iter(figures["errors"]["by_reason"]))
        return f"{errors} errors ({reason})"
    if latency is None:
        return "no answers"
    rate, offered = figures["requests_per_second"], figures["offered_per_second"]
    if rate < KEPT_SHARE * offered:
        return f"{rate:,.4g}/s of {offered:,.4g}/s were answered"
    if latency["p99"] >= p99_ms:
        return f"p99 {latency['p99']:,.4g} ms"
    return ""


def find_knee(
    measure: Callable[[float, bool], dict[str, Any]],
    start: float,
    p99_ms: float,
    report: Callable[[Step], None] = lambda step: None,
) -> KneeSearch:
    """Search.

    Args:
        measure: sends a rate, for longer where it is a confirmation; gives the figures.
        start: the first rate.
        p99_ms: the bound.
        report: is told each step.
    """
    search = KneeSearch()

    def is_reached(rate: float, is_confirmation: bool = False) -> bool:
        figures = measure(rate, is_confirmation)
        step = Step(rate, figures, judge(figures, p99_ms), is_confirmation)
        search.steps.append(step)
        report(step)
        if figures["is_interrupted"] or figures["given_up"]:
            search.is_ended = True
            raise _EndedError
        if not step.is_reached and figures["limited_by"] == "generator":
            search.is_limited_by_generator = True
        return step.is_reached

    try:
        low, high = _bracket(is_reached, start)
        while low and high and high / low > 1 + _TOLERANCE:
            middle = (low + high) / 2
            low, high = (middle, high) if is_reached(middle) else (low, middle)
        for part in _CONFIRMED_PARTS if low else ():
            if is_reached(part * low, True):
                search.knee = search.steps[-1]
                break
    except _EndedError:
        pass
    return search


class _EndedError(Exception):
    """The load was ended early."""


def _bracket(is_reached: Callable[[float], bool], start: float) -> tuple[float, float]:
    """A rate that is reached and one, at most twice as high, that is not; 0 where there is none."""
    if is_reached(start):
        low = start
        while is_reached(2 * low):
            low *= 2
        return low, 2 * low
    high = start
    while high / 2 >= _LEAST_RATE:
        if is_reached(high / 2):
            return high / 2, high
        high /= 2
    return 0.0, high
