"""The ways to ask the service; all that the contract knows of how application and server are built.

A transport is a function from a server and a case to what came back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import uvicorn
from uvicorn.server import ServerState

from service.app import create_app
from service.settings import Settings
from service.telemetry import Metrics
from service.transport.fast_path import SharedState, protocol_over
from service.transport.fast_path.head_cache import RequestHeadCache
from service.transport.grpc.server import GrpcServer
from tests.contract import grpc_calls, v2
from tests.contract.backend import Repository
from tests.contract.case import NPY, Case
from tests.contract.table import NEIGHBOURS, Neighbour

# Limits that cases can reach.
LIMITS = {"max_body_bytes": 50_000, "max_request_rows": 1000, "max_response_bytes": 20_000}
# Headers of the connection, not of the answer.
_OF_CONNECTION = ("connection",)


@dataclass(frozen=True)
class Received:
    """One answer as it came: header names in lower case, in pairs."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class CountingHeadCache(RequestHeadCache):
    """Counts the requests that take the fast path, and those that may share a batch there."""

    fast = 0
    coalesced = 0

    def read(self, data: bytes) -> Any:
        """Read a head, as the fast path does."""
        routed = super().read(data)
        self.fast += routed is not None
        self.coalesced += routed is not None and routed.is_plain
        return routed


class ContractServer:
    """An application over models of every kind, and a server in front of it."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        known = Settings(log_level="error", **{**LIMITS, **settings})
        metrics = Metrics()
        self.metrics = metrics
        self.repository = Repository(known.default_model)
        self.app = create_app(known, self.repository, metrics)
        self.operations = tuple(path.removeprefix("/") for path in self.app.endpoints)
        self.shared = SharedState(known, self.app.endpoints, metrics)
        self.shared.heads = self.heads = CountingHeadCache(self.app.endpoints, known.max_body_bytes)
        self._stack = AsyncExitStack()
        self._grpc: GrpcServer | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        state, loop = ServerState(), asyncio.get_running_loop()
        config = uvicorn.Config(
            self.app, http=protocol_over(self.shared), ws="none", lifespan="off", log_config=None
        )
        config.load()
        protocol: Any = config.http_protocol_class
        self._server = await loop.create_server(
            lambda: protocol(config, state, {}, loop), "127.0.0.1", 0
        )
        self.client = await self._stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(self.app),
                base_url="http://server",
                headers={"Accept-Encoding": "identity"},  # the bytes that are expected are literal
            )
        )

    async def stop(self) -> None:
        """End all threads and connections."""
        await self._stack.aclose()
        if self._grpc is not None:
            await self._grpc.stop(0.0)
        self._server.close()
        await self.repository.drain()

    async def grpc_channel(self) -> grpc.aio.Channel:
        """A connection to the gRPC server, which begins when it is first asked."""
        if self._grpc is None:
            self._grpc = GrpcServer(self.app.context)
            port = await self._grpc.start("127.0.0.1", 0)
            self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            self._stack.push_async_callback(self._channel.close)
        return self._channel

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection to the server."""
        return await asyncio.open_connection(*self._server.sockets[0].getsockname())


async def asgi(server: ContractServer, case: Case) -> Received:
    """Call the application without a server."""
    return await _call(server, case.method, case.target, case.sent_headers, case.content)


async def over_v2(server: ContractServer, case: Case) -> Received:
    """Put the same question in the Open Inference Protocol."""
    path, headers, body = v2.question(case)
    return await _call(server, case.method, path, headers, body)


async def fast_path(server: ContractServer, case: Case) -> Received:
    """Send one request over a socket, alone."""
    (received,) = await exchange(server, [wire(case)])
    return received


async def coalesced(server: ContractServer, case: Case) -> Received:
    """Send a request among healthy neighbours, all in one turn of the loop.

    The neighbours must get what is theirs.
    """
    neighbours = neighbours_of(case)
    requests = [wire(neighbour.case_beside(case)) for neighbour in neighbours]
    middle = len(neighbours) // 2
    received = await exchange(server, [*requests[:middle], wire(case), *requests[middle:]])
    mine = received.pop(middle)
    for neighbour, theirs in zip(neighbours, received, strict=True):
        expected = neighbour.answer
        assert (theirs.status, theirs.body) == (expected.status, expected.body), neighbour
    return mine


async def over_grpc(server: ContractServer, case: Case) -> Received:
    """Put the same question in the Open Inference Protocol over gRPC."""
    message, metadata = grpc_calls.question(case)
    channel, is_binary = await server.grpc_channel(), case.header("Accept") == NPY
    return Received(*await grpc_calls.call(channel, message, metadata, is_binary=is_binary))


Transport = Callable[[ContractServer, Case], Awaitable[Received]]
TRANSPORTS: dict[str, Transport] = {
    "asgi": asgi,
    "fast_path": fast_path,
    "coalesced": coalesced,
    "v2": over_v2,
    "grpc": over_grpc,
}


def neighbours_of(case: Case) -> list[Neighbour]:
    """Two that ask for another model, and two for the same one where they have answers."""
    other = NEIGHBOURS[case.operation, "line"]
    same = NEIGHBOURS.get((case.operation, case.model or ""), other)
    return [other[0], same[0], same[1], other[1]]


async def exchange(server: ContractServer, requests: list[bytes]) -> list[Received]:
    """Send each over a connection of its own, all in one turn of the loop."""
    ends = [await server.connect() for _ in requests]
    try:
        for (_, writer), data in zip(ends, requests, strict=True):
            writer.write(data)
        return [
            await read(reader, has_body=not data.startswith(b"HEAD"))
            for (reader, _), data in zip(ends, requests, strict=True)
        ]
    finally:
        for _, writer in ends:
            writer.close()


def wire(case: Case) -> bytes:
    """A request as it goes over the wire."""
    body = case.content
    lines = [f"{case.method} {case.target} HTTP/1.1", "Host: server"]
    lines += [f"{name}: {value}" for name, value in case.sent_headers.items()]
    if case.method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""]).encode()
    return head + (body if case.method == "POST" else b"")


async def read(reader: asyncio.StreamReader, *, has_body: bool = True) -> Received:
    """Read one answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    pairs = [line.split(": ", 1) for line in lines if line]
    headers = [(name.lower(), value) for name, value in pairs]
    length = int(dict(headers).get("content-length", "0")) if has_body else 0
    kept = [pair for pair in headers if pair[0] not in _OF_CONNECTION]
    return Received(int(first.split()[1]), kept, await reader.readexactly(length))


async def _call(
    server: ContractServer, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> Received:
    content = body if method == "POST" else None
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    answer = await server.client.request(method, path, headers=sent, content=content)
    pairs = [(name.lower(), value) for name, value in answer.headers.multi_items()]
    return Received(answer.status_code, pairs, answer.content)
