"""Hostile bodies, connections and surroundings: on the real process, which must live on."""

import contextlib
import http.client
import io
import itertools
import json
import os
import pickle
import resource
import socket
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.process import RunningServer, command, free_port, serving, wait_until_ready

ZOO = Path(__file__).parents[2] / "models" / "zoo"
KEY = "a-key-that-nobody-may-see"
WRONG_KEY = "another-key-that-is-wrong"
PATIENCE_SECONDS = 30.0
BODY_SECONDS = 1.0
MAX_GROWTH_BYTES = 50 * 2**20
IDLE_CONNECTIONS = 1000
CONTROL = {"model": "moons", "x": [[0.0, 1.0]]}

# Nobody but the tests of one worker asks this server, and they ask in turn.
pytestmark = pytest.mark.xdist_group("hostile_server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("hostile") / "server.log"
    folders = [str(ZOO / name) for name in ("moons", "digits-nice")]
    flags = ["--engine", "torch", "--log-format", "json", "--watch-models", "false"]
    flags += ["--request-timeout-seconds", str(BODY_SECONDS)]
    with serving(log, *folders, *flags, env={"PUSHFORWARD_API_KEYS": KEY}) as running:
        control(running)
        yield running


def control(server: RunningServer) -> Any:
    """Ask what can be answered."""
    with server.client() as http:
        assert http.get("/health/live").status_code == 200
        answer = http.post("/log_prob", json=CONTROL, headers={"X-API-Key": KEY})
    assert answer.status_code == 200, answer.text
    return answer.json()["log_prob"]


@pytest.fixture(autouse=True)
def _lives_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test did: the server answers as before, and holds no more memory."""
    if "server" not in request.fixturenames:
        yield
        return
    server = request.getfixturevalue("server")
    before, memory = control(server), server.resident_bytes()
    yield
    assert control(server) == before
    assert server.resident_bytes() - memory < MAX_GROWTH_BYTES
    assert "Traceback" not in server.log.read_text()


def connect(server: RunningServer) -> socket.socket:
    port = int(server.url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def head(path: str = "/encode", *, method: str = "POST", **fields: str | int) -> bytes:
    shown = {"Host": "server", "X-API-Key": KEY, "Content-Type": "application/json", **fields}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in shown.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def exchange(
    server: RunningServer, *data: bytes, rest: Iterable[bytes] = ()
) -> tuple[int | None, bytes]:
    """Send bytes on a connection of their own.

    Args:
        data: sent at once.
        rest: sent until the server closes.

    Returns:
        Status and body; None where the connection was closed.
    """
    with connect(server) as client:
        with contextlib.suppress(ConnectionError):
            for part in itertools.chain(data, rest):
                client.sendall(part)
        answer = http.client.HTTPResponse(client)
        try:
            answer.begin()
            return answer.status, answer.read()
        except (ConnectionError, http.client.HTTPException):
            return None, b""


def post(
    server: RunningServer, path: str, body: bytes, media: str = "application/json"
) -> tuple[int | None, dict[str, Any]]:
    fields = {"Content_Length": len(body), "Content-Type": media}
    status, text = exchange(server, head(path, **fields), body)
    problem: dict[str, Any] = json.loads(text) if text else {}
    return status, problem


# Bodies


def saved(values: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def inflating(copies: int) -> bytes:
    """A deflate stream of `copies` times 16 MB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * copies + b"\x03\x00"


def archive(content: bytes, size: int) -> bytes:
    """An npz with the member x.npy, deflated, that says it has `size` bytes."""
    name = b"x.npy"
    facts = struct.pack("<HHHIIIHH", 8, 0, 0, 0, len(content), size, len(name), 0)
    member = b"PK\x03\x04\x14\x00\x00\x00" + facts + name + content
    entry = b"PK\x01\x02\x14\x00\x14\x00\x00\x00" + facts
    entry += struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(member), 0)
    return member + entry + end


def picture(width: int, height: int, data: bytes, depth: int = 8) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    facts = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = (("IHDR", facts), ("IDAT", data), ("IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind.encode(), part) for kind, part in parts)


ROWS = "/encode?model=moons"
PIXELS = "/log_prob?model=digits-nice"
NPY, NPZ, PNG = "application/x-npy", "application/x-npz", "image/png"
BODIES: dict[str, tuple[str, str, bytes, int]] = {
    "text": ("/encode", "", b"hello", 400),
    "truncated": ("/encode", "", b'{"x": [[1', 400),
    "byte_order_mark": ("/encode", "", b"\xef\xbb\xbf{}", 400),
    "no_utf_8": ("/encode", "", b'{"model": "\xff"}', 400),
    "no_object": ("/encode", "", b"[1]", 400),
    "nested_deep": ("/encode", "", b'{"x":' + b"[" * 100_000, 400),
    "key_twice": ("/encode", "", b'{"x": [[1, 2]], "x": [[1, 2]]}', 400),
    "long_integer": ("/encode", "", b'{"x": [[' + b"9" * 100_000 + b", 1]]}", 400),
    "1e400": ("/encode", "", b'{"model": "moons", "x": [[1e400, 1]]}', 422),
    "nan": ("/encode", "", b'{"model": "moons", "x": [[NaN, 1]]}', 422),
    "10^12_samples": ("/sample", "", b'{"model": "moons", "num_samples": 1000000000000}', 413),
    "huge_shape": (
        "/v2/models/moons/infer",
        "",
        b'{"inputs": [{"name": "x", "shape": [9223372036854775807, 2], "datatype": "FP32", '
        b'"data": [1, 2]}]}',
        422,
    ),
    "negative_shape": (
        "/v2/models/moons/infer",
        "",
        b'{"inputs": [{"name": "x", "shape": [-1, 2], "datatype": "FP32", "data": [1, 2]}]}',
        422,
    ),
    "npy_that_lies": (ROWS, NPY, saved(np.ones((1, 2)))[:-8], 400),
    "npz_of_4_gb": (ROWS, NPZ, archive(inflating(255), 255 << 24), 413),
    "npz_of_10_gb_that_lies": (ROWS, NPZ, archive(inflating(640), 144), 400),
    "png_65535": (PIXELS, PNG, picture(65535, 65535, zlib.compress(bytes(1 << 24))), 422),
    "png_with_too_much": (PIXELS, PNG, picture(28, 28, zlib.compress(bytes(1 << 26))), 0),
    "png_1x1": (PIXELS, PNG, picture(1, 1, zlib.compress(bytes(2))), 422),
    "png_of_16_bit": (PIXELS, PNG, picture(28, 28, zlib.compress(bytes(1596)), 16), 415),
    "multipart": ("/encode", "multipart/form-data; boundary=x", b"--x\r\n" * 100_000, 415),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_hostile_body_is_refused_at_once(server: RunningServer, case: str) -> None:
    path, media, body, status = BODIES[case]
    began = time.monotonic()
    found, problem = post(server, path, body, media or "application/json")
    assert time.monotonic() - began < 5
    if not status:  # a picture may have more data than pixels: it is read no further
        assert found in (200, 400, 413, 422)
        return
    assert found == status, problem
    assert problem["status"] == status
    assert len(problem["detail"]) < 300


class Canary:
    """Unpickling one makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_ever_unpickled(server: RunningServer, tmp_path: Path) -> None:
    canary = Canary(tmp_path / "canary")
    pickled = saved(np.array([[canary]], object), allow_pickle=True)
    assert post(server, ROWS, pickled, NPY)[0] == 415
    for media in (NPY, NPZ, PNG, "application/json", "application/octet-stream"):
        status, _ = post(server, ROWS, pickle.dumps(canary), media)
        assert status in (400, 415)
    assert not canary.path.exists()


# How bodies come


def chunks(data: bytes) -> Iterator[bytes]:
    chunk = b"%x\r\n%s\r\n" % (len(data), data)
    while True:
        yield chunk


def test_a_body_over_the_limit_is_not_read_to_its_end(server: RunningServer) -> None:
    status, _ = exchange(server, head(Content_Length=70_000_000))
    assert status == 413
    status, _ = exchange(server, head(Transfer_Encoding="chunked"), rest=chunks(bytes(1 << 20)))
    assert status in (413, None)
    fields: dict[str, str | int] = {"Content_Encoding": "br", "Content_Length": 4}
    assert exchange(server, head(**fields), b"\x1f\x8b\0\0")[0] == 415


def test_two_million_chunks_of_one_byte(server: RunningServer) -> None:
    data = [b"1\r\n \r\n" * 100_000] * 20
    status, _ = exchange(server, head(Transfer_Encoding="chunked"), *data, b"0\r\n\r\n")
    assert status in (400, 408, 413)


@pytest.mark.parametrize(
    "fields",
    [
        {"Content_Length": -1},
        {"Content_Length": "2\r\nContent-Length: 3"},
        {"Content_Length": 2, "Transfer_Encoding": "chunked"},
    ],
    ids=["negative", "two", "length_and_chunks"],
)
def test_lengths_that_contradict_end_the_connection(
    server: RunningServer, fields: dict[str, Any]
) -> None:
    with connect(server) as client:
        client.sendall(head(**fields) + b"{}")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 400
        assert json.loads(answer.read())["code"] == "malformed_request"
        assert client.recv(1) == b""


def test_slow_and_half_closed_clients_hold_up_nobody(server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(3)]
        slow[0].sendall(head(Content_Length=100) + b"{")
        slow[1].sendall(b"POST /encode HTTP/1.1\r\nX-Slow: ")
        slow[2].sendall(head(Content_Length=100) + b"{")
        slow[2].shutdown(socket.SHUT_WR)
        control(server)
        assert slow[2].recv(100) == b""
        answer = http.client.HTTPResponse(slow[0])
        answer.begin()
        assert answer.status == 408


def test_a_thousand_idle_connections_hold_up_nobody(server: RunningServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE_CONNECTIONS, soft - 200)
    assert count > 100, f"too few open files are allowed here: {soft} of {hard}"
    with contextlib.ExitStack() as stack:
        for index in range(count):
            client = stack.enter_context(connect(server))
            if index % 2:
                client.sendall(b"POST /enc")
        began = time.monotonic()
        control(server)
        assert time.monotonic() - began < 5


def test_a_head_of_ten_megabytes_is_refused(server: RunningServer) -> None:
    for first, part, count in (
        (b"POST /encode HTTP/1.1\r\nX-Long: ", b"x" * 1_000_000, 10),
        (b"POST /encode HTTP/1.1\r\n", b"a: b\r\n" * 10_000, 10),
        (b"GET /", b"x" * 1_000_000, 1),
    ):
        status, _ = exchange(server, first, rest=[part] * count)
        assert status in (431, None)


def test_ten_thousand_ranges_are_ignored(server: RunningServer) -> None:
    ranges = "bytes=" + ",".join(f"{index}-{index}" for index in range(10_000))
    path = "/models/moons"
    assert exchange(server, head(path, method="GET", Range=ranges[:60_000]))[0] == 200


# Names in the path

PATHS = (
    *("../x", "%2e%2e%2fx", "%252e%252e%252fx", "a;b", "a%5c..%5cmoons", "moons%00"),
    *("x" * 10_000, "m%d0%beons", "%20moons", "%ff%fe", "..%c0%af..%c0%afetc", "moons/../moons"),
)


def ask_by_path(server: RunningServer, name: str) -> Iterator[tuple[int | None, bytes]]:
    """Ask for a model by its name in every path that has one; give status and body of each."""
    for method, path in (
        ("GET", f"/models/{name}"),
        ("GET", f"/v2/models/{name}"),
        ("POST", f"/v2/models/{name}/infer"),
        ("POST", f"/v2/repository/models/{name}/load"),
    ):
        body = b'{"inputs": []}' if path.endswith("infer") else b""
        yield exchange(server, head(path, method=method, Content_Length=len(body)), body)


@pytest.mark.parametrize("name", PATHS, ids=lambda name: name[:12])
def test_names_in_a_path_lead_nowhere(server: RunningServer, name: str) -> None:
    for status, text in ask_by_path(server, name):
        assert status in (404, 422), text
        assert json.loads(text)["status"] == status


# Keys


def test_neither_keys_nor_paths_are_shown(server: RunningServer) -> None:
    texts = []
    with server.client() as client:
        for headers in ({"Authorization": f"Bearer {WRONG_KEY}"}, {"X-API-Key": WRONG_KEY * 1000}):
            for path in ("/metrics", "/models", "/v2", f"/models/{WRONG_KEY}"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401
                texts.append(answer.text)
        headers = {"X-API-Key": KEY}
        for path, body in (("/encode", b"{"), ("/encode", b"{}"), ("/nowhere", b"")):
            texts.append(client.post(path, content=body, headers=headers).text)
    log = server.log.read_text()
    for text in (*texts, log.partition("serving on")[2]):
        assert WRONG_KEY[:20] not in text.replace(f"/models/{WRONG_KEY}", "")
        assert str(ZOO) not in text
    assert KEY not in log
    assert not any(KEY in text for text in texts)


# Surroundings

NOBODY = 65534


def as_nobody_on_a_full_disk() -> None:
    """No file can grow, few can be open, and the user is none that anybody knows."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    if os.getuid() == 0 and may_all_read(Path(command()[0])):
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def may_all_read(path: Path) -> bool:
    """Whether another user could run what this environment holds."""
    real = Path(os.path.realpath(path.with_name("python")))
    folders = {*real.parents, *path.parents, *ZOO.parents}
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in folders)


@pytest.fixture
def poor() -> tuple[dict[str, str], list[str]]:
    """An environment without a place to write, and flags to serve in it."""
    nowhere = {"TMPDIR": "/nonexistent", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    flags = ["serve", str(ZOO / "moons"), "--engine", "torch", "--port", str(free_port())]
    return {**os.environ, **nowhere}, flags


def test_it_serves_where_nothing_can_be_written(
    poor: tuple[dict[str, str], list[str]], tmp_path: Path
) -> None:
    env, flags = poor
    log = tmp_path / "log"
    # Through a pipe: not even its own log can be a file.
    with subprocess.Popen(
        command(*flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=env,
        cwd="/",
        preexec_fn=as_nobody_on_a_full_disk,
    ) as process:
        assert process.stdout is not None
        lines: list[bytes] = []
        reader = threading.Thread(target=lines.extend, args=(process.stdout,))
        reader.start()
        try:
            url = f"http://127.0.0.1:{flags[-1]}"
            log.write_text("")
            wait_until_ready(url, process, log)  # type: ignore[arg-type]
            control(RunningServer(url, process, log, 0, 0))  # type: ignore[arg-type]
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) == 0, lines
        finally:
            process.kill()
            reader.join()


def test_several_processes_say_that_they_need_a_place_to_write(
    poor: tuple[dict[str, str], list[str]],
) -> None:
    env, flags = poor
    result = subprocess.run(
        command(*flags, "--workers", "2"),
        capture_output=True,
        text=True,
        check=False,
        env=env,
        cwd="/",
        timeout=PATIENCE_SECONDS,
        preexec_fn=as_nobody_on_a_full_disk,
    )
    assert result.returncode == 3
    (line,) = result.stderr.splitlines()
    assert "--workers" in line
    assert "TMPDIR" in line
