"""Several calls at a time: their results in order, and none after the first error."""

import pytest

from service.remote.parallel import in_parallel


def test_results_are_in_the_order_of_the_items() -> None:
    assert in_parallel([3, 1, 2], str, 2) == ["3", "1", "2"]
    assert in_parallel([], str, 2) == []


def test_no_call_is_begun_after_one_that_raised() -> None:
    begun: list[int] = []

    def call(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise ValueError("one")

    with pytest.raises(ValueError, match="one"):
        in_parallel(range(4), call, 1)
    assert begun == [0, 1]
