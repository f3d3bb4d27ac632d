"""Signals, deadlines, clients that disconnect and engines that die: on the real process.

The engine waits for the test before every batch, so nothing here depends on how fast anything is.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch

import models
from benchmarks.process import command, free_port, wait_until_ready
from tests.e2e.stuck_server import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 30.0
BODY = {"x": [[1.0, 2.0]]}

# One process for all: what forks the servers is started once.
pytestmark = pytest.mark.xdist_group("faults")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "toy"
    models.save(models.build("realnvp", {"event_shape": [2], "num_layers": 2}), folder)
    return folder


class StuckServer:
    """A server whose batches the test lets go one by one."""

    def __init__(self, folder: Path, model: Path, **fields: object) -> None:
        self.folder = folder
        for pipe in ("started", "commands"):
            os.mkfifo(folder / pipe)
        self._started = os.open(folder / "started", os.O_RDWR)
        self._commands = os.open(folder / "commands", os.O_RDWR)
        self._pool = ThreadPoolExecutor()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {"model_repository": model, "port": self.port, **fields}
        self.log = folder / "server.log"
        self.process = ServerProcess(folder, {name: str(one) for name, one in settings.items()})

    def arm(self) -> None:
        """Let the engine wait from now on."""
        (self.folder / "armed").touch()

    def wait_until_ready(self) -> None:
        wait_until_ready(self.url, self.process, self.log)

    def command(self, letter: str) -> None:
        os.write(self._commands, letter.encode())

    def await_batch(self) -> None:
        """Wait until the engine holds a batch."""
        assert select.select([self._started], [], [], PATIENCE_SECONDS)[0], self.log.read_text()
        os.read(self._started, 1)

    def post(self, rows: int = 1, features: int = 2) -> "Future[httpx.Response]":
        """Ask for rows on a connection of its own."""
        body = {"x": [[1.0] * features] * rows}
        url = f"{self.url}/encode"
        return self._pool.submit(httpx.post, url, json=body, timeout=60, verify=False)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=PATIENCE_SECONDS, verify=False)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.005)

    def metric(self, line: str) -> float:
        """The value of a metric, by its whole name and labels."""
        values = dict(text.rsplit(" ", 1) for text in self.get("/metrics").text.splitlines())
        return float(values.get(f"pushforward_{line}", "0"))

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._pool.shutdown()
        os.close(self._started)
        os.close(self._commands)


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Callable[..., StuckServer]]:
    """Start servers, ready and armed; end them whatever happens."""
    servers: list[StuckServer] = []

    def start(**fields: object) -> StuckServer:
        server = StuckServer(tmp_path, model, **fields)
        servers.append(server)
        server.wait_until_ready()
        server.arm()
        return server

    yield start
    for server in servers:
        server.close()


Start = Callable[..., StuckServer]


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(start: Start) -> None:
    server = start()
    computing = server.post()
    server.await_batch()
    queued = server.post()
    server.until(lambda: server.metric('queue_rows{model="toy",op="encode",version="1"}') == 1)
    server.signal()
    server.until(lambda: server.get("/health/ready").status_code == 503)
    assert server.get("/health/live").status_code == 200
    refused = httpx.post(f"{server.url}/encode", json=BODY, timeout=PATIENCE_SECONDS, verify=False)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["connection"] == "close"
    server.command("gg")
    assert computing.result(PATIENCE_SECONDS).status_code == 200
    assert queued.result(PATIENCE_SECONDS).status_code == 200
    assert server.wait() == 0


def test_who_connects_half_a_second_after_the_signal_is_refused(start: Start) -> None:
    server = start()
    server.signal()
    signalled = time.monotonic()
    server.command("g" * 30)
    time.sleep(max(0.0, signalled + 0.5 - time.monotonic()))
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.port)
        clients = [
            stack.enter_context(socket.create_connection(address, PATIENCE_SECONDS))
            for _ in range(24)
        ]
        for client in clients:
            client.sendall(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"connection: close" in answer
    assert server.wait() == 0


def test_a_second_signal_ends_at_once(start: Start) -> None:
    server = start()
    computing = server.post()
    server.await_batch()
    server.signal()
    server.until(lambda: server.get("/health/ready").status_code == 503)
    server.signal()
    assert server.wait() == 128 + signal.SIGTERM
    assert computing.result(PATIENCE_SECONDS).status_code == 503
    assert "Traceback" not in server.log.read_text()


def test_after_the_grace_what_is_left_is_answered_503(start: Start) -> None:
    server = start(shutdown_grace_seconds=0.1)
    computing = server.post()
    server.await_batch()
    server.signal(signal.SIGINT)
    assert server.wait() == 1
    assert computing.result(PATIENCE_SECONDS).status_code == 503


def test_the_grace_counts_once_and_a_cut_answer_shows_in_the_exit_code(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    grace = 3.0
    wide = tmp_path_factory.mktemp("wide") / "toy"
    models.save(models.build("realnvp", {"event_shape": [256], "num_layers": 2}), wide)
    server = StuckServer(tmp_path, wide, shutdown_grace_seconds=grace)
    try:
        server.wait_until_ready()
        server.arm()
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS) as reader:
            # 15 MB, more than the kernel keeps for a client that reads no more than a byte of them.
            body = b'{"num_samples": 3000}'
            head = b"POST /sample HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            reader.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            assert reader.recv(1) == b"H"
            computing = server.post(features=256)
            server.await_batch()
            server.signal()
            began = time.monotonic()
            time.sleep(grace / 2)
            server.command("g")
            assert computing.result(PATIENCE_SECONDS).status_code == 200
            assert server.wait() == 1
            took = time.monotonic() - began
        # Half as much again, were it one grace for the rows and another for the reader.
        assert grace - 0.2 <= took < 1.4 * grace
    finally:
        server.close()


def test_a_signal_while_loading_ends_at_once(tmp_path: Path, model: Path) -> None:
    (tmp_path / "armed").touch()
    server = StuckServer(tmp_path, model)
    try:
        server.await_batch()  # the warm-up's
        with pytest.raises(httpx.ConnectError):
            server.get("/health/live")
        server.signal()
        assert server.wait() == 0
    finally:
        server.close()


def test_a_port_in_use_is_one_line_and_exit_3(start: Start, tmp_path: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = subprocess.run(
            command("serve", str(model), "--port", str(port)),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=PATIENCE_SECONDS,
        )
    assert result.returncode == 3
    (line,) = result.stderr.splitlines()
    assert f"--port {port}" in line


def test_a_deadline_is_answered_while_the_engine_is_busy(start: Start) -> None:
    server = start(request_timeout_seconds=0.3)
    began = time.monotonic()
    late = server.post().result(PATIENCE_SECONDS)
    took = time.monotonic() - began  # the engine computes until it is told to end
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert 0.3 <= took < PATIENCE_SECONDS
    server.command("g" * 10)
    server.until(lambda: server.post().result(PATIENCE_SECONDS).status_code == 200)
    assert server.metric('dropped_total{model="toy",reason="deadline",version="1"}') == 1


def test_the_rows_of_a_client_that_left_are_never_computed(start: Start) -> None:
    server = start()
    computing = server.post()
    server.await_batch()
    body = json.dumps({"x": BODY["x"] * 3}).encode()
    head = f"POST /encode HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        server.until(lambda: server.metric('queue_rows{model="toy",op="encode",version="1"}') == 3)
    server.until(
        lambda: server.metric('dropped_total{model="toy",reason="cancelled",version="1"}') == 1
    )
    neighbour = server.post()
    server.until(lambda: server.metric('queue_rows{model="toy",op="encode",version="1"}') == 1)
    server.command("gg")
    assert computing.result(PATIENCE_SECONDS).status_code == 200
    assert neighbour.result(PATIENCE_SECONDS).status_code == 200
    assert server.metric('rows_total{model="toy",op="encode",version="1"}') == 2


def test_a_full_queue_is_answered_429_at_once(start: Start) -> None:
    server = start(max_queue_rows=4, max_batch_size=4)
    accepted = [server.post()]
    server.await_batch()
    accepted.append(server.post(rows=3))
    server.until(lambda: server.metric('queue_rows{model="toy",op="encode",version="1"}') == 3)
    refused = server.post(rows=2).result(PATIENCE_SECONDS)
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert server.post(rows=5).result(PATIENCE_SECONDS).status_code == 413
    server.command("gg")
    assert [reply.result(PATIENCE_SECONDS).status_code for reply in accepted] == [200, 200]


def test_an_engine_error_is_answered_without_its_words_and_the_next_request_works(
    start: Start,
) -> None:
    server = start()
    failed = server.post()
    server.await_batch()
    server.command("e")
    response = failed.result(PATIENCE_SECONDS)
    assert (response.status_code, response.json()["code"]) == (500, "engine_error")
    assert "as commanded" not in response.text
    server.command("g")
    assert server.post().result(PATIENCE_SECONDS).status_code == 200
    assert "as commanded" in server.log.read_text()


def test_a_dead_worker_ends_the_process(start: Start) -> None:
    server = start()
    lost = server.post()
    server.await_batch()
    server.command("x")
    assert lost.result(PATIENCE_SECONDS).status_code == 500
    assert server.wait() == 1
    assert "engine was lost" in server.log.read_text()
