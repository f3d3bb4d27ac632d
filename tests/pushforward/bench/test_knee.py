"""The search for the knee, against servers whose knee is known."""

from typing import Any

import pytest

from pushforward.bench.knee import Step, begin_search, find_knee, judge


def figures(rate: float, p99: float, **changes: Any) -> dict[str, Any]:
    return {
        "errors": {"total": 0, "by_reason": {}},
        "latency_ms": {"p99": p99},
        "requests_per_second": rate,
        "offered_per_second": rate,
        "limited_by": None,
        "is_interrupted": False,
        "given_up": None,
        **changes,
    }


def queue_of(capacity: float) -> Any:
    """A server of one queue (M/M/1): p99 is 4.6 / (capacity - rate); more falls behind."""

    def measure(rate: float, _: bool) -> dict[str, Any]:
        if rate >= capacity:
            return figures(capacity, 5000.0, offered_per_second=rate, limited_by="server")
        return figures(rate, 4605 / (capacity - rate))

    return measure


@pytest.mark.parametrize("capacity", [200.0, 1000.0, 40_000.0])
@pytest.mark.parametrize("first", [0.02, 1 / 8, 3.0])
def test_the_knee_is_found(capacity: float, first: float) -> None:
    """p99 is 50 ms at capacity - 92.1."""
    knee = capacity - 4605 / 50
    steps: list[Step] = []
    found = find_knee(queue_of(capacity), first * capacity, 50.0, steps.append)
    assert found.knee is not None
    assert 0.94 * knee < found.knee.rate < knee
    assert found.knee.is_confirmation
    assert found.knee.rate == max(step.rate for step in steps if step.is_reached)
    assert found.knee.rate in [step.rate for step in steps if not step.is_confirmation]
    assert steps == found.steps
    assert len(steps) < 20
    assert not found.is_limited_by_generator


def test_what_is_not_reached_again_is_no_knee() -> None:
    """A rate that was reached by luck; tried for longer, p99 is above the bound."""

    def measure(rate: float, is_confirmation: bool) -> dict[str, Any]:
        return figures(rate, 60.0 if is_confirmation and rate > 85 else 20.0 + (rate > 100) * 100)

    found = find_knee(measure, 50.0, 50.0)
    assert found.knee is not None
    assert found.knee.rate < 85
    failed = [step for step in found.steps if step.is_confirmation and not step.is_reached]
    assert failed[0].problem == "p99 60 ms"


def test_no_rate_may_be_reached() -> None:
    found = find_knee(lambda rate, _: figures(rate, 80.0), 64.0, 50.0)
    assert found.knee is None
    assert found.problem == "0.5/s: p99 80 ms"
    assert min(step.rate for step in found.steps) < 1.1


def test_a_generator_that_cannot_send_more_is_told() -> None:
    def measure(rate: float, _: bool) -> dict[str, Any]:
        if rate > 3000:
            return figures(3000, 4.0, offered_per_second=rate, limited_by="generator")
        return figures(rate, 4.0)

    found = find_knee(measure, 1000.0, 50.0)
    assert found.is_limited_by_generator
    assert found.knee is not None
    assert 2800 < found.knee.rate <= 3000


def test_a_rate_that_was_sent_late_and_kept_is_no_limit() -> None:
    def measure(rate: float, _: bool) -> dict[str, Any]:
        limit = "generator" if rate < 900 else "server"
        return figures(rate, 4.0 if rate < 1000 else 90.0, limited_by=limit)

    assert not find_knee(measure, 500.0, 50.0).is_limited_by_generator


def test_an_interrupt_ends_the_search() -> None:
    found = find_knee(lambda rate, _: figures(rate, 4.0, is_interrupted=True), 10.0, 50.0)
    assert (found.is_interrupted, found.knee, len(found.steps)) == (True, None, 1)
    assert (found.problem, found.given_up) == ("interrupted", "")


def test_an_interrupt_between_two_rates_ends_the_search() -> None:
    def measure(rate: float, _: bool) -> dict[str, Any]:
        if rate > 30:
            raise KeyboardInterrupt
        return figures(rate, 4.0)

    found = find_knee(measure, 10.0, 50.0)
    assert (found.is_interrupted, found.problem, len(found.steps)) == (True, "interrupted", 2)


def test_a_server_that_is_gone_ends_the_search_which_is_no_interrupt() -> None:
    found = find_knee(lambda rate, _: figures(rate, 4.0, given_up="it is gone"), 10.0, 50.0)
    assert (found.is_interrupted, found.given_up, found.problem) == (
        False, "it is gone", "it is gone"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"requests": 0}, ""),  # slower than the load was long: no error
        ({"requests": 1, "errors": {"total": 9, "by_reason": {"overloaded": 9}}}, ""),
        (
            {"requests": 0, "errors": {"total": 1009, "by_reason": {"large": 1000, "late": 9}}},
            "no request of a first load was answered (large: 1,000, late: 9)",
        ),
        ({"requests": 0, "is_interrupted": True}, "interrupted"),
        ({"given_up": "it is gone"}, "it is gone"),
    ],
)
def test_where_a_search_cannot_begin(changes: dict[str, Any], problem: str) -> None:
    assert begin_search(figures(100.0, 4.0, **{"requests": 200, **changes})).problem == problem


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"errors": {"total": 3, "by_reason": {"overloaded": 3}}}, "3 errors (overloaded)"),
        ({"latency_ms": None}, "no answers"),
        ({"requests_per_second": 90.0}, "90/s of 100/s were answered"),
        ({"latency_ms": {"p99": 50.0}}, "p99 50 ms"),
    ],
)
def test_why_a_rate_is_not_reached(changes: dict[str, Any], problem: str) -> None:
    assert judge(figures(100.0, 49.0, **changes), 50.0) == problem
