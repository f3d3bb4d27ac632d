"""The limits of a key: what passes, what waits how long, what never passes."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import KeyLimitExceeded, TooLargeForKey
from service.keys import ApiKey, KeyRule
from service.keys.rate_limit import RateLimit


class Clock:
    """Goes on when it is told to."""

    now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(call: Callable[..., None], *arguments: Any) -> tuple[Any, int | None]:
    """Which limit refuses a call, and for how long."""
    with pytest.raises((KeyLimitExceeded, TooLargeForKey)) as caught:
        call(*arguments)
    return caught.value.members["limit"], caught.value.retry_after


def test_requests_a_second(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), requests_per_second=4), clock=clock)
    for _ in range(4):
        key.take_request()
    assert refused(key.take_request) == ("requests_per_second", 1)
    clock.now += 0.25
    key.take_request()
    assert refused(key.take_request) == ("requests_per_second", 1)
    clock.now += 3600.0
    for _ in range(4):
        key.take_request()
    assert refused(key.take_request)


def test_a_slow_rate_says_when_to_come_back(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), requests_per_second=0.1), clock=clock)
    key.take_request()
    clock.now += 2.5
    assert refused(key.take_request) == ("requests_per_second", 8)
    clock.now += 8
    key.take_request()


def test_rows_a_second(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), rows_per_second=100), clock=clock)
    key.take_rows(100)
    assert refused(key.take_rows, 1) == ("rows_per_second", 1)
    clock.now += 0.5
    assert refused(key.take_rows, 51) == ("rows_per_second", 1)
    key.take_rows(50)
    assert refused(key.take_rows, 101) == ("rows_per_second", None), "never"


def test_a_rate_that_changes_allows_as_many_at_once(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), requests_per_second=2, rows_per_second=10), clock=clock)
    key.take_request()
    key.change(KeyRule("a", (), requests_per_second=8, rows_per_second=100))
    clock.now += 1.0
    for _ in range(8):
        key.take_request()
    assert refused(key.take_request) == ("requests_per_second", 1)
    key.take_rows(100)
    assert refused(key.take_rows, 1) == ("rows_per_second", 1)
    key.change(KeyRule("a", (), requests_per_second=2, rows_per_second=10))
    clock.now += 60.0
    key.take_rows(10)
    assert refused(key.take_rows, 1) == ("rows_per_second", 1)


def test_rows_in_flight(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), rows_in_flight=8), clock=clock)
    key.take_rows(5)
    assert refused(key.take_rows, 4) == ("rows_in_flight", 1)
    key.take_rows(3)
    key.release_rows(5)
    key.take_rows(5)
    assert refused(key.take_rows, 9) == ("rows_in_flight", None), "never"


def test_what_is_refused_takes_nothing(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), rows_per_second=10, rows_in_flight=8), clock=clock)
    key.take_rows(8)
    assert refused(key.take_rows, 2)[0] == "rows_in_flight"
    key.release_rows(8)
    key.take_rows(2)
    assert refused(key.take_rows, 1)[0] == "rows_per_second"
    key.release_rows(2)
    clock.now += 0.8
    key.take_rows(8)


def test_rows_that_an_answer_needs_more_are_paid_for_later(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), rows_per_second=10), clock=clock)
    key.take_rows(1)
    key.add_rows(39)
    assert refused(key.take_rows, 1) == ("rows_per_second", 4)
    clock.now += 3.1
    key.take_rows(1)


def test_each_process_has_its_part(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), 8, 100, 8), processes=4, clock=clock)
    key.take_request()
    key.take_request()
    assert refused(key.take_request)[0] == "requests_per_second"
    key.take_rows(8)  # alone it may have more than the part, or it would never be answered
    assert refused(key.take_rows, 1)[0] == "rows_in_flight"
    key.release_rows(8)
    key.take_rows(2)
    assert refused(key.take_rows, 1)[0] == "rows_in_flight"


def test_a_change_of_the_rule_forgets_nothing(clock: Clock) -> None:
    key = ApiKey(KeyRule("a", (), requests_per_second=2, rows_in_flight=4), clock=clock)
    key.take_request()
    key.take_request()
    key.take_rows(4)
    key.change(KeyRule("a", (), requests_per_second=2, rows_in_flight=5, weight=3))
    assert key.share == ("a", 3)
    assert refused(key.take_request)
    assert refused(key.take_rows, 2)
    key.take_rows(1)
    key.change(KeyRule("a", ()))
    key.take_request()
    key.take_rows(10**6)


def test_who_refused_is_counted(clock: Clock) -> None:
    seen: list[tuple[str, str]] = []
    key = ApiKey(KeyRule("a", (), 1, 2), 1, lambda *what: seen.append(what), clock)
    key.take_request()
    refused(key.take_request)
    refused(key.take_rows, 3)
    assert seen == [("a", "requests_per_second"), ("a", "rows_per_second")]


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(0.05, 1e5),
    gaps=st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=60),
)
def test_no_window_has_more_than_rate_and_what_may_come_at_once(
    rate: float, gaps: list[tuple[float, float]]
) -> None:
    limit, now = RateLimit(rate), 100.0
    taken: list[tuple[float, float]] = []
    for gap, part in gaps:
        now += gap
        count = part * limit.most
        wait = limit.seconds_until(count, now)
        if not wait:
            limit.take(count, now)
            taken.append((now, count))
        else:
            assert limit.seconds_until(count, now + wait + 1e-6) == 0.0, "the wait is enough"
            assert limit.seconds_until(count, now + 0.9 * wait) > 0.0, "and no longer than needed"
    for first, (began, _) in enumerate(taken):
        total = 0.0
        for when, count in taken[first:]:
            total += count
            assert total <= limit.most + rate * (when - began) + 1e-3 * max(1.0, total)
