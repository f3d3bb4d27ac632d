"""Requests that meet a model in the moment it is replaced, and clients that say how long."""

import time
from typing import Any

import pytest

from service.contracts import Array, InferenceResult, ServedModel
from service.errors import NotReady
from tests.service.fake_repository import FakeRepository, Linear, app_over, card, post

REQUESTS = {
    "/encode": {"model": "line", "x": [[2, 4, 6]]},
    "/v2/models/line/infer": {
        "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [2, 4, 6]}]
    },
}
paths = pytest.mark.parametrize("path", REQUESTS)


class Leaving(Linear):
    """The queue of a model that is replaced before it takes the first rows."""

    house: FakeRepository
    successor: ServedModel

    async def submit(self, rows: Array, context: Array | None, deadline: float) -> InferenceResult:
        self.house._served["line"] = self.successor
        raise NotReady("not taking requests now")


def house_that_moves() -> FakeRepository:
    house = FakeRepository()
    queue = Leaving((3,), True)
    queue.house = house
    old = house.get("line")
    queue.successor = ServedModel(card("line", (3,), version="4"), old.encode, old.decode)
    house._served["line"] = ServedModel(old.card, queue, old.decode)
    return house


@paths
def test_a_replaced_model_hands_its_newcomers_on(path: str) -> None:
    answer = post(app_over(house_that_moves()), path, json=REQUESTS[path])
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content.get("version", content.get("model_version")) == "4"


@paths
def test_a_model_without_successor_is_not_asked_again(path: str) -> None:
    house = FakeRepository()
    queue = house.queue("line", "encode")
    queue.failure = NotReady("not taking requests now")
    answer = post(app_over(house), path, json=REQUESTS[path])
    assert answer.status_code == 503
    assert len(queue.calls) == 1


@pytest.fixture
def deadlines(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds left of each request that reached a queue."""
    seen: list[float] = []
    plain = Linear.submit

    async def submit(
        self: Linear, rows: Array, context: Array | None, deadline: float
    ) -> InferenceResult:
        seen.append(deadline - time.monotonic())
        return await plain(self, rows, context, deadline)

    monkeypatch.setattr(Linear, "submit", submit)
    return seen


@paths
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, 30.0), ({"X-Timeout-Seconds": "7.5"}, 7.5), ({"X-Timeout-Seconds": "99999"}, 30.0)],
    ids=["unsaid", "shorter", "longer"],
)
def test_the_shorter_of_both_timeouts_holds(
    path: str, headers: dict[str, str], seconds: float, deadlines: list[float]
) -> None:
    post(app_over(FakeRepository()), path, json=REQUESTS[path], headers=headers)
    assert seconds - 5 < deadlines[0] <= seconds


@paths
@pytest.mark.parametrize("value", ["-1", "nan", "1e3", "", "1_0", "soon", "9" * 400])
def test_a_timeout_that_is_none_is_refused(path: str, value: str, deadlines: list[Any]) -> None:
    headers = {"X-Timeout-Seconds": value}
    answer = post(app_over(FakeRepository()), path, json=REQUESTS[path], headers=headers)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_parameter"
    assert deadlines == []
