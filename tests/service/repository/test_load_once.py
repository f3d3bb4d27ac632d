"""What serving a model reads: its golden rows once, and one flow is built of its folder."""

import asyncio
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import models
from models.checkpoints import loading, tensor_file
from models.onnx.export import export_folder
from service.repository.folders import ModelLocation
from service.repository.loading import load_model
from service.settings import Settings
from service.telemetry import Metrics
from tests.cases import make_flow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain`: a model. `exported`: the same with its graphs."""
    folder = tmp_path_factory.mktemp("once")
    models.save(make_flow("realnvp"), folder / "plain")
    shutil.copytree(folder / "plain", folder / "exported")
    export_folder(folder / "exported").write(folder / "exported")
    return folder


@pytest.mark.parametrize("engine", ["torch", "folded", "onnx", "auto"])
@pytest.mark.parametrize("name", ["plain", "exported"])
def test_a_folder_is_read_once(
    name: str, engine: Any, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    safe_open, build = tensor_file.safe_open, loading.build

    def counting_open(path: Path, **options: Any) -> Any:
        calls[path.name] += 1
        return safe_open(path, **options)

    def counting_build(*arguments: Any) -> Any:
        calls["build"] += 1
        return build(*arguments)

    monkeypatch.setattr(tensor_file, "safe_open", counting_open)
    monkeypatch.setattr(loading, "build", counting_build)

    async def load() -> None:
        location = ModelLocation(name, "1", folders / name)
        loaded = await load_model(location, Settings(engine=engine), Metrics())
        await loaded.drain()

    asyncio.run(load())
    if name == "exported" and engine in ("auto", "onnx"):
        assert not calls  # by its graphs alone
        return
    # Of the weights, the header comes first: it says what the flow may cost.
    assert calls == {"golden.safetensors": 1, "model.safetensors": 2, "build": 1}


def test_the_log_says_why_graphs_do_not_serve_alone(
    folders: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(folders / "exported", tmp_path / "former")
    path = folder / "certificate.json"
    certificate = json.loads(path.read_text("utf-8"))
    del certificate["model"]
    path.write_text(json.dumps(certificate), encoding="utf-8")

    async def load() -> None:
        loaded = await load_model(ModelLocation("former", "1", folder), Settings(), Metrics())
        assert loaded.served.card.engine == "onnx"
        await loaded.drain()

    asyncio.run(load())
    (line,) = (line for line in caplog.messages if "do not serve alone" in line)
    assert line.startswith("former: ")
    assert "run pushforward export --in-place" in line
