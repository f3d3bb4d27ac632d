"""The application for other servers: the service's own routes, with its settings and its share."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import pytest

from pushforward.asgi import create_app
from service.engines.cpu import share_cpu
from service.settings import SettingsError

MOONS = Path(__file__).resolve().parents[2] / "models" / "zoo" / "moons"


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve as uvicorn does: within the lifespan of the application."""
    app = create_app(**settings)
    async with app.router.lifespan_context(app):  # type: ignore[attr-defined]
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A model where KServe puts it: its folder has no name of its own."""
    return Path(shutil.copytree(MOONS, tmp_path / "models"))


def test_kserve_asks_for_the_model_by_the_name_of_its_service(mounted: Path) -> None:
    """As `InferenceRESTClient` of kserve 0.20.0 does, in JSON and with tensors as bytes."""
    x = np.array([[0.5, 1.0], [0.0, -0.25]], np.float32)
    tensor: dict[str, Any] = {"name": "x", "shape": [2, 2], "datatype": "FP32"}
    wanted: dict[str, Any] = {"id": "7", "model_name": "flights", "outputs": [{"name": "log_prob"}]}
    plain = {**wanted, "inputs": [{**tensor, "data": x.ravel().tolist()}]}
    sized = {"binary_data_size": x.nbytes}
    head = json.dumps({**wanted, "inputs": [{**tensor, "parameters": sized}]}).encode()

    async def ask() -> list[httpx.Response]:
        async with serving(model_repository=[mounted], model_name="flights") as client:
            path = "/v2/models/flights/infer"
            return [
                await client.get("/v2/health/live"),
                await client.get("/v2/health/ready"),
                await client.get("/v2/models/flights/ready"),
                await client.get("/v2/models/models/ready"),
                await client.post(path, json=plain),
                await client.post(
                    path,
                    content=head + x.tobytes(),
                    headers={
                        "Content-Type": "application/octet-stream",
                        "Inference-Header-Content-Length": str(len(head)),
                    },
                ),
                await client.post("/log_prob", json={"x": x.tolist()}),
            ]

    live, ready, model, other, by_json, by_bytes, own = asyncio.run(ask())
    assert live.json() == {"live": True}
    assert ready.json() == {"ready": True}
    assert model.json() == {"name": "flights", "ready": True}
    assert (other.status_code, other.headers["content-type"]) == (404, "application/problem+json")
    for answer in (by_json, by_bytes):
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert (said["id"], said["model_name"]) == ("7", "flights")
        assert said["outputs"][0]["data"] == pytest.approx(own.json()["log_prob"], rel=1e-6)


def test_settings_come_from_arguments_then_from_variables(
    mounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSHFORWARD_MODEL_REPOSITORY", str(mounted))
    monkeypatch.setenv("PUSHFORWARD_MODEL_NAME", "variable")
    monkeypatch.setenv("PUSHFORWARD_API_KEYS", "k" * 16)

    async def names() -> tuple[int, list[str]]:
        async with serving(model_name="argument") as client:
            refused = await client.get("/models")
            served = await client.get("/models", headers={"X-API-Key": "k" * 16})
            return refused.status_code, [card["name"] for card in served.json()["models"]]

    assert asyncio.run(names()) == (401, ["argument"])
    with pytest.raises(SettingsError, match="--max-batch-size"):
        create_app(max_batch_size=0)


@pytest.mark.parametrize(
    ("machine", "cores", "granted"),
    [(16.0, 2, 2), (16.0, 3, 2), (16.0, 0.5, 1), (16.0, 16, 16), (2.0, 8, 2), (16.0, None, 16)],
)
def test_engines_have_their_share_of_the_machine(
    machine: float, cores: float | None, granted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many batches at a time as there are processors for it, and never more."""
    made = Mock()
    monkeypatch.setattr("service.app.create_app", made)
    for module in ("pushforward.asgi", "service.engines.cpu"):
        monkeypatch.setattr(f"{module}.usable_cores", lambda: machine)
    create_app(cores=cores)
    settings = made.call_args.args[0]
    share = share_cpu(settings.instances, settings.num_threads, settings.workers)
    assert (share.budget, share.threads) == (granted, 1)
