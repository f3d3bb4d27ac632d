"""Devices that fail while a model is loaded: one line says so; no service on a dead one."""

import asyncio
import logging
import shutil
from pathlib import Path

import pytest
import torch

import models
from models.checkpoints.errors import CheckpointError
from models.checkpoints.facts import facts_of
from service.contracts import Array, EngineOutput
from service.engines.probe import ProbeTable
from service.engines.registry import ENGINES, EngineSpec
from service.engines.selection import EngineConfig, EngineSelection
from service.engines.tf32 import tf32_facts
from service.engines.torch import TorchEngine
from service.launch.exits import StartupError
from service.repository import FolderRepository
from service.repository.folders import ModelLocation
from service.repository.loading import load_model, make_card
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.batcher.batching import run


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    for name in ("a", "b"):
        models.save(models.build("realnvp", {"event_shape": [2]}), folder / name)
    return folder


def dead() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> ProbeTable:
    """A dead device, which `auto` finds."""
    table = ProbeTable(lambda _: dead)
    monkeypatch.setattr("service.repository.engine_loading.PROBES", table)
    monkeypatch.setattr(
        "service.repository.overrides.resolve_device",
        lambda device: "cpu" if device == "cpu" else "cuda:0",
    )
    return table


@pytest.mark.parametrize("on_bad_model", ["fail", "skip"])
def test_no_service_starts_on_a_lost_device(
    on_bad_model: str,
    library: Path,
    tmp_path: Path,
    probes: ProbeTable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = shutil.copytree(library, tmp_path / "library")
    # One that could be served without the device.
    (folder / "b" / "serving.toml").write_text('device = "cpu"\nengine = "torch"\n')

    async def test() -> None:
        settings = Settings(model_repository=str(folder), on_bad_model=on_bad_model)
        repository = FolderRepository(settings, Metrics(), probes=probes)
        with pytest.raises(StartupError, match="cuda:0 is lost: CUDA error: an illegal") as caught:
            await repository.start()
        assert "\n" not in str(caught.value)
        assert not repository.is_ready
        assert not repository.is_alive

    run(test())
    assert "Traceback" not in caplog.text


def test_a_service_ends_whose_device_is_lost(
    library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        probes = ProbeTable(lambda _: dead)
        repository = FolderRepository(
            Settings(model_repository=str(library), engine="torch"), Metrics(), probes=probes
        )
        repository.watch_devices()  # models are loading
        await repository.start()
        repository.watch_devices()
        assert repository.is_ready
        probe = probes.of("cuda:0")
        assert probe is not None
        await asyncio.to_thread(probe.ask)
        repository.watch_devices()
        assert not repository.is_ready
        assert not repository.is_alive
        await repository.drain()
        assert repository.is_alive  # what it has accepted is finished

    run(test())
    assert "cuda:0 is lost: CUDA error: an illegal memory access" in caplog.text


def test_tf32_is_off_before_a_model_is_read(
    library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[dict[str, object]] = []

    def read(*_: object, **__: object) -> None:
        found.append(tf32_facts(environ={}))
        raise CheckpointError("read no further")

    async def test() -> None:
        repository = FolderRepository(Settings(model_repository=str(library / "a")), Metrics())
        with pytest.raises(StartupError, match="read no further"):
            await repository.start()

    monkeypatch.setattr(
        "service.repository.engine_loading.PROBES", ProbeTable(lambda _: lambda: None)
    )
    monkeypatch.setattr("service.repository.overrides.resolve_device", lambda _: "cuda:0")
    monkeypatch.setattr("models.checkpoints.loading.load_checkpoint", read)
    before = torch.backends.cudnn.allow_tf32
    try:
        with caplog.at_level(logging.INFO):
            run(test())
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert before
    assert found == [{"matmul": False, "cudnn": False, "overrides": {}}]
    assert "a: float32 on cuda:0 without TF32" in caplog.text


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_the_card_of_a_model_on_a_gpu_shows_tf32(device: str) -> None:
    flow = models.build("realnvp", {"event_shape": [2]}).eval()
    engine = TorchEngine(flow)
    engine.__class__ = type("Elsewhere", (TorchEngine,), {"device": device})
    location = ModelLocation("m", "1", Path("m"))
    card = make_card(location, facts_of(flow), EngineSelection(engine), "fast")
    shown = card.describe()["accuracy"]
    assert ("tf32" in shown) is (device != "cpu")
    if device != "cpu":
        assert set(shown["tf32"]) == {"matmul", "cudnn", "overrides"}


class Lacking(EngineSpec):
    """A line of the table whose engine finds no memory."""

    def load(self) -> object:
        def fail(_: EngineConfig) -> EngineSelection:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee ...")

        return fail


def test_a_model_that_finds_no_memory_is_refused_in_one_line(
    library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        settings = Settings(model_repository=str(library))
        with pytest.raises(StartupError) as caught:
            await FolderRepository(settings, Metrics()).start()
        assert str(caught.value) in [
            f"{library / name}: cpu has too little memory for it: CUDA out of memory. "
            "Tried to allocate 2 GiB."
            for name in ("a", "b")
        ]

    monkeypatch.setitem(ENGINES, "torch", Lacking("", ""))
    with caplog.at_level(logging.INFO):
        run(test())
    assert "Traceback" not in caplog.text


def test_auto_logs_why_it_is_the_cpu(
    library: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        settings = Settings(model_repository=str(library / "a"), engine="torch")
        repository = FolderRepository(settings, Metrics())
        await repository.start()
        await repository.drain()

    monkeypatch.setattr("service.engines.device.has_gpu_driver", lambda: False)
    with caplog.at_level(logging.INFO):
        run(test())
    assert "--device auto is cpu: no GPU driver is installed" in caplog.text


class InSizes(EngineSpec):
    """A line of the table whose engine computes batches of a few sizes alone."""

    def load(self) -> object:
        return lambda config: EngineSelection(FourRows(config.flow), batch_sizes=(2, 4))


class FourRows(TorchEngine):
    """Has memory for four rows."""

    def encode(self, x: Array, context: Array | None) -> EngineOutput:
        assert len(x) == 4, f"expected batches of 4 rows, got {len(x)}"
        return super().encode(x, context)


def test_batches_of_one_size_are_no_larger_than_the_device_has_memory_for(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        settings = Settings(engine="torch", batching="invariant", max_batch_size=8)
        location = ModelLocation("a", "1", library / "a")
        loaded = await load_model(location, settings, Metrics())
        await loaded.drain()
        assert loaded.served.card.accuracy["is_bitwise_reproducible"]

    monkeypatch.setitem(ENGINES, "torch", InSizes("", ""))
    run(test())
