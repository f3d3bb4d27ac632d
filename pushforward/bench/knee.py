"""The knee of a server: the highest rate at which p99 stays below a bound, and nothing fails.

Rates are doubled until one is not reached, then the interval is halved, and what was found is tried
once more, for longer. A rate is reached if its requests were answered as fast as they came, none
failed, and the p99 of their latency, from when they were due, is below the bound.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pushforward.bench.recording import INTERRUPTED
from pushforward.bench.summary import KEPT_SHARE, error_counts
from pushforward.bench.text import number

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
    problem: why there is no knee; "" where there is one.
    is_interrupted: whether somebody ended it early.
    given_up: why it ended early by itself; "" where it did not.
    """

    steps: list[Step] = field(default_factory=list)
    knee: Step | None = None
    is_limited_by_generator: bool = False
    problem: str = ""
    is_interrupted: bool = False
    given_up: str = ""

    def end_with(self, figures: dict[str, Any]) -> None:
        """End it where a load was ended early: then it has a problem."""
        self.is_interrupted = figures["is_interrupted"]
        self.given_up = figures["given_up"] or ""
        self.problem = INTERRUPTED if self.is_interrupted else self.given_up


def begin_search(first: dict[str, Any]) -> KneeSearch:
    """Begin with the figures of a closed loop: where nothing is answered there is no knee."""
    search = KneeSearch()
    search.end_with(first)
    if not search.problem and first["errors"]["total"] and not first["requests"]:
        search.problem = f"no request of a first load was answered ({error_counts(first)})"
    return search


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
        return f"{number(rate)}/s of {number(offered)}/s were answered"
    if latency["p99"] >= p99_ms:
        return f"p99 {number(latency['p99'])} ms"
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
        search.end_with(figures)
        if search.problem:
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
                return search
    except _EndedError:
        return search
    except KeyboardInterrupt:  # between two loads
        search.is_interrupted, search.problem = True, INTERRUPTED
        return search
    last = search.steps[-1]
    search.problem = f"{number(last.rate)}/s: {last.problem}"
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
