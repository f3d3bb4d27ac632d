"""Little memory and few descriptors, on the real process: said in one line, and lived with."""

import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from benchmarks.process import command, free_port, wait_until_ready

MOONS = str(Path(__file__).resolve().parents[2] / "models" / "zoo" / "moons")
PATIENCE_SECONDS = 30.0


def limited(limit: str, *arguments: str) -> list[str]:
    """The command line that runs `pushforward` with a limit, as `ulimit` sets it."""
    return ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", *command(*arguments)]


@pytest.mark.parametrize(
    ("limit", "word"),
    [("-v 262144", "ulimit -v"), ("-v 716800", "ulimit -v"), ("-d 262144", "ulimit -d")],
)
def test_too_little_memory_is_one_line_and_exit_3(limit: str, word: str) -> None:
    result = subprocess.run(
        limited(limit, "serve", MOONS, "--port", "0"),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert result.returncode == 3
    (line,) = (result.stdout + result.stderr).splitlines()
    assert word in line


def test_of_200_clients_of_64_descriptors_none_is_reset(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            limited("-n 64", "serve", MOONS, "--port", str(port)),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process, log)
        with ExitStack() as stack:
            statuses = _ask_of_many(stack, port)
            assert httpx.get(f"{url}/health/live", timeout=PATIENCE_SECONDS).status_code == 200
        assert set(statuses) == {b"200", b"503"}
        assert statuses.index(b"503") >= 16
        answer = httpx.post(f"{url}/sample", json={"num_samples": 3}, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
        assert log.read_text().count("limit on descriptors") == 1
    finally:
        process.kill()
        process.wait()


def _ask_of_many(stack: ExitStack, port: int) -> list[bytes]:
    """Let 200 clients connect and ask, then read; give the status each got, in order."""
    address = ("127.0.0.1", port)
    clients = [
        stack.enter_context(socket.create_connection(address, PATIENCE_SECONDS)) for _ in range(200)
    ]
    for client in clients:
        client.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
    return [client.recv(65536).split(b" ")[1] for client in clients]
