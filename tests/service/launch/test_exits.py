"""What is over is let go: request contexts, connections, models that came too late."""

import asyncio
import socket
import time
from contextlib import ExitStack
from typing import Any

from service.launch.uvicorn_server import Server
from service.operations.request_context import RequestContext
from service.transport.disconnect import AsgiRequestContext
from service.transport.request import Head
from tests.service.batcher.batching import later, run
from tests.service.fake_repository import FakeRepository, app_over
from tests.service.transport.loopback import LoopbackServer, request


def test_a_body_that_has_come_is_not_late_any_more() -> None:
    async def test() -> None:
        async def receive() -> Any:
            await asyncio.sleep(3600)

        now = time.monotonic()
        context = AsgiRequestContext(receive, asyncio.current_task(), now, now + 0.02)
        context.watch()
        context.body_is_read()
        await asyncio.sleep(0.05)
        assert context.cancel_reason is None
        context.end()

    run(test())


def test_an_answered_request_is_over() -> None:
    async def test() -> None:
        async def read_body() -> bytes:
            return b'{"model": "line", "x": [[2, 4, 6]]}'

        context = RequestContext(time.monotonic(), later(), asyncio.current_task())
        head = Head("/encode", b"", {b"content-type": b"application/json"})
        reply = (
            await app_over(FakeRepository()).endpoints["/encode"].serve(head, context, read_body)
        )  # type: ignore[attr-defined]
        assert reply.status == 200
        assert context.is_over
        assert context.task is None

    run(test())


def test_nobody_who_waits_behind_a_closing_listener_is_reset() -> None:
    loopback = LoopbackServer()
    server = Server(loopback.config, lambda connection: not connection.is_answered)  # type: ignore[attr-defined]
    server.lifespan = loopback.config.lifespan_class(loopback.config)

    async def test() -> list[bytes]:
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            await server.startup([listener])
            # No turn of the loop comes between these and the end: none of them is accepted.
            clients = [
                stack.enter_context(socket.create_connection(listener.getsockname(), 5))
                for _ in range(20)
            ]
            for client in clients:
                client.sendall(request())
            await server.shutdown([listener])
            return [client.recv(65536) for client in clients]

    # Of uvicorn's own choice, as in the service: loops differ in how many they accept in a turn.
    with asyncio.Runner(loop_factory=loopback.config.get_loop_factory()) as runner:
        answers = runner.run(test())
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 20
