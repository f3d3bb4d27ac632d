"""Clients that leave or dawdle."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import orjson
import pytest

from service.app import create_app
from service.contracts import Array, InferenceResult
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.fake_repository import FakeRepository, Linear, app_over, post

PATIENCE_SECONDS = 20.0
# How old a request is when its client is watched.
WATCHED_AFTER_SECONDS = 0.05


class Connection:
    """A client on the other end of an ASGI application."""

    def __init__(self, body: bytes | None) -> None:
        self.sent: list[dict[str, Any]] = []
        self._body = body
        self._gone = asyncio.Event()
        self.watched = asyncio.Event()

    def hang_up(self) -> None:
        self._gone.set()

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        self.watched.set()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def request(self, app: Any, path: str = "/encode") -> Coroutine[Any, Any, None]:
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        result: Coroutine[Any, Any, None] = app(scope, self.receive, self.send)
        return result


BODY = orjson.dumps({"model": "line", "x": [[2, 4, 6]]})


class LoopbackServer:
    """An application whose one model waits at a gate."""

    def __init__(self, **settings: Any) -> None:
        self.repository = FakeRepository()
        self.metrics = Metrics()
        self.app = create_app(
            Settings(log_level="error", **settings), self.repository, self.metrics
        )
        self.queue = self.repository.queue("line", "encode")
        self.queue.gate, self.queue.entered = asyncio.Event(), asyncio.Event()

    def count(self, code: int, model: str = "line") -> float | None:
        version = "3" if model else ""
        labels = {"model": model, "version": version, "op": "encode", "code": str(code)}
        return self.metrics.registry.get_sample_value("pushforward_requests_total", labels)


def run(loopback: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await loopback

    asyncio.run(bounded())


def test_a_client_that_leaves_frees_its_place_in_the_queue() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        assert loopback.queue.entered is not None
        client = Connection(BODY)
        request = asyncio.create_task(client.request(loopback.app))
        await loopback.queue.entered.wait()
        client.hang_up()
        await request
        assert loopback.queue.was_cancelled
        assert client.sent == [], "nobody is there to answer"
        assert loopback.count(499) == 1

    run(play())


def test_a_client_that_waits_long_is_answered() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        assert loopback.queue.entered is not None
        assert loopback.queue.gate is not None
        client = Connection(BODY)
        request = asyncio.create_task(client.request(loopback.app))
        await loopback.queue.entered.wait()
        await client.watched.wait()
        loopback.queue.gate.set()
        await request
        assert client.sent[0]["status"] == 200
        assert loopback.count(200) == 1

    run(play())


def test_neighbours_of_a_client_that_leaves_are_answered() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        assert loopback.queue.gate is not None
        clients = [Connection(BODY) for _ in range(5)]
        requests = [asyncio.create_task(client.request(loopback.app)) for client in clients]
        clients[2].hang_up()
        await requests[2]
        loopback.queue.gate.set()
        await asyncio.gather(*requests)
        assert [bool(client.sent) for client in clients] == [True, True, False, True, True]

    run(play())


def test_a_client_that_leaves_in_the_middle_of_its_body_is_not_answered() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        client = Connection(None)
        client.hang_up()
        await client.request(loopback.app)
        assert client.sent == []
        assert loopback.count(499, model="") == 1

    run(play())


def test_a_body_that_never_comes_is_408() -> None:
    async def play() -> None:
        loopback = LoopbackServer(request_timeout_seconds=0.1)
        client = Connection(None)
        await client.request(loopback.app)
        assert client.sent[0]["status"] == 408
        assert orjson.loads(client.sent[1]["body"])["code"] == "body_timeout"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0, "the task goes on as if it had never been cancelled"

    run(play())


def test_a_body_that_came_late_but_came_is_answered() -> None:
    """From then on the queue minds the deadline: it would say 504, and this one does not mind."""

    async def play() -> None:
        loopback = LoopbackServer(request_timeout_seconds=0.3)
        assert loopback.queue.entered is not None
        assert loopback.queue.gate is not None
        client = Connection(BODY)
        whole = asyncio.Event()

        async def receive_late() -> dict[str, Any]:
            await whole.wait()
            return await Connection.receive(client)

        client.receive = receive_late  # type: ignore[method-assign]
        request = asyncio.create_task(client.request(loopback.app))
        await asyncio.sleep(3 * WATCHED_AFTER_SECONDS)
        whole.set()
        await loopback.queue.entered.wait()
        await asyncio.sleep(0.3)
        loopback.queue.gate.set()
        await request
        assert client.sent[0]["status"] == 200

    run(play())


@pytest.mark.parametrize("is_watched", [False, True], ids=["soon", "late"])
def test_an_answered_request_is_watched_no_longer(is_watched: bool) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        assert loopback.queue.gate is not None
        client = Connection(BODY)
        request = asyncio.ensure_future(client.request(loopback.app))
        if is_watched:
            await client.watched.wait()
        loopback.queue.gate.set()
        await request
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        client.watched.clear()
        await asyncio.sleep(3 * WATCHED_AFTER_SECONDS)
        assert not client.watched.is_set()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(play())


def test_a_shutdown_is_not_mistaken_for_a_client_that_left() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        assert loopback.queue.entered is not None
        request = asyncio.create_task(Connection(BODY).request(loopback.app))
        await loopback.queue.entered.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    run(play())


# How long they wait

REQUESTS = {
    "/encode": {"model": "line", "x": [[2, 4, 6]]},
    "/v2/models/line/infer": {
        "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [2, 4, 6]}]
    },
}
paths = pytest.mark.parametrize("path", REQUESTS)


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
