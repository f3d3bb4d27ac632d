"""More connections than there are descriptors for: told so, not reset, and only so long."""

import asyncio
import logging

import pytest

from service.transport.fast_path import http_protocol
from service.transport.fast_path.connection_limit import SURPLUS
from tests.service.transport.loopback import LoopbackServer, Response, read, request, run

ALIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
READY = b"GET /v2/health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Full:
    """A loopback with room for two connections, both taken by clients that were answered."""

    def __init__(
        self,
    ) -> None:
        self.loopback = LoopbackServer()
        self.loopback.shared.connection_limit.most = 2
        self.residents: list[Connection] = []
        self._opened: list[Connection] = []

    async def __aenter__(self) -> "Full":
        self._server = await self.loopback.listen()
        self.residents = [await self.connect() for _ in range(2)]
        for resident in self.residents:
            assert (await self.ask(resident, ALIVE)).status == 200
        return self

    async def __aexit__(self, *error: object) -> None:
        for _, writer in self._opened:
            writer.close()
        self._server.close()
        await self.until_left(0)

    async def connect(self) -> Connection:
        opened = await asyncio.open_connection(*self._server.sockets[0].getsockname())
        self._opened.append(opened)
        return opened

    async def ask(self, to: Connection, sent: bytes) -> Response:
        to[1].write(sent)
        return await read(to[0])

    async def until_left(self, count: int) -> None:
        while len(self.loopback.state.connections) > count:
            await asyncio.sleep(0.001)


def test_a_newcomer_without_room_is_told_and_the_others_are_served() -> None:
    async def loopback() -> None:
        async with Full() as full:
            newcomer = await full.connect()
            told = await full.ask(newcomer, request())
            assert (told.status, told.json()["code"]) == (503, "too_many_connections")
            assert told.headers["connection"] == "close"
            assert told.headers["retry-after"] == "1"
            assert await newcomer[0].read() == b""
            assert (await full.ask(full.residents[0], request())).status == 200
            refused = full.loopback.metrics.connections_refused.labels()
            assert refused.value == 1

    run(loopback)


@pytest.mark.parametrize("sent", [ALIVE, READY])
def test_a_newcomer_without_room_learns_how_the_service_is(sent: bytes) -> None:
    async def loopback() -> None:
        async with Full() as full:
            newcomer = await full.connect()
            told = await full.ask(newcomer, sent)
            assert told.status == 200
            assert told.headers["connection"] == "close"
            assert await newcomer[0].read() == b""

    run(loopback)


def test_who_has_left_makes_room() -> None:
    async def loopback() -> None:
        async with Full() as full:
            full.residents.pop()[1].close()
            await full.until_left(1)
            full.residents.append(await full.connect())
            for _ in range(2):
                assert (await full.ask(full.residents[-1], request())).status == 200

    run(loopback)


def test_a_newcomer_without_room_may_not_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "SURPLUS_SECONDS", 0.05)

    async def loopback() -> None:
        async with Full() as full:
            newcomer = await full.connect()
            assert await newcomer[0].read() == b""
            assert (await full.ask(full.residents[0], ALIVE)).status == 200

    run(loopback)


def test_too_many_newcomers_are_told_before_they_ask() -> None:
    async def loopback() -> None:
        async with Full() as full:
            surplus = [await full.connect() for _ in range(SURPLUS)]
            one_more = await full.connect()
            assert (await read(one_more[0])).status == 503
            assert await one_more[0].read() == b""
            assert (await full.ask(surplus[-1], ALIVE)).status == 200

    run(loopback)


def test_a_lack_of_room_is_logged_once_each_time(caplog: pytest.LogCaptureFixture) -> None:
    async def loopback() -> None:
        async with Full() as full:
            for _ in range(2):
                for _ in range(3):
                    newcomer = await full.connect()
                    assert (await full.ask(newcomer, request())).status == 503
                    await full.until_left(2)
                full.residents.pop()[1].close()
                await full.until_left(1)
                full.residents.append(await full.connect())
                assert (await full.ask(full.residents[-1], ALIVE)).status == 200

    with caplog.at_level(logging.WARNING, "service.transport.fast_path.connection_limit"):
        run(loopback)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all(line.startswith("2 connections are open") for line in told)
