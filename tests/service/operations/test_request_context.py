"""What a request holds of its API key's limits: all its rows, once, until it is over."""

import pytest

from service.errors import KeyLimitExceeded
from service.keys import ApiKey, KeyRule
from service.operations.request_context import RequestContext


def request_of(key: ApiKey) -> RequestContext:
    request = RequestContext(0.0, 1.0)
    request.use_key(key)
    return request


def test_rows_are_held_until_the_request_is_over() -> None:
    key = ApiKey(KeyRule("a", (), rows_in_flight=10))
    first, second = request_of(key), request_of(key)
    first.hold_rows(4)
    first.hold_rows(6)
    with pytest.raises(KeyLimitExceeded):
        second.hold_rows(5)
    second.hold_rows(4)
    first.release_rows()
    first.release_rows()
    with pytest.raises(KeyLimitExceeded):
        request_of(key).hold_rows(7)
    request_of(key).hold_rows(6)


def test_rows_that_an_answer_needs_beside_its_own_are_held_and_released() -> None:
    key = ApiKey(KeyRule("a", (), rows_in_flight=10, rows_per_second=1e6))
    request = request_of(key)
    request.hold_rows(4)
    request.hold_more_rows(20)
    with pytest.raises(KeyLimitExceeded, match="24 are and 1 more came"):
        request_of(key).hold_rows(1)
    request.release_rows()
    request_of(key).hold_rows(10)


def test_a_request_that_goes_on_in_a_task_releases_its_rows_once() -> None:
    key = ApiKey(KeyRule("a", (), rows_in_flight=10))
    former = request_of(key)
    former.hold_rows(8)
    request = RequestContext(0.0, 1.0)
    request.go_on_for(former)
    former.release_rows()
    with pytest.raises(KeyLimitExceeded, match="8 are and 3 more came"):
        request_of(key).hold_rows(3)
    request.release_rows()
    request_of(key).hold_rows(10)
    with pytest.raises(KeyLimitExceeded, match="10 are and 1 more came"):
        request_of(key).hold_rows(1)
