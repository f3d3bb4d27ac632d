"""Flows that count the passes of their networks are asked for them: on every engine of a CPU."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

import models
from models.onnx.export import export_folder
from service.app import create_app
from service.repository import FolderRepository
from service.settings import Settings
from service.telemetry import Metrics
from tests.cases import make_flow

NAME = "maf_jacobi_context"
LAYERS, FEATURES = 2, 4
ROWS = [[0.1, -0.2, 0.3, 0.4], [3.0, -3.0, 3.0, -3.0]]
CONTEXT = [[0.5, -1.0], [2.0, 0.0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its graphs."""
    folder = tmp_path_factory.mktemp("counted") / NAME
    models.save(make_flow(NAME).float(), folder)
    export_folder(folder).write(folder)
    return folder


async def _asked(settings: Settings, requests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    metrics = Metrics()
    app = create_app(settings, FolderRepository(settings, metrics), metrics)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = {
                operation: await client.post(f"/{operation}", json=body)
                for operation, body in requests.items()
            }
            answers["models"] = await client.get("/models")
    assert all(answer.status_code == 200 for answer in answers.values()), answers
    return {name: answer.json() for name, answer in answers.items()}


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_answers_say_how_many_passes_each_row_took(folder: Path, engine: str) -> None:
    settings = Settings(model_repository=str(folder.parent), engine=engine, watch_models=False)
    counted = {"context": CONTEXT, "return_evaluations": True}
    requests = {
        "log_prob": {"x": ROWS, **counted},
        "decode": {"z": ROWS, **counted},
        "sample": {"num_samples": 2, "seed": 1, **counted},
        "encode": {"x": ROWS, "context": CONTEXT},
    }
    found = asyncio.run(_asked(settings, requests))
    assert found["models"]["models"][0]["engine"] == engine
    assert found["log_prob"]["evaluations"] == [LAYERS, LAYERS]
    for operation in ("decode", "sample"):
        passes = found[operation]["evaluations"]
        assert len(passes) == len(found[operation]["x"])
        assert all(2 * LAYERS <= count <= LAYERS * FEATURES for count in passes)
    assert "evaluations" not in found["encode"]
