"""The short way and the ordinary way give the same answers, and never get into each other's."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from service.transport.fast_path import http_protocol, protocol
from service.transport.fast_path.fast_path_request import FastPathRequest
from service.transport.fast_path.protocol import FastPathProtocol
from tests.service.transport.loopback import (
    BODY,
    PATIENCE_SECONDS,
    LoopbackServer,
    Z,
    read,
    request,
    run,
)

# What goes the ordinary way, and must be answered as well as if there were no other.
ORDINARY = {
    "another_path": (request("/models", method="GET"), 200),
    "another_method": (request(method="GET"), 405),
    "http_1.0": (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
    "chunks": (
        request(body=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
        200,
    ),
    "two_lengths": (
        request(Content_Length_="1").replace(b"Content-Length-", b"Content-Length"),
        400,
    ),
    "compressed": (request(Content_Encoding="br"), 415),
    "an_escaped_path": (request("/%65ncode"), 200),
    "not_http": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_what_is_unusual_goes_the_ordinary_way(case: str) -> None:
    data, status = ORDINARY[case]

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(data)
            assert (await read(reader)).status == status
        assert loopback.fast == 0

    run(play)


@pytest.mark.parametrize("pieces", [1, 2, 3, 200])
def test_a_request_in_pieces_is_answered(pieces: int) -> None:
    data = request()
    size = -(-len(data) // pieces)

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            for _ in range(2):  # a connection is as good after one request as before
                for start in range(0, len(data), size):
                    writer.write(data[start : start + size])
                    await writer.drain()
                    await asyncio.sleep(0.001)
                assert (await read(reader)).json()["z"] == Z
        assert loopback.all == 2
        assert loopback.fast == (2 if pieces == 1 else 0)

    run(play)


def test_head_and_body_in_two_packets_go_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SECOND_PACKET_SECONDS", PATIENCE_SECONDS)
    head, end, body = request().partition(b"\r\n\r\n")

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            for _ in range(2):
                writer.write(head + end)
                await asyncio.sleep(0.001)
                writer.write(body)
                assert (await read(reader)).json()["z"] == Z
        assert loopback.fast == 2

    run(play)


def test_a_body_that_is_late_is_waited_for_the_ordinary_way() -> None:
    head, end, _ = request().partition(b"\r\n\r\n")

    async def play() -> None:
        loopback = LoopbackServer(request_timeout_seconds=0.1)
        async with loopback.client() as (reader, writer):
            writer.write(head + end)
            assert (await read(reader)).status == 408
        assert loopback.fast == 0

    run(play)


def test_requests_of_all_kinds_take_turns_on_a_connection() -> None:
    other = request("/models/line", method="GET")

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            for data in (other, request(), other, request(), request()):
                writer.write(data)
                assert (await read(reader)).status == 200
        assert loopback.fast == 3
        assert loopback.all == 5

    run(play)


@pytest.mark.parametrize("together", [True, False], ids=["one_packet", "early"])
def test_requests_that_do_not_wait_are_answered_in_order(together: bool) -> None:
    bodies = [b'{"model": "line", "x": [[%d, 0, 0]]}' % (2 * index) for index in range(4)]
    data = [request(body=body) for body in bodies]
    data.insert(2, request("/models/line", method="GET"))

    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.queue("line", "encode")
        if not together:
            queue.gate, queue.entered = asyncio.Event(), asyncio.Event()
        async with loopback.client() as (reader, writer):
            if queue.gate is None:
                writer.write(b"".join(data))
            else:
                assert queue.entered is not None
                writer.write(data[0])
                await queue.entered.wait()
                writer.write(b"".join(data[1:3]))
                writer.write(b"".join(data[3:]))
                queue.gate.set()
            got = [(await read(reader)).json() for _ in data]
        assert got.pop(2)["name"] == "line"
        assert [answer["z"][0][0] for answer in got] == [0, 1, 2, 3]
        assert loopback.fast == (0 if together else 1)

    run(play)


def test_a_client_that_leaves_frees_its_place_at_once() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.held()
        async with loopback.client() as (_, writer):
            writer.write(request())
            await queue.entered.wait()
        while not (loopback.all and queue.was_cancelled):
            await asyncio.sleep(0)
        labels = {"model": "line", "version": "3", "op": "encode", "code": "499"}
        count = loopback.metrics.registry.get_sample_value("pushforward_requests_total", labels)
        assert count == 1
        assert not loopback.state.connections

    run(play)


def test_nothing_waits_for_the_body_of_a_client_that_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its head would go to a parser whose connection is gone."""
    monkeypatch.setattr(protocol, "SECOND_PACKET_SECONDS", 0.25)
    head, end, _ = request().partition(b"\r\n\r\n")

    async def play() -> None:
        loopback = LoopbackServer()
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with loopback.client() as (_, writer):
            writer.write(head + end)
            await asyncio.sleep(0.01)  # it has arrived, and is waited for
        while loopback.state.connections:
            await asyncio.sleep(0)
        await asyncio.sleep(0.3)
        assert (loopback.ordinary, faults) == (0, [])

    run(play)


def test_a_connection_ends_after_its_last_answer() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(request(Connection="close"))
            assert (await read(reader)).headers["connection"] == "close"
            assert await reader.read() == b""
        assert loopback.fast == 1

    run(play)


@pytest.mark.parametrize("is_busy", [True, False], ids=["busy", "idle"])
def test_a_shutdown_waits_for_the_answer_under_way(is_busy: bool) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.queue("line", "encode")
        async with loopback.client() as (reader, writer):
            writer.write(request())
            await read(reader)
            if is_busy:
                queue.gate, queue.entered = asyncio.Event(), asyncio.Event()
                writer.write(request())
                await queue.entered.wait()
            (connection,) = loopback.state.connections
            connection.shutdown()
            if queue.gate is not None:
                queue.gate.set()
                assert (await read(reader)).headers["connection"] == "close"
            assert await reader.read() == b""

    run(play)


@pytest.mark.parametrize(
    "sent", [b"", b"POST /encode HT", request()], ids=["silent", "head", "all"]
)
def test_an_idle_connection_is_closed(sent: bytes) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        loopback.config.timeout_keep_alive = 0.1
        async with loopback.client() as (reader, writer):
            writer.write(sent)
            rest = await reader.read()
        assert rest.startswith(b"HTTP/1.1 200") is sent.endswith(b"}")

    run(play)


def test_a_connection_in_use_is_not_idle() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        loopback.config.timeout_keep_alive = 0.1
        queue = loopback.repository.queue("line", "encode")
        queue.gate = asyncio.Event()
        queue.entered = asyncio.Event()
        async with loopback.client() as (reader, writer):
            writer.write(request())
            await queue.entered.wait()
            asyncio.get_running_loop().call_later(0.3, queue.gate.set)
            assert (await read(reader)).status == 200

    run(play)


def test_heads_are_remembered_but_not_for_ever() -> None:
    heads = LoopbackServer().shared.heads
    first = heads.read(request(X_Number="0"))
    assert heads.read(request(X_Number="0")) is first
    for index in range(1, 5000):
        heads.read(request(X_Number=str(index)))
    assert heads.read(request(X_Number="0")) is not first
    for once in (request(X_Request_Id="a"), request(X_Long="x" * 4096)):
        assert heads.read(once) is not heads.read(once)


def test_no_more_is_read_while_an_answer_is_under_way() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.held()
        async with loopback.client() as (reader, writer):
            writer.write(request())
            await queue.entered.wait()
            writer.write(request() * 40_000)
            flood = asyncio.ensure_future(writer.drain())
            await asyncio.wait([flood], timeout=0.1)
            assert not flood.done(), "the kernel's buffers are full"
            queue.gate.set()
            for _ in range(20):
                assert (await read(reader)).json()["z"] == Z
            writer.transport.abort()
            await asyncio.gather(flood, return_exceptions=True)
        while loopback.state.connections or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)

    run(play)


def test_an_answered_client_may_not_send_for_ever() -> None:
    head, end, _ = request(Content_Encoding="br").partition(b"\r\n\r\n")
    head = head.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")
    piece = b"10000\r\n%b\r\n" % bytes(65_536)

    async def send(writer: asyncio.StreamWriter) -> int:
        for count in range(1000):
            try:
                writer.write(piece)
                await writer.drain()
            except ConnectionError:
                return count
        return 1000

    async def play() -> None:
        loopback = LoopbackServer(max_body_bytes=100_000)
        async with loopback.client() as (reader, writer):
            writer.write(head + end)
            assert (await read(reader)).status == 415
            assert await send(writer) < 1000, "64 MB were taken"

    run(play)


def test_an_answered_client_may_not_drip_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is in time, all together are not."""
    monkeypatch.setattr(http_protocol, "UNREAD_SECONDS", 0.1)
    monkeypatch.setattr(FastPathProtocol, "silent_seconds", 0.4)
    head, end, _ = request(Content_Encoding="br").partition(b"\r\n\r\n")

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(head.replace(b"Length: %d" % len(BODY), b"Length: 90000") + end)
            assert (await read(reader)).status == 415
            drips = 0
            while drips < 100 and not reader.at_eof():
                writer.write(b"x")
                await asyncio.sleep(0.05)
                drips += 1
            assert 2 < drips < 100

    run(play)


def test_a_connection_ends_once_the_fast_path_is_closed() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.held()
        async with loopback.client() as (reader, writer):
            writer.write(request())
            await queue.entered.wait()
            loopback.shared.is_open = False
            queue.gate.set()
            assert (await read(reader)).json()["z"] == Z
            assert await reader.read() == b""
        assert loopback.fast == 1

    run(play)


def test_a_client_that_leaves_before_its_task_begins_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serve_in_task = FastPathProtocol.serve_in_task

    def serve_and_leave(self: FastPathProtocol, request: FastPathRequest) -> None:
        serve_in_task(self, request)
        self.transport.abort()
        self.connection_lost(None)

    monkeypatch.setattr(FastPathProtocol, "serve_in_task", serve_and_leave)

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(request("/sample", b'{"model": "line", "num_samples": 16000}'))
            with suppress(ConnectionError):
                assert await reader.read() == b""
            while not loopback.all:
                await asyncio.sleep(0.001)
        assert loopback.all == 1

    run(play)
