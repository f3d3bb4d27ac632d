"""While a queue refuses, requests for it are refused unread; all others are served as ever."""

import io

import numpy as np
import pytest

from service.contracts import QueueShare, ServedModel
from service.errors import NotReady, Overloaded
from tests.service.fake_repository import Linear
from tests.service.transport.loopback import BODY, LoopbackServer, Z, read, request, run

UNREADABLE = b'{"model": "line", "x": [[2, 4,'


def refuse(queue: Linear, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a queue refuse all.   -> the rows of each request that it refused."""
    asked: list[int] = []

    def check(rows: int, deadline: float, share: QueueShare | None = None) -> None:
        asked.append(rows)
        raise Overloaded("no room", retry_after=3)

    monkeypatch.setattr(queue, "check", check)
    monkeypatch.setattr(queue, "failure", Overloaded("no room", retry_after=3))
    return asked


def npy(rows: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros((rows, 3), np.float32))
    return file.getvalue()


def test_after_a_refusal_the_next_request_is_refused_unread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        refuse(loopback.repository.queue("line", "encode"), monkeypatch)
        async with loopback.client() as (reader, writer):
            writer.write(request(body=UNREADABLE))
            assert (await read(reader)).status == 400
            for body in (BODY, UNREADABLE, BODY):
                writer.write(request(body=body))
                answer = await read(reader)
                assert answer.status == 429
                assert answer.headers["retry-after"] == "3"
        assert len(loopback.repository.queue("line", "encode").calls) == 1
        labels = {"model": "line", "version": "3", "op": "encode", "code": "429"}
        total = loopback.metrics.registry.get_sample_value("pushforward_requests_total", labels)
        assert total == 3

    run(play)


def test_a_model_that_was_refused_is_named_where_its_requests_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(_: str | None) -> ServedModel:
        raise NotReady("model: line 3 cannot be served", model="line")

    async def play() -> None:
        loopback = LoopbackServer()
        monkeypatch.setattr(loopback.repository, "get", find)
        async with loopback.client() as (reader, writer):
            writer.write(request())
            assert (await read(reader)).status == 503
        assert loopback.fast == 1
        labels = {"model": "line", "version": "", "op": "encode", "code": "503"}
        value = loopback.metrics.registry.get_sample_value
        assert value("pushforward_requests_total", labels) == 1

    run(play)


@pytest.mark.parametrize(("is_counted", "dropped"), [(False, 3), (True, 0)])
@pytest.mark.parametrize("headers", [{}, {"Origin": "http://page"}], ids=["plain", "asgi"])
def test_what_no_queue_refused_is_counted_as_dropped_too(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], is_counted: bool, dropped: int
) -> None:
    def check(*_: object) -> None:
        raise Overloaded("no room", is_counted=is_counted)

    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.queue("line", "encode")
        monkeypatch.setattr(queue, "check", check)
        monkeypatch.setattr(queue, "failure", Overloaded("no room", is_counted=is_counted))
        async with loopback.client() as (reader, writer):
            for _ in range(3):
                writer.write(request(**headers))
                assert (await read(reader)).status == 429
        labels = {"model": "line", "version": "3", "reason": "overloaded"}
        value = loopback.metrics.registry.get_sample_value
        assert (value("pushforward_dropped_total", labels) or 0) == dropped
        unnamed = {"model": "", "version": "", "reason": "overloaded"}
        assert value("pushforward_dropped_total", unnamed) == 0

    run(play)


def test_other_queues_are_served_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    other = b'{"model": "wide", "x": [[2, 4]]}'

    async def play() -> None:
        loopback = LoopbackServer()
        refuse(loopback.repository.queue("line", "encode"), monkeypatch)
        async with loopback.client() as (reader, writer):
            for path, body, status in (
                ("/encode", BODY, 429),
                ("/encode", other, 200),
                ("/decode", b'{"model": "line", "z": [[1, 2, 3]]}', 200),
                ("/encode", BODY, 429),
            ):
                writer.write(request(path, body))
                assert (await read(reader)).status == status, (path, body)

    run(play)


def test_who_is_let_in_is_told_what_is_wrong_with_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            with monkeypatch.context() as patch:
                refuse(loopback.repository.queue("line", "encode"), patch)
                writer.write(request())
                assert (await read(reader)).status == 429
            writer.write(request(body=UNREADABLE))
            assert (await read(reader)).status == 400
            writer.write(request(body=b'{"model": "nobody", "x": [[1]]}'))
            assert (await read(reader)).status == 404
            writer.write(request(X_Timeout_Seconds="soon"))
            assert (await read(reader)).status == 422
            writer.write(request())
            assert (await read(reader)).json()["z"] == Z

    run(play)


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b'{"model": "line", "x": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}', 3),
        (b'{"model": "line", "x": []}', 1),
    ],
)
def test_the_rows_of_a_request_are_counted_unread(
    monkeypatch: pytest.MonkeyPatch, body: bytes, rows: int
) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        asked = refuse(loopback.repository.queue("line", "encode"), monkeypatch)
        async with loopback.client() as (reader, writer):
            for data in (BODY, body):
                writer.write(request(body=data))
                assert (await read(reader)).status == 429
        assert asked == [rows]

    run(play)


@pytest.mark.parametrize("rows", [1, 5])
def test_the_rows_of_an_array_are_counted_unread(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        monkeypatch.setattr(loopback.repository, "default", "line")
        asked = refuse(loopback.repository.queue("line", "encode"), monkeypatch)
        data = request(body=npy(rows)).replace(b"application/json", b"application/x-npy")
        async with loopback.client() as (reader, writer):
            writer.write(request())
            assert (await read(reader)).status == 429
            writer.write(data)
            assert (await read(reader)).status == 429
        assert asked == [rows]

    run(play)
