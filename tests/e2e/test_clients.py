"""tritonclient, unchanged, and our own client against a real server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.http as triton
from tritonclient.http.aio import InferenceServerClient as AsyncTritonClient
from tritonclient.utils import InferenceServerException

import models
from benchmarks.process import RunningServer, serving
from models.flow import Flow
from models.noise import base_noise
from pushforward.client import AsyncClient, Client, NotFound, RequestRefused

X = np.array([[0.5, -1.0], [2.0, 0.25], [-0.125, 1.5]], np.float32)


def make_flow(seed: int, **config: Any) -> Flow:
    torch.manual_seed(seed)
    flow = models.build("realnvp", {"event_shape": [2], "num_layers": 2} | config)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow.eval()


# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("v2_clients")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    models.save(make_flow(1), folder / "toy" / "7")
    models.save(make_flow(2, context_features=2), folder / "given")
    return folder


@pytest.fixture(scope="module")
def flow(repository: Path) -> Flow:
    return models.load(repository / "toy" / "7")


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving(log, str(repository), "--enable-model-control", "true") as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://")) as opened:
        yield opened


def tensor(values: Any, name: str = "x", *, binary: bool = True) -> triton.InferInput:
    code = {"f4": "FP32", "f8": "FP64", "i8": "INT64"}[values.dtype.str[1:]]
    return triton.InferInput(name, values.shape, code).set_data_from_numpy(values, binary)


def expected(flow: Flow) -> dict[str, Any]:
    z, log_det = flow.encode(torch.from_numpy(X.copy()))
    log_prob = flow.log_prob(torch.from_numpy(X.copy()))
    return {"z": z.numpy(), "log_det": log_det.numpy(), "log_prob": log_prob.numpy()}


def close(got: Any, wanted: Any) -> None:
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


# tritonclient


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.is_model_ready("toy", "7")
    assert not client.is_model_ready("toy", "6")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("given")
    assert {"name": "x", "datatype": "FP32", "shape": [-1, 2]} in metadata["inputs"]
    assert {"name": "context", "datatype": "FP32", "shape": [-1, 2]} in metadata["inputs"]
    assert {"name": "log_prob", "datatype": "FP32", "shape": [-1]} in metadata["outputs"]
    assert [model["name"] for model in client.get_model_repository_index()] == ["given", "toy"]


def test_statistics(client: triton.InferenceServerClient) -> None:
    def ask() -> dict[str, Any]:
        (found,) = client.get_inference_statistics("toy", "7")["model_stats"]
        return dict(found)

    before = ask()
    client.infer("toy", [tensor(X)])
    after = ask()
    assert (after["name"], after["version"]) == ("toy", "7")
    assert after["inference_count"] - before["inference_count"] == len(X)
    assert after["execution_count"] - before["execution_count"] == 1
    for name in ("success", "queue", "compute_infer"):
        old, new = (one["inference_stats"][name] for one in (before, after))
        assert new["count"] - old["count"] == 1, name
        assert new["ns"] >= old["ns"], name
    everyone = client.get_inference_statistics()["model_stats"]
    assert [one["name"] for one in everyone] == ["given", "toy"]
    with pytest.raises(InferenceServerException, match="version"):
        client.get_inference_statistics("toy", "6")


@pytest.mark.parametrize("is_binary", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("asks_binary", [None, True, False], ids=["unsaid", "bytes", "json"])
def test_infer(
    client: triton.InferenceServerClient, flow: Flow, is_binary: bool, asks_binary: bool | None
) -> None:
    names = ("z", "log_det", "log_prob")
    wanted = None
    if asks_binary is not None:
        wanted = [triton.InferRequestedOutput(name, binary_data=asks_binary) for name in names]
    inputs = [tensor(X, binary=is_binary)]
    result = client.infer("toy", inputs, outputs=wanted, request_id="mine")
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_version"] == "7"
    for name, values in expected(flow).items():
        got = result.as_numpy(name)
        assert got.dtype == np.float32
        close(got, values)


def test_selected_outputs_alone_are_sent(client: triton.InferenceServerClient) -> None:
    wanted = [
        triton.InferRequestedOutput("log_prob", binary_data=True),
        triton.InferRequestedOutput("log_det", binary_data=False),
    ]
    result = client.infer("toy", [tensor(X)], outputs=wanted, model_version="7")
    outputs = result.get_response()["outputs"]
    assert [output["name"] for output in outputs] == ["log_prob", "log_det"]
    assert ["data" in output for output in outputs] == [False, True]
    assert result.as_numpy("z") is None


def test_latents_go_back_to_data(client: triton.InferenceServerClient) -> None:
    z = client.infer("toy", [tensor(X)]).as_numpy("z")
    close(client.infer("toy", [tensor(z.astype(np.float64), "z")]).as_numpy("x"), X)


def test_samples(client: triton.InferenceServerClient, flow: Flow) -> None:
    parameters = {"operation": "sample", "num_samples": 300, "seed": 5, "temperature": 0.5}
    result = client.infer("toy", [], parameters=parameters)
    z = base_noise(300, 2, seed=5, temperature=0.5).astype(np.float32)
    close(result.as_numpy("x"), flow.decode(torch.from_numpy(z))[0].numpy())
    assert result.get_response()["parameters"]["seed"] == 5


def test_context(client: triton.InferenceServerClient) -> None:
    context = np.ones((3, 2), np.float32)
    with_context = client.infer("given", [tensor(X), tensor(context, "context")])
    without = client.infer("given", [tensor(X), tensor(0 * context, "context")])
    assert not np.allclose(with_context.as_numpy("z"), without.as_numpy("z"))


def test_errors_are_answered(client: triton.InferenceServerClient) -> None:
    narrow = np.ascontiguousarray(X[:, :1])
    with pytest.raises(InferenceServerException, match=r"x: expected \(\*, 2\)") as caught:
        client.infer("toy", [tensor(narrow)])
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="nobody"):
        client.infer("nobody", [tensor(X)])
    with pytest.raises(InferenceServerException, match="config"):
        client.load_model("toy", config="{}")
    with pytest.raises(InferenceServerException, match="deadline") as caught:
        client.infer("toy", [tensor(X)], timeout=1)
    assert caught.value.status() == "504"


def test_models_are_loaded_and_unloaded(client: triton.InferenceServerClient) -> None:
    client.unload_model("given")
    assert not client.is_model_ready("given")
    states = {model["name"]: model["state"] for model in client.get_model_repository_index()}
    assert states == {"given": "UNAVAILABLE", "toy": "READY"}
    client.load_model("given")
    assert client.is_model_ready("given")


def test_the_asynchronous_client_works_too(server: RunningServer, flow: Flow) -> None:
    async def exchange() -> Any:
        async with AsyncTritonClient(server.url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            return (await client.infer("toy", [tensor(X)])).as_numpy("log_prob")

    close(asyncio.run(exchange()), expected(flow)["log_prob"])


# Our own


def test_our_client(server: RunningServer, flow: Flow) -> None:
    with Client(server.url, model="toy") as client:
        assert client.is_ready()
        assert [model["name"] for model in client.models()] == ["given", "toy"]
        wanted = expected(flow)
        close(client.log_prob(X), wanted["log_prob"])
        encoded = client.encode(X)
        assert encoded.version == "7"
        close(encoded.z, wanted["z"])
        close(client.decode(encoded.z).x, X)
        whole = client.sample(700, seed=7)
        parts = list(client.stream(700, seed=7, chunk_rows=150))
        close(np.concatenate([part.x for part in parts]), whole.x)
        close(client.log_prob(whole.x), whole.log_prob)
        with pytest.raises(RequestRefused, match="shape_mismatch"):
            client.encode(X[:, :1])
    with Client(server.url, model="nobody") as client, pytest.raises(NotFound):
        client.encode(X)


def test_our_asynchronous_client(server: RunningServer, flow: Flow) -> None:
    async def exchange() -> None:
        async with AsyncClient(server.url, model="toy") as client:
            answers = await asyncio.gather(*(client.log_prob(X) for _ in range(20)))
            for answer in answers:
                close(answer, expected(flow)["log_prob"])

    asyncio.run(exchange())
