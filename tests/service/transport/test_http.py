"""What HTTP/1.1 asks of a server, on a socket: offers, heads, connections closed and unread."""

import asyncio
import json
import socket
from typing import Any

import pytest

from tests.service.transport.loopback import BODY, LoopbackServer, Z, read, request, run

OFFER = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
}
DRAW = b'{"model": "line", "num_samples": 3, "seed": 7}'


def chunked(body: bytes, **headers: str) -> bytes:
    head = request("/encode", b"", Transfer_Encoding="chunked", **headers)
    return head.replace(b"Content-Length: 0\r\n", b"") + b"%x\r\n%b\r\n0\r\n\r\n" % (
        len(body),
        body,
    )


# Offers of another protocol


@pytest.mark.parametrize("size", [1, 7, 100_000], ids=["bytes", "pieces", "whole"])
def test_a_body_behind_an_offer_of_http_2_is_read(size: int) -> None:
    data = request("/sample", DRAW, **OFFER)

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            for _ in range(2):  # the next request begins where this one ends
                for start in range(0, len(data), size):
                    writer.write(data[start : start + size])
                    await asyncio.sleep(0)
                answer = await read(reader)
                assert answer.status == 200
                assert (answer.json()["seed"], len(answer.json()["x"])) == (7, 3)
            writer.write(request())
            assert (await read(reader)).json()["z"] == Z
        assert loopback.all == 3

    run(play)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/encode", {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "eA=="}),
        ("/encode", {"Connection": "close, Upgrade", "Upgrade": "foo/2, h2c"}),
        ("/encode", {"Upgrade": "h2c"}),
    ],
    ids=["websocket", "close", "upgrade_alone"],
)
@pytest.mark.parametrize("form", ["length", "chunks"])
def test_every_offer_is_passed_over(path: str, headers: dict[str, str], form: str) -> None:
    data = request(path, BODY, **headers) if form == "length" else chunked(BODY, **headers)

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(data)
            answer = await read(reader)
            assert answer.status == 200
            assert answer.json()["z"] == Z
            if "close" in headers.get("Connection", ""):
                assert await reader.read() == b""

    run(play)


def test_an_offer_without_a_body_is_passed_over() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(request("/models/line", b"", method="GET", **OFFER) + request())
            assert (await read(reader)).json()["name"] == "line"
            assert (await read(reader)).json()["z"] == Z

    run(play)


# Heads

HEADS = {
    "no_host": (request().replace(b"Host: server\r\n", b""), "Host"),
    "two_hosts": (request(Host_="b").replace(b"Host-", b"Host"), "Host"),
    "http_0.9": (b"GET /models\r\n\r\n", "HTTP/0.9"),
    "http_2.0": (b"GET /models HTTP/2.0\r\nHost: a\r\n\r\n", "HTTP/2.0"),
    "tunnel": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT"),
    "gzip_in_chunks": (chunked(BODY).replace(b": chunked", b": gzip, chunked"), "Transfer"),
    "chunks_twice": (
        chunked(BODY, Transfer_Encoding_="chunked").replace(b"Encoding-", b"Encoding"),
        "HTTP/1.1",
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_that_is_not_http_1_1_is_400_and_the_end(case: str) -> None:
    data, word = HEADS[case]

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(data)
            answer = await read(reader)
            assert answer.status == 400
            assert answer.json()["code"] == "malformed_request"
            assert word in answer.json()["detail"]
            assert await reader.read() == b""
        assert loopback.fast == 0

    run(play)


def test_http_1_0_needs_no_host() -> None:
    data = request().replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: server\r\n", b"")

    async def play() -> None:
        async with LoopbackServer().client() as (reader, writer):
            writer.write(data)
            assert (await read(reader)).json()["z"] == Z

    run(play)


SINGLE = ("X-API-Key", "Authorization", "Content-Type", "X-Timeout-Seconds")


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("path", ["/encode", "/v2/models/line/infer", "/v2/repository/index"])
def test_a_header_that_stands_twice_is_400(path: str, name: str) -> None:
    keys = ["first-key-of-16-chars", "other-key-of-16-chars"]
    head, end, body = request(path).partition(b"\r\n\r\n")
    lines = "".join(f"\r\n{name}: {key}" for key in keys).encode()

    async def play() -> None:
        loopback = LoopbackServer(api_keys=tuple(keys))
        async with loopback.client() as (reader, writer):
            writer.write(head + lines + end + body)
            answer = await read(reader)
            assert answer.status == 400
            assert answer.json()["code"] == "malformed_request"
            assert answer.json()["detail"].lower().startswith(name.lower())
        assert loopback.all == 1

    run(play)


def test_two_accept_headers_are_one_list() -> None:
    data = request(Accept="image/webp", Accept_="application/x-npy").replace(b"Accept-", b"Accept")

    async def play() -> None:
        async with LoopbackServer().client() as (reader, writer):
            writer.write(data)
            assert (await read(reader)).headers["content-type"] == "application/x-npy"

    run(play)


# Half-closed connections

COMPLETE = {
    "fast_path": (request(), 1),
    "ordinary": (request("/models/line", method="GET"), 1),
    "chunks": (chunked(BODY), 1),
    "offer": (request("/encode", BODY, **OFFER), 1),
    "several": (request("/models/line", method="GET") + request() + request(), 3),
}


@pytest.mark.parametrize("case", COMPLETE)
def test_a_client_that_has_sent_all_gets_its_answers(case: str) -> None:
    data, count = COMPLETE[case]

    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(data)
            writer.write_eof()
            for _ in range(count):
                assert (await read(reader)).status == 200
            assert await reader.read() == b"", "then the connection ends"
        assert loopback.all == count

    run(play)


@pytest.mark.parametrize("case", ["fast_path", "chunks"])
def test_it_is_waited_for_as_long_as_it_takes(case: str) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.held()
        async with loopback.client() as (reader, writer):
            writer.write(COMPLETE[case][0])
            writer.write_eof()
            assert (await read(reader)).status == 100, "asks whether somebody is there"
            asyncio.get_running_loop().call_later(0.1, queue.gate.set)
            assert (await read(reader)).json()["z"] == Z
            assert await reader.read() == b""

    run(play)


@pytest.mark.parametrize("case", ["fast_path", "chunks"])
def test_one_that_is_gone_is_told_from_it(case: str) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        queue = loopback.repository.held()
        async with loopback.client() as (_, writer):
            writer.write(COMPLETE[case][0])
            await queue.entered.wait()
            writer.close()
            while not queue.was_cancelled:
                await asyncio.sleep(0.01)
        assert not loopback.state.connections

    run(play)


PARTS = {
    "head": request()[:40],
    "no_body": request()[: -len(BODY)],
    "half_a_body": request()[:-5],
    "half_a_chunk": chunked(BODY)[:-12],
    "behind_a_whole_one": request() + request()[:-5],
}


@pytest.mark.parametrize("case", PARTS)
def test_half_a_request_is_not_answered(case: str) -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write(PARTS[case])
            writer.write_eof()
            if case == "behind_a_whole_one":
                assert (await read(reader)).json()["z"] == Z
            assert await reader.read() == b""
        while loopback.state.connections:
            await asyncio.sleep(0)

    run(play)


def test_a_silent_connection_that_is_closed_is_closed() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        async with loopback.client() as (reader, writer):
            writer.write_eof()
            assert await reader.read() == b""
        while loopback.state.connections:
            await asyncio.sleep(0)

    run(play)


# Clients that do not read

LARGE = {
    "fast_path": request("/sample", b'{"model": "line", "num_samples": 16000, "seed": 1}'),
    "ordinary": chunked(b'{"model": "line", "num_samples": 16000, "seed": 1}').replace(
        b"/encode", b"/sample"
    ),
    "last": request(
        "/sample", b'{"model": "line", "num_samples": 16000, "seed": 1}', Connection="close"
    ),
}


SLOW = request("/sample", b'{"model": "line", "num_samples": 2000, "seed": 1}', Connection="close")


async def connect(loopback: LoopbackServer, server: asyncio.Server) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, server.sockets[0].getsockname())
    return client


@pytest.mark.parametrize("case", LARGE)
def test_a_client_that_reads_nothing_is_cut_off_and_counted(case: str) -> None:
    async def play() -> None:
        loopback = LoopbackServer(write_timeout_seconds=0.1)
        loop = asyncio.get_running_loop()
        server = await loopback.listen(send_bytes=4096)
        with await connect(loopback, server) as client:
            await loop.sock_sendall(client, LARGE[case])
            while not loopback.state.connections:
                await asyncio.sleep(0.01)
            while loopback.state.connections:
                await asyncio.sleep(0.01)
        server.close()
        assert loopback.cut_off("not_reading") == 1

    run(play)


def test_no_clock_of_a_connection_runs_on_when_it_is_gone() -> None:
    async def play() -> None:
        loopback = LoopbackServer()
        loop = asyncio.get_running_loop()
        server = await loopback.listen(send_bytes=4096)
        clocks: list[asyncio.TimerHandle] = []
        call_later = loop.call_later

        def note(*call: Any, **more: Any) -> asyncio.TimerHandle:
            clocks.append(call_later(*call, **more))
            return clocks[-1]

        with pytest.MonkeyPatch.context() as patch, await connect(loopback, server) as client:
            patch.setattr(loop, "call_later", note)
            await loop.sock_sendall(client, LARGE["last"])
            client.shutdown(socket.SHUT_WR)
            # One for what is not read, one for whether anybody is there, one for idleness.
            while len(clocks) < 3:
                await asyncio.sleep(0.001)
        while loopback.state.connections:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        server.close()
        assert [
            clock for clock in clocks if not clock.cancelled() and clock.when() > loop.time()
        ] == []

    run(play)


def test_a_client_that_reads_slowly_gets_all_of_it() -> None:
    async def play() -> None:
        loopback = LoopbackServer(write_timeout_seconds=0.15)
        loop = asyncio.get_running_loop()
        server = await loopback.listen(send_bytes=4096)
        got = b""
        with await connect(loopback, server) as client:
            await loop.sock_sendall(client, SLOW)
            began = loop.time()
            while piece := await loop.sock_recv(client, 20_000):
                got += piece
                await asyncio.sleep(0.02)
        server.close()
        assert loop.time() - began > 0.3, "longer than the deadline in all"
        assert len(json.loads(got.partition(b"\r\n\r\n")[2])["x"]) == 2000
        assert loopback.cut_off("not_reading") == 0

    run(play)


def test_a_client_that_asks_on_and_on_and_reads_nothing_is_not_answered_ahead() -> None:
    """What it does not take waits in memory, so no more of that is made."""
    many, rows = 100, json.dumps({"model": "line", "x": [[2, 4, 6]] * 200}).encode()

    async def play() -> None:
        loopback = LoopbackServer()
        loop = asyncio.get_running_loop()
        server = await loopback.listen(send_bytes=4096)
        with await connect(loopback, server) as client:
            for asked in range(many):
                await loop.sock_sendall(client, request(body=rows))
                patience = loop.time() + 0.5
                while loopback.all <= asked and loop.time() < patience:
                    await asyncio.sleep(0.001)
                if loopback.all <= asked:
                    break
            assert 1 < loopback.fast <= asked < many / 2
            got = b""
            while got.count(b"HTTP/1.1 200 OK") <= asked:
                got += await loop.sock_recv(client, 2**20)
        server.close()

    run(play)
