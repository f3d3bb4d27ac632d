"""tritonclient, unchanged, over gRPC against a real server of two processes."""

import asyncio
import json
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as http
from tritonclient.grpc.aio import InferenceServerClient as AsyncTritonClient
from tritonclient.utils import InferenceServerException

from benchmarks.process import RunningServer, free_port, serving

X = np.array([[0.5, -1.0], [2.0, 0.25], [-0.125, 1.5]], np.float32)
ZOO = Path(__file__).parents[2] / "models" / "zoo"
# One process for all, in their order: the last one ends the server.
pytestmark = pytest.mark.xdist_group("grpc")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("grpc") / "server.log"
    arguments = (str(ZOO / "moons"), "--workers", "2", "--grpc-port", str(port))
    with serving(log, *arguments, "--log-format", "json") as running:
        yield running


@pytest.fixture
def client(server: RunningServer, port: int) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as opened:
        yield opened


def given(rows: Any = X, name: str = "x") -> list[Any]:
    return [triton.InferInput(name, rows.shape, "FP32").set_data_from_numpy(rows)]


def test_the_same_numbers_as_over_http(
    client: triton.InferenceServerClient, server: RunningServer
) -> None:
    with http.InferenceServerClient(server.url.removeprefix("http://")) as other:
        tensor = http.InferInput("x", X.shape, "FP32").set_data_from_numpy(X)
        expected = other.infer("moons", [tensor])
        found = client.infer("moons", given(), request_id="mine", priority=1, timeout=5_000_000)
        assert found.get_response().id == "mine"
        for name in ("z", "log_det", "log_prob"):
            np.testing.assert_array_equal(found.as_numpy(name), expected.as_numpy(name))
        assert client.get_model_metadata("moons", as_json=True)["name"] == "moons"
        wanted = [triton.InferRequestedOutput("log_prob")]
        (only,) = client.infer("moons", given(), outputs=wanted).get_response().outputs
        assert only.name == "log_prob"
        drawn = client.infer("moons", [], parameters={"num_samples": 4, "seed": 7})
        assert drawn.as_numpy("x").shape == (4, 2)
        large = np.zeros((3000, 2), np.float32)
        compressed = client.infer("moons", given(large), compression_algorithm="gzip")
        assert len(compressed.as_numpy("z")) == 3000


def test_the_server_and_its_models(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("moons")
    assert client.is_model_ready("moons", "1")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata().name == "pushforward"
    assert [each.name for each in client.get_model_repository_index().models] == ["moons"]
    client.infer("moons", given())
    (statistics,) = client.get_inference_statistics("moons").model_stats
    assert statistics.inference_count >= len(X)


def test_a_refusal_has_its_status_and_says_what_to_do(client: triton.InferenceServerClient) -> None:
    for name, rows, status, said in (
        ("none", X, "StatusCode.NOT_FOUND", "served: moons"),
        ("moons", X[:, :1], "StatusCode.INVALID_ARGUMENT", "expected (*, 2)"),
        ("moons", np.zeros((20_000, 2), np.float32), "StatusCode.OUT_OF_RANGE", "16384"),
    ):
        with pytest.raises(InferenceServerException) as found:
            client.infer(name, given(rows))
        assert found.value.status() == status
        assert said in found.value.message()


def test_streams_and_the_async_client(client: triton.InferenceServerClient, port: int) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for identity, rows in (("1", X), ("2", X[:, :1]), ("3", X)):
        client.async_stream_infer("moons", given(rows), request_id=identity)
    told = [answers.get(timeout=20) for _ in range(3)]
    client.stop_stream()
    assert [error is None for _, error in told] == [True, False, True]
    assert [told[0][0].get_response().id, told[2][0].get_response().id] == ["1", "3"]

    async def ask() -> Any:
        async with AsyncTritonClient(f"127.0.0.1:{port}") as opened:
            return await asyncio.gather(*(opened.infer("moons", given()) for _ in range(20)))

    for result in asyncio.run(ask()):
        np.testing.assert_array_equal(result.as_numpy("z"), told[0][0].as_numpy("z"))


def test_processes_share_the_port_and_answer_what_they_took(
    server: RunningServer, port: int
) -> None:
    """Connections spread over both; on SIGTERM each call is answered, or refused as unavailable."""
    channel_args = [("grpc.use_local_subchannel_pool", 1)]

    def ask(_: int) -> list[str]:
        told = []
        with triton.InferenceServerClient(f"127.0.0.1:{port}", channel_args=channel_args) as one:
            while True:
                try:
                    one.infer("moons", given())
                except InferenceServerException as error:
                    return [*told, str(error.status())]
                told.append("OK")
                if len(told) == 20:
                    started.put(None)

    started: queue.Queue[None] = queue.Queue()
    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(ask, number) for number in range(8)]
        for _ in asking:
            started.get(timeout=30)
        assert server.terminate() == 0
        told = [each.result(timeout=30) for each in asking]
    assert {one for each in told for one in each} == {"OK", "StatusCode.UNAVAILABLE"}
    log = server.log.read_text()
    assert all(f'ModelInfer 200","worker":{number}' in _compact(log) for number in (1, 2)), log


def _compact(log: str) -> str:
    """The message of each access line, and its worker."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return "\n".join(f'{one["message"]}","worker":{one.get("worker")}' for one in lines)
