"""Requests as bytes, and a server on a loopback socket that takes the short way with them."""

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from service.app import create_app
from service.settings import Settings
from service.telemetry import Metrics
from service.transport.fast_path import SharedState, protocol_over
from tests.service.fake_repository import FakeRepository

PATIENCE_SECONDS = 20.0
BODY = b'{"model": "line", "x": [[2, 4, 6]]}'
Z = [[1.0, 2.0, 3.0]]


def request(
    path: str = "/encode", body: bytes = BODY, *, method: str = "POST", **headers: str
) -> bytes:
    fields = {"Host": "server", "Content-Type": "application/json"}
    if method == "POST":
        fields["Content-Length"] = str(len(body))
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + (body if method == "POST" else b"")


class Response:
    """One answer as it came over the wire."""

    def __init__(self, head: bytes, body: bytes) -> None:
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines if line)
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class LoopbackServer:
    """A server on a loopback socket, and how often each way was taken."""

    def __init__(self, **settings: Any) -> None:
        self.repository = FakeRepository()
        self.metrics = Metrics()
        known = Settings(log_level="error", **settings)
        app = create_app(known, self.repository, self.metrics)
        self.shared = SharedState(known, app.endpoints, self.metrics)
        self.ordinary = 0

        async def count(scope: Any, receive: Any, send: Any) -> None:
            self.ordinary += 1
            await app(scope, receive, send)

        self.config = uvicorn.Config(
            count,
            http=protocol_over(self.shared),
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=75,  # longer than any test: what ends earlier was ended
        )
        self.state = ServerState()
        self.config.load()

    @property
    def fast(self) -> int:
        """Requests that were counted and did not come by way of ASGI."""
        return self.all - self.ordinary

    @property
    def all(self) -> int:
        """Requests counted so far, whichever way they went."""
        samples = next(
            family.samples
            for family in self.metrics.registry.collect()
            if family.name == "pushforward_requests"
        )
        return int(sum(sample.value for sample in samples))

    def cut_off(self, reason: str) -> float:
        """Connections that were ended for what their client did not do."""
        name = "pushforward_connections_cut_off_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0

    async def listen(self, send_bytes: int | None = None) -> asyncio.Server:
        """Listen on a free port, where asked with small buffers in the kernel."""
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.Protocol:
            protocol: Any = self.config.http_protocol_class
            made: asyncio.Protocol = protocol(self.config, self.state, {}, loop)
            return made

        server = await loop.create_server(connect, "127.0.0.1", 0)
        if send_bytes is not None:
            for listener in server.sockets:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
        return server

    @asynccontextmanager
    async def client(self) -> Any:
        """A connection.   -> reader, writer."""
        server = await self.listen()
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            server.close()


async def read(reader: asyncio.StreamReader) -> Response:
    head = await reader.readuntil(b"\r\n\r\n")
    found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return Response(head, await reader.readexactly(int(found[1]) if found else 0))


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await test()

    asyncio.run(bounded())
