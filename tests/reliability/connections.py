"""Line 10: connections that are slow, half closed, or many."""

import contextlib
import http.client
import socket
import time
from typing import Any

from benchmarks.process import serving
from tests.e2e.test_hostile import connect, head
from tests.reliability.registry import ZOO, Ground, expect, trial

BODY_SECONDS = 2.0


@trial(10, "slow heads and bodies, a half-closed socket, 1,000 idle connections")
def slow(ground: Ground) -> str:
    flags = ["--request-timeout-seconds", str(BODY_SECONDS)]
    environment = {"PUSHFORWARD_API_KEYS": ground.key}
    log = ground.folder / "slow.log"
    with serving(log, str(ZOO / "moons"), *flags, env=environment) as server:
        body, whole = b'{"x": [[0, 1]]}', dict[str, Any]()
        with contextlib.ExitStack() as stack:
            slow_body = stack.enter_context(connect(server))
            slow_body.sendall(head(Content_Length=100, **whole) + b"{")
            slow_head = stack.enter_context(connect(server))
            slow_head.sendall(b"POST /encode HTTP/1.1\r\nX-Slow: ")
            half = stack.enter_context(connect(server))
            half.sendall(head(Content_Length=len(body), **whole) + body)
            half.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(half)
            answer.begin()
            expect(answer.status == 200, f"half-closed after a whole request: {answer.status}")
            idle = [stack.enter_context(connect(server)) for _ in range(ground.count(1000, 300))]
            for index, client in enumerate(idle):
                if index % 2:
                    client.sendall(b"POST /enc")
            began = time.monotonic()
            ground.control(server)
            took = time.monotonic() - began
            expect(took < 2, f"a control request beside them took {took:.1f} s")
            answer = http.client.HTTPResponse(slow_body)
            answer.begin()
            expect(answer.status == 408, f"slow body: {answer.status}")
            began = time.monotonic()
            slow_head.settimeout(120)
            with contextlib.suppress(ConnectionError):
                while slow_head.recv(1000):
                    pass
            ended = time.monotonic() - began
    return (
        f"slow body 408, slow head ended after {ended:.0f} s, half-closed 200, control beside "
        f"{len(idle):,} idle connections {1e3 * took:.0f} ms"
    )
