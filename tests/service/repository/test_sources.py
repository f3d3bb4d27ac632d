"""A repository over a URI, in a process whose server is not ours: fetched, watched, told of."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.contracts import VersionPolicy
from service.errors import ModelRefused
from service.launch.exits import StartupError
from service.repository import FolderRepository, zoo_folder
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.repository.test_repository import run

SEEN_SECONDS = 20.0


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    system = fsspec.filesystem("memory")
    put(system, 1)
    yield system
    if system.exists("/hub"):
        system.rm("/hub", recursive=True)


def put(system: MemoryFileSystem, version: int) -> None:
    for path in (zoo_folder() / "moons").glob("*.*"):
        system.pipe(f"/hub/moons/{version}/{path.name}", path.read_bytes())


def repository(cache: Path, metrics: Metrics, **given: bool) -> FolderRepository:
    settings = Settings(model_repository=("memory://hub",), cache=cache, watch_seconds=0.1, **given)
    return FolderRepository(settings, metrics)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SEEN_SECONDS):
        while not holds():
            await asyncio.sleep(0.02)


def test_a_uri_is_fetched_and_watched(memory: MemoryFileSystem, tmp_path: Path) -> None:
    metrics = Metrics()
    served = repository(tmp_path, metrics)

    def failures() -> float:
        return metrics.source_failures.labels("memory://hub").value

    async def whole() -> None:
        await served.start()
        assert served.get("moons").card.version == "1"
        (source,) = served.sources()
        assert (source.uri, source.is_ok) == ("memory://hub", True)
        memory.rm("/hub", recursive=True)
        await until(lambda: not served.sources()[0].is_ok)
        failed = served.sources()[0]
        assert "no model here" in failed.reason or "cannot be listed" in failed.reason
        assert served.get("moons").card.version == "1"
        await until(lambda: failures() >= 2)
        assert served.sources()[0].since == failed.since, "it fails since then"
        put(memory, 2)
        await until(lambda: served.get("moons").card.version == "2")
        assert served.sources()[0].is_ok
        await served.drain()
        count = failures()
        memory.rm("/hub", recursive=True)
        await asyncio.sleep(0.3)
        assert failures() == count, "nobody looks any more"

    run(whole())


def test_a_load_by_name_fetches_the_versions_that_it_wants(
    memory: MemoryFileSystem, tmp_path: Path
) -> None:
    put(memory, 2)
    put(memory, 3)
    served = repository(tmp_path, Metrics())

    def live() -> list[str]:
        return [model.card.version for model in served.versions("moons")]

    async def whole() -> None:
        await served.start()
        assert live() == ["3"]
        await served.load("moons", VersionPolicy((1, 3), 1))
        assert (live(), served.get("moons").card.version) == (["1", "3"], "1")
        await served.load("moons", VersionPolicy("all"))
        assert live() == ["1", "2", "3"]
        # What is wanted by name, every look fetches.
        put(memory, 0)
        await until(lambda: live() == ["0", "1", "2", "3"])
        with pytest.raises(ModelRefused, match=r"expected versions that lie there .*, got 7"):
            await served.load("moons", VersionPolicy((7,)))
        assert live() == ["0", "1", "2", "3"]
        await served.drain()

    run(whole())


def test_without_a_store_the_cache_serves_or_nothing_does(
    memory: MemoryFileSystem, tmp_path: Path
) -> None:
    async def start(**given: bool) -> list[bool]:
        served = repository(tmp_path, Metrics(), **given)
        await served.start()
        found = [source.is_ok for source in served.sources()]
        await served.drain()
        return found

    with pytest.raises(StartupError, match="memory://hub: --offline: it is not in the cache"):
        asyncio.run(start(offline=True))
    assert asyncio.run(start()) == [True]
    memory.rm("/hub", recursive=True)
    assert asyncio.run(start()) == [False]
    assert asyncio.run(start(offline=True)) == [True]
