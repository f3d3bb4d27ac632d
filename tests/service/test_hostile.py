"""Hostile names, numbers and heads: real models, and an eye on every file and socket."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

import models
from models.flow import Flow
from service.app import Application, create_app
from service.contracts import Repository
from service.repository import FolderRepository, zoo_folder
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.fake_repository import FakeRepository
from tests.service.transport.loopback import LoopbackServer as Server
from tests.service.transport.loopback import Z, request, run
from tests.service.transport.loopback import read as read_answer

# One process for all: loading the models takes longer than the tests.
pytestmark = pytest.mark.xdist_group("hostile")

ZOO = ("digits-nice", "digits-realnvp", "magic", "moons", "pinwheel")
SPLINE = "spline"
BOUND = 3.0
# Outside of what float32 can square, at its end, and below its normal numbers.
EXTREMES = (1e19, 1e30, 3.4e38, -3.4e38, 1e-45)


class LoopbackServer:
    """An application in the process of the test, asked as uvicorn asks it: any path, any body."""

    def __init__(self, app: Application, repository: Repository, runner: asyncio.Runner) -> None:
        self.app = app
        self.repository = repository
        self._runner = runner

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        return self._runner.run(self.exchange(method, path, body, headers or {}))

    def post(self, path: str, content: Any) -> tuple[int, bytes]:
        return self.ask("POST", path, orjson.dumps(content), {"content-type": "application/json"})

    async def exchange(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(errors="replace"),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        sent: list[Any] = []
        coming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not coming:
                await asyncio.Event().wait()  # this client stays
            return coming.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained models, and one of splines."""
    torch.manual_seed(0)
    config = {"event_shape": [2], "num_layers": 2, "num_bins": 5, "bound": BOUND}
    flow = models.build("nsf", config)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("models") / SPLINE
    models.save(flow.eval(), folder)
    return {SPLINE: folder, **{name: zoo_folder() / name for name in ZOO}}


@pytest.fixture(scope="module")
def loopback(folders: dict[str, Path]) -> Iterator[LoopbackServer]:
    settings = Settings(
        model_repository=tuple(folders.values()),
        engine="torch",
        watch_models=False,
        enable_model_control=True,
        log_level="error",
    )
    metrics = Metrics()
    repository = FolderRepository(settings, metrics)
    app = create_app(settings, repository, metrics)
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        yield LoopbackServer(app, repository, runner)
        runner.run(lifespan.__aexit__(None, None, None))


def loaded(body: bytes) -> Any:
    """JSON as RFC 8259 has it: without NaN and Infinity."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    return json.loads(body, parse_constant=refuse)


def reference(folder: Path) -> Flow:
    return models.load(folder).double().eval()


@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize("name", [*ZOO, SPLINE])
def test_huge_and_tiny_numbers_are_answered_row_by_row(
    loopback: LoopbackServer, folders: dict[str, Path], name: str, value: float
) -> None:
    shape = loopback.repository.get(name).card.event_shape
    x = np.stack([np.full(shape, value), np.ones(shape)])
    z = x.reshape(2, -1)
    for path, rows in (("/log_prob", {"x": x}), ("/encode", {"x": x}), ("/decode", {"z": z})):
        fields = {key: tensor.tolist() for key, tensor in rows.items()}
        status, body = loopback.post(path, {"model": name, **fields})
        answer = loaded(body)
        assert status == 200, answer
        silent = {failure["row"] for failure in answer.get("failures", [])}
        silent |= set(answer.get("non_finite", []))
        for output in {"log_prob", "log_det", "x", "z", "bits_per_dim"} & answer.keys():
            hostile, ordinary = answer[output]
            assert hostile is not None or 0 in silent
            assert ordinary is not None, "the neighbour is answered"
        assert 1 not in silent


EDGES = {
    "digits-nice": [0.0, 255.0],
    "digits-realnvp": [0.0, 255.0],
    SPLINE: [-BOUND, BOUND, np.nextafter(np.float32(BOUND), np.float32(9)).item(), 0.0, 50.0],
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_of_pixels_and_splines_are_scored_as_in_float64(
    loopback: LoopbackServer, folders: dict[str, Path], name: str
) -> None:
    shape = loopback.repository.get(name).card.event_shape
    x = np.stack([np.full(shape, value, np.float32) for value in EDGES[name]])
    _, body = loopback.post("/log_prob", {"model": name, "x": x.tolist()})
    with torch.no_grad():
        expected = reference(folders[name]).log_prob(torch.from_numpy(x).double()).numpy()
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(loaded(body)["log_prob"], expected, rtol=1e-4, atol=1e-3)


# Names and addresses

NAMES = {
    "parent": "../moons",
    "absolute": "/etc/passwd",
    "semicolon": "moons;moons",
    "backslash": "a\\..\\moons",
    "nul": "moons\0",
    "long": "x" * 10_000,
    "look_alike": "m\u043e\u043ens",
    "space": " moons",
    "newline": "moons\n",
    "escaped": "%2e%2e%2fmoons",
    "escaped_twice": "%252e%252e%252fmoons",
    "url": "http://127.0.0.1:9/moons",
    "file_url": "file:///etc/passwd",
    "share": "\\\\127.0.0.1\\moons",
    "empty": "",
}


@contextmanager
def watched() -> Iterator[list[str]]:
    """What is opened or connected to meanwhile, as the interpreter's audit sees it."""
    seen: list[str] = []
    is_active = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if str(arguments[0] if arguments else "").endswith(".py"):
            return  # the framework reads its routes' source at their first error
        if is_active and event in (
            *("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir"),
            *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
            *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
        ):
            seen.append(f"{event} {arguments}")

    sys.addaudithook(hook)  # it can never be taken away again
    try:
        yield seen
    finally:
        is_active = False


@pytest.mark.parametrize("case", NAMES)
def test_a_name_touches_no_file_and_no_network(loopback: LoopbackServer, case: str) -> None:
    infer = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0, 1]}]}
    rows = {"x": [[0.0, 1.0]]}

    def use(name: str) -> list[tuple[int, bytes]]:
        return [
            loopback.post("/encode", {"model": name, **rows}),
            loopback.post("/sample", {"model": name}),
            loopback.ask("GET", f"/models/{name}"),
            loopback.ask("GET", f"/v2/models/{name}"),
            loopback.ask("GET", f"/v2/models/{name}/ready"),
            loopback.post(f"/v2/models/{name}/infer", infer),
            loopback.post(f"/v2/models/moons/versions/{name}/infer", infer),
            loopback.post(f"/v2/repository/models/{name}/load", {}),
            loopback.post(f"/v2/repository/models/{name}/unload", {}),
        ]

    with watched() as seen:
        answers = use(NAMES[case])
    assert seen == []
    # GET /models/ with nothing behind it is the list under another name, which has no route.
    assert {status for status, _ in answers} <= {404, 405, 422}
    assert all(len(body) < 2000 for _, body in answers)
    assert loopback.post("/encode", {"model": "moons", **rows})[0] == 200


ADDRESS = "http://127.0.0.1:9/x.npy"
ADDRESSED: dict[str, tuple[str, Any, dict[str, str]]] = {
    "rows": ("/encode", {"model": "moons", "x": ADDRESS}, {}),
    "rows_in_a_list": ("/encode", {"model": "moons", "x": [[ADDRESS, "/etc/passwd"]]}, {}),
    "picture": ("/encode", {"model": "digits-nice", "x": {"url": ADDRESS}}, {}),
    "context": ("/sample", {"model": "moons", "context": "/etc/passwd"}, {}),
    "content_location": (
        "/encode",
        {"model": "moons", "x": [[0.0, 1.0]]},
        {"content-location": ADDRESS, "referer": ADDRESS, "x-forwarded-host": "127.0.0.1:9"},
    ),
    "shared_memory": (
        "/v2/models/moons/infer",
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, 2],
                    "datatype": "FP32",
                    "parameters": {"shared_memory_region": "/etc/passwd"},
                }
            ]
        },
        {},
    ),
    "files_of_a_model": (
        "/v2/repository/models/moons/load",
        {"parameters": {"file:1/config.json": "e30=", "config": ADDRESS}},
        {},
    ),
}


@pytest.mark.parametrize("case", ADDRESSED)
def test_no_address_is_ever_followed(loopback: LoopbackServer, case: str) -> None:
    path, content, headers = ADDRESSED[case]
    headers = {"content-type": "application/json", "host": "127.0.0.1:9", **headers}
    with watched() as seen:
        status, _ = loopback.ask("POST", path, orjson.dumps(content), headers)
    assert seen == []
    assert status == (200 if case == "content_location" else 422)


def test_names_that_nobody_serves_make_no_series() -> None:
    metrics, repository = Metrics(), FakeRepository()
    app = create_app(Settings(log_level="error"), repository, metrics)

    def series() -> int:
        return len(metrics.render().splitlines())

    with asyncio.Runner() as runner:
        loopback = LoopbackServer(app, repository, runner)

        def try_names(first: int, last: int) -> None:
            for index in range(first, last):
                name = f"scan-{index}"
                loopback.post("/encode", {"model": name, "x": [[1.0]]})
                if index % 10 == 0:
                    loopback.ask("GET", f"/models/{name}")
                    loopback.ask("GET", f"/{name}")
                    loopback.ask(f"M{index}", "/models")
                    loopback.post(f"/v2/models/{name}/infer", {"inputs": []})

        try_names(0, 20)
        before = series()
        try_names(20, 10_000)
        assert series() == before


# Heads

LONG = 10 << 20
HEADS: dict[str, bytes] = {
    "header_of_10_mb": b"POST /encode HTTP/1.1\r\nX-Long: " + b"x" * LONG,
    "name_of_1_mb": b"POST /encode HTTP/1.1\r\n" + b"x" * (1 << 20),
    "path_of_1_mb": b"GET /models/" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
    "100k_headers": b"GET /models HTTP/1.1\r\n" + b"a: b\r\n" * 100_000 + b"\r\n",
    "a_little_too_long": request(X_Long="x" * 70_000),
    "trailers": request(body=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    + b"1\r\n{\r\n0\r\n"
    + b"a: b\r\n" * 100_000
    + b"\r\n",
}


@pytest.mark.parametrize("piece", [1000, 1 << 18], ids=["drops", "gulps"])
@pytest.mark.parametrize("case", HEADS)
def test_endless_heads_are_refused(case: str, piece: int) -> None:
    data = HEADS[case]

    async def play() -> None:
        loopback = Server()
        async with loopback.client() as (reader, writer):
            try:
                for start in range(0, len(data), piece):
                    writer.write(data[start : start + piece])
                    await writer.drain()
                answer = await read_answer(reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass  # closed, and what was still under way took the answer with it
            else:
                assert answer.status == 431
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["code"] == "head_too_large"
        assert loopback.all <= 1
        async with loopback.client() as (reader, writer):
            writer.write(request())
            assert (await read_answer(reader)).json()["z"] == Z

    run(play)


def test_the_longest_head_is_taken() -> None:
    async def play() -> None:
        loopback = Server()
        for length in (60_000, 70_000):
            async with loopback.client() as (reader, writer):
                writer.write(request(X_Long="x" * length))
                answer = await read_answer(reader)
            assert answer.status == (200 if length == 60_000 else 431)
        assert answer.json()["code"] == "head_too_large"
        assert answer.headers["connection"] == "close"

    run(play)


FRAMES: dict[str, bytes] = {
    "negative_length": request().replace(b"Content-Length: ", b"Content-Length: -"),
    "length_in_words": request().replace(b"Content-Length: ", b"Content-Length: x"),
    "two_lengths": request(Content_Length_="1").replace(b"Content-Length-", b"Content-Length"),
    "length_and_chunks": request(Transfer_Encoding="chunked"),
    "chunk_size_of_words": request(body=b"").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    + b"xyz\r\n",
    "chunk_size_of_2_70": request(body=b"").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    + b"4"
    + b"0" * 17
    + b"\r\n",
    "no_http": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "nul_in_a_header": request(X_Nul="a\0b"),
    "folded_header": request(X_Folded="a\r\n b\x01"),
}


@pytest.mark.parametrize("case", FRAMES)
def test_what_says_two_things_is_400_and_the_end(case: str) -> None:
    async def play() -> None:
        loopback = Server()
        async with loopback.client() as (reader, writer):
            writer.write(FRAMES[case])
            answer = await read_answer(reader)
            assert answer.status == 400
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "malformed_request"
            assert await reader.read() == b"", "nobody knows where the next request begins"

    run(play)


def test_a_head_that_trickles_holds_no_connection() -> None:
    async def play() -> None:
        loopback = Server()
        loopback.config.timeout_keep_alive = 0.2
        async with loopback.client() as (reader, writer):
            writer.write(b"POST /encode HTTP/1.1\r\nX-Slow: ")
            closed = asyncio.ensure_future(reader.read())
            while not closed.done():
                writer.write(b"x")
                await asyncio.wait([closed], timeout=0.02)
            assert closed.exception() is not None or closed.result() == b""

    run(play)
