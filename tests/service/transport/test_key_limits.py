"""Limits of keys over HTTP: on every way through the server, and what is counted of them."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.auth import ApiKeyAuth
from service.errors import Unauthorized
from service.telemetry import Metrics
from service.telemetry.keys import MOST_NAMED
from tests.service.transport.loopback import LoopbackServer, Response, read, request, run

KEYS = """
[keys.slow]
key = "key-slow-0123456"
requests_per_second = 0.001

[keys.narrow]
key = "key-narrow-01234"
rows_per_second = 3

[keys.held]
key = "key-held-0123456"
rows_in_flight = 2

[keys.free]
key = "key-free-0123456"
"""
SLOW, NARROW, HELD, FREE = (
    f"key-{name}-0123456"[:16] for name in ("slow", "narrow", "held", "free")
)
ROW, ROWS = (b'{"model": "line", "x": [%s]}' % b",".join([b"[2,4,6]"] * count) for count in (1, 2))
INFER = b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [2, 4, 6]}]}'
# Plain requests on the fast path, those that go on in a task, ASGI, V2.
WAYS = {
    "plain": ("/encode", ROW, {}),
    "in_a_task": ("/encode", ROW, {"Accept": "application/x-npy"}),
    "asgi": ("/encode", ROW, {"Origin": "http://page"}),
    "v2": ("/v2/models/line/infer", INFER, {}),
}


@pytest.fixture
def loopback(tmp_path: Path) -> LoopbackServer:
    file = tmp_path / "keys.toml"
    file.write_text(KEYS)
    return LoopbackServer(api_key_file=file)


def ask(key: str, way: str = "plain", body: bytes | None = None) -> bytes:
    path, usual, headers = WAYS[way]
    return request(path, body or usual, X_API_Key=key, **headers)


async def in_turn(loopback: LoopbackServer, requests: Sequence[bytes]) -> list[Response]:
    """Send one after the other, over one connection."""
    async with loopback.client() as (reader, writer):
        answers = []
        for data in requests:
            writer.write(data)
            answers.append(await read(reader))
        return answers


async def together(loopback: LoopbackServer, requests: Sequence[bytes]) -> list[Response]:
    """Send each over a connection of its own, all in one turn of the loop."""
    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(loopback.client()) for _ in requests]
        for (_, writer), data in zip(ends, requests, strict=True):
            writer.write(data)
        return [await read(reader) for reader, _ in ends]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"pushforward_key_{name}_total", labels)


@pytest.mark.parametrize("way", WAYS)
def test_too_many_requests_are_told_which_limit_and_when_to_come_back(
    loopback: LoopbackServer, way: str
) -> None:
    async def play() -> None:
        first, second, other = await in_turn(
            loopback, [ask(SLOW, way), ask(SLOW, way), ask(FREE, way)]
        )
        assert (first.status, second.status, other.status) == (200, 429, 200)
        problem = second.json()
        assert problem["type"] == "/problems/key_limit_exceeded"
        assert (problem["key"], problem["limit"]) == ("slow", "requests_per_second")
        assert problem["allowed"] == 0.001
        assert 990 <= int(second.headers["retry-after"]) <= 1000
        assert SLOW not in second.body.decode()
        assert value(loopback.metrics, "requests", key="slow", code="429") == 1
        assert value(loopback.metrics, "limited", key="slow", limit="requests_per_second") == 1
        assert value(loopback.metrics, "rows", key="slow") == 1
        assert value(loopback.metrics, "rows", key="free") == 1

    run(play)


def test_neighbours_in_a_batch_are_limited_each_by_its_own_key(loopback: LoopbackServer) -> None:
    async def play() -> None:
        keys = [NARROW, FREE, NARROW, NARROW, FREE, NARROW, SLOW, SLOW, FREE]
        bodies = [b'{"model": "line", "x": [[%d, 4, 6]]}' % (2 * i) for i in range(len(keys))]
        await in_turn(loopback, [ask(FREE)])  # what a row looks like is known from now on
        answers = await together(
            loopback, [ask(key, body=body) for key, body in zip(keys, bodies, strict=True)]
        )
        statuses = [answer.status for answer in answers]
        assert statuses == [200, 200, 200, 200, 200, 429, 200, 429, 200]
        for index, answer in enumerate(answers):
            if answer.status == 200:
                assert answer.json()["z"] == [[float(index), 2.0, 3.0]], "its own numbers"
        calls = loopback.repository.queue("line", "encode").calls
        assert sorted(len(rows) for rows, _ in calls[1:]) == [1, 3, 3], "one batch a key"
        assert value(loopback.metrics, "rows", key="free") == 4
        assert value(loopback.metrics, "limited", key="narrow", limit="rows_per_second") == 1

    run(play)


def test_a_request_that_goes_on_in_a_task_is_counted_once(loopback: LoopbackServer) -> None:
    async def play() -> None:
        body = b'{"model": "line", "x": [[null, 4, 6], [2, 4, 6]], "invalid": "null"}'
        answers = await in_turn(loopback, [ask(SLOW, body=body), ask(SLOW, body=body)])
        assert [answer.status for answer in answers] == [200, 429]
        assert loopback.fast == 2

    run(play)


@pytest.mark.parametrize("way", ["plain", "in_a_task", "asgi"])
def test_more_rows_than_the_limit_ever_allows(loopback: LoopbackServer, way: str) -> None:
    async def play() -> None:
        body = b'{"model": "line", "x": [%s]}' % b",".join([b"[2,4,6]"] * 4)
        answers = await in_turn(loopback, [ask(NARROW, way, body), ask(NARROW, way, ROWS)])
        assert [answer.status for answer in answers] == [413, 200]
        problem = answers[0].json()
        assert (problem["code"], problem["limit"]) == ("too_large_for_key", "rows_per_second")
        assert "retry-after" not in answers[0].headers
        assert loopback.repository.queue("line", "encode").calls[0][0].shape == (2, 3)

    run(play)


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_in_flight_until_they_are_answered(loopback: LoopbackServer, way: str) -> None:
    async def play() -> None:
        queue = loopback.repository.held()
        assert queue.gate is not None
        assert queue.entered is not None
        async with AsyncExitStack() as stack:
            ends = [await stack.enter_async_context(loopback.client()) for _ in range(4)]
            (_, gone), *others = ends
            for _, writer in (ends[0], ends[1]):
                writer.write(ask(HELD, way))
            while len(queue.calls) < (1 if way == "plain" else 2):
                await asyncio.sleep(0.001)
            others[1][1].write(ask(HELD, way))
            refused = await read(others[1][0])
            assert refused.status == 429
            assert refused.json()["limit"] == "rows_in_flight"
            assert refused.headers["retry-after"] == "1"
            gone.close()  # its rows are not in flight any more
            while value(loopback.metrics, "requests", key="held", code="499") != 1:
                await asyncio.sleep(0.001)
            others[2][1].write(ask(HELD, way))
            await asyncio.sleep(0.02)
            queue.gate.set()
            for reader, _ in (others[0], others[2]):
                assert (await read(reader)).status == 200
            others[0][1].write(ask(HELD, way, ROWS if way != "v2" else None))
            assert (await read(others[0][0])).status == 200, "all were released"

    run(play)


def test_a_limit_of_one_key_does_not_have_the_queue_asked_for_all(loopback: LoopbackServer) -> None:
    async def play() -> None:
        await in_turn(loopback, [ask(SLOW), ask(SLOW)])
        endpoint = loopback.shared.heads.read(ask(FREE))
        assert endpoint is not None
        assert endpoint.endpoint.sheds_until == 0.0

    run(play)


def test_what_describes_is_not_limited(loopback: LoopbackServer) -> None:
    async def play() -> None:
        paths = ("/models", "/metrics", "/v2/models/line/stats", "/v2/models/line/ready")
        gets = [request(path, method="GET", X_API_Key=SLOW) for path in paths * 3]
        answers = await in_turn(loopback, [ask(SLOW), *gets])
        assert {answer.status for answer in answers} == {200}
        assert value(loopback.metrics, "requests", key="slow", code="200") == 13

    run(play)


def known(auth: ApiKeyAuth, key: str) -> str | None:
    try:
        return auth.check({b"x-api-key": key.encode()}).name
    except Unauthorized:
        return None


def test_names_limits_and_series_follow_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, metrics = tmp_path / "keys.toml", Metrics()
    file.write_text(KEYS)
    auth = ApiKeyAuth(["key-of-settings-1"], file, look_seconds=0, metrics=metrics.keys)
    assert [known(auth, key) for key in (SLOW, FREE, "key-of-settings-1")] == [
        *("slow", "free"),
        "key-1",
    ]
    kept = auth.check({b"x-api-key": SLOW.encode()})
    kept.take_request()
    metrics.keys.answered("free", 200, 1)
    metrics.keys.answered("slow", 200, 1)
    file.write_text(KEYS.replace("keys.free", "keys.freed").replace("0.001", "0.002"))
    assert known(auth, FREE) == "freed"
    assert auth.check({b"x-api-key": SLOW.encode()}) is kept, "what it has used stays used"
    assert value(metrics, "requests", key="free", code="200") is None
    assert value(metrics, "requests", key="slow", code="200") == 1
    assert value(metrics, "rows", key="freed") == 0
    file.write_text(KEYS.replace("[keys.free]", "[keys.slow]"))
    assert known(auth, FREE) == "freed", "a broken edit changes nothing"
    assert "not TOML" in caplog.text
    assert FREE not in caplog.text
    assert metrics.registry.get_sample_value("pushforward_key_file_ok") == 0
    metrics.keys.answered("free", 200, 1)  # was under way when its key was removed
    assert value(metrics, "requests", key="other", code="200") == 1


def test_a_crowd_of_keys_has_few_series() -> None:
    metrics = Metrics()
    names = [f"k{number}" for number in range(MOST_NAMED + 50)]
    metrics.keys.name({name: ["rows_per_second"] for name in names})
    for name in names:
        metrics.keys.answered(name, 200, 2)
        metrics.keys.limited(name, "rows_per_second")
    text = metrics.render().decode()
    for family in ("requests", "rows", "limited"):
        assert text.count(f"\npushforward_key_{family}_total{{") == MOST_NAMED + 1
    assert value(metrics, "rows", key="other") == 100
    assert value(metrics, "rows", key="k0") == 2
