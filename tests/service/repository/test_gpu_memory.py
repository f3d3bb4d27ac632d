"""What a model took of a GPU: in its card, in GET /models and in /metrics; nothing on a CPU."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.engines.gpu_memory import GpuMemory
from service.engines.gpus import Gpu
from service.launch.exits import StartupError
from service.repository import FolderRepository
from service.repository.folders import ModelLocation
from service.repository.loading import LoadedModel, load_model
from service.repository.table import ModelTable
from service.settings import Settings
from service.telemetry import Metrics

MOONS = Path(__file__).resolve().parents[3] / "models/zoo/moons"


class Reader:
    """Reads a card of which each loading takes 30 bytes."""

    device = "cuda:0"
    card = "GPU-a"

    def __init__(self) -> None:
        self._free: Iterator[int] = iter(range(90, 0, -30))

    def read(self) -> GpuMemory:
        return GpuMemory(total=100, free=next(self._free), reserved=0, allocated=0)


async def load(metrics: Metrics, reader: Reader | None) -> LoadedModel:
    asked = []

    def reader_of(device: str) -> Reader | None:
        asked.append(device)
        return reader

    settings = Settings(model_repository=(MOONS,), device="cpu")
    loaded = await load_model(
        ModelLocation("moons", "1", MOONS), settings, metrics, reader_of=reader_of
    )
    assert asked == ["cpu"]
    return loaded


def test_a_model_is_told_with_what_it_took() -> None:
    async def test() -> None:
        metrics = Metrics()
        loaded = await load(metrics, Reader())
        assert loaded.served.card.memory == {"taken_bytes": 30, "card": "GPU-a"}
        assert loaded.served.card.describe()["memory"] == {"taken_bytes": 30, "card": "GPU-a"}
        ModelTable(metrics, 1000, 1000.0).serve(loaded)
        text = metrics.render().decode()
        assert 'pushforward_gpu_memory_bytes{card="GPU-a",device="cuda:0"} 100.0' in text
        labels = 'card="GPU-a",device="cpu",model="moons",version="1"'
        assert f"model_memory_bytes{{{labels}}} 30.0" in text
        loaded.abort("done")

    asyncio.run(test())


@pytest.mark.parametrize("memory", [{}, {"taken_bytes": 30, "card": "GPU-a"}])
def test_clients_see_it_where_there_is_a_gpu(memory: dict[str, object]) -> None:
    from dataclasses import replace

    from tests.service.fake_repository import FakeRepository

    async def test() -> None:
        repository = FakeRepository()
        (first, *_) = repository.models()
        card = replace(first.card, memory=memory)
        repository.models = lambda: [replace(first, card=card)]  # type: ignore[method-assign]
        repository.get = lambda _: replace(first, card=card)  # type: ignore[method-assign]
        app = create_app(Settings(log_level="error"), repository)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            (listed,) = (await http.get("/models")).json()["models"]
            alone = (await http.get(f"/models/{card.name}")).json()
        assert listed == alone
        assert listed.get("memory", {}) == memory
        assert ("memory" in listed) == bool(memory)
        assert listed["calibration"] is None

    asyncio.run(test())


def test_a_model_is_loaded_where_it_was_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process that sees several GPUs: each model has the device that it was given."""
    devices = []

    async def refuse(_: ModelLocation, settings: Settings, *__: object, **___: object) -> None:
        devices.append(settings.device)
        raise StartupError("seen")

    monkeypatch.setattr("service.repository.repository.load_model", refuse)
    for gpus in ((), (Gpu(0, "0", 8 * 2**30), Gpu(1, "1", 16 * 2**30))):
        repository = FolderRepository(Settings(model_repository=(MOONS,)), Metrics(), gpus)
        with pytest.raises(StartupError, match="seen"):
            asyncio.run(repository.start())
    assert devices == ["auto", "cuda:1"]
