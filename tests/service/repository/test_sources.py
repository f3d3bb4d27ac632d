"""A repository over a URI, in a process whose server is not ours: fetched, watched, told of."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from service.contracts import SourceStatus, VersionPolicy
from service.errors import ModelNotFound, ModelRefused
from service.launch.exits import StartupError
from service.remote.fetch import FetchOptions
from service.remote.store import StoreError
from service.repository import FolderRepository, zoo_folder
from service.repository.sources import SourceWatch, local_folders
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


def repository(cache: Path, metrics: Metrics, **given: Any) -> FolderRepository:
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
    metrics = Metrics()
    served = repository(tmp_path, metrics)

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
        put(memory, 4)
        said = r"expected versions that lie there \(0, 1, 2, 3, 4\), got 7"
        with pytest.raises(ModelRefused, match=said):
            await served.load("moons", VersionPolicy((7,)))
        assert served.sources()[0].is_ok, "who asks is at fault"
        assert metrics.source_failures.labels("memory://hub").value == 0
        await until(lambda: live() == ["0", "1", "2", "3", "4"])
        memory.pipe("/hub/moons/5/config.json", b"{}")
        memory.pipe("/hub/moons/5/pushforward-index.json", b"{}")
        with pytest.raises(ModelRefused, match=r"^moons/5/pushforward-index.json: format_version"):
            await served.load("moons", VersionPolicy((1, 5)))
        assert live() == ["0", "1", "2", "3", "4"]
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


LOOKS = Settings(model_repository=("memory://hub",), watch_seconds=0.01)


class Fetches:
    """Looks that fail and succeed as is told; what comes after them goes well."""

    def __init__(self, *errors: Exception | None) -> None:
        self._errors = list(errors)
        self.ages: list[float] = []

    def __call__(
        self, uri: str, options: FetchOptions, *, max_age_seconds: float = 0.0, verify: bool = False
    ) -> SourceStatus:
        self.ages.append(max_age_seconds)
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error
        return SourceStatus(uri, is_ok=True, reason="", since=1.0, succeeded=1.0)


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fetches:
    """A look that goes well, then three that fail; the cache is there."""
    found = Fetches(None, StoreError("full"), RuntimeError("no thread"), KeyError("a bug"))
    monkeypatch.setattr("service.repository.sources.fetch", found)
    monkeypatch.setattr("service.remote.cache.CacheEntry.is_filled", True)
    return found


def test_whatever_a_look_raises_the_next_one_comes(
    fetches: Fetches, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()

    async def whole() -> None:
        watch = SourceWatch(LOOKS.model_copy(update={"cache": tmp_path}), metrics, {})
        await watch.start(is_fetched=False)
        await until(lambda: len(fetches.ages) > 5)
        assert watch.statuses[0].is_ok
        watch.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(whole())
    told = [record.getMessage().partition("served on: ")[2] for record in caplog.records]
    unexpected = "unexpected error, see the log: KeyError"
    assert [text for text in told if text] == ["full", "no thread", unexpected]
    assert any(record.exc_info for record in caplog.records)
    assert metrics.source_failures.labels("memory://hub").value == 3
    assert fetches.ages[0] == 0
    assert {*fetches.ages[1:]} == {0.8 * 0.01}, "others may have looked meanwhile"


def test_a_watch_that_ends_is_told(
    fetches: Fetches,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()

    async def whole() -> None:
        watch = SourceWatch(LOOKS.model_copy(update={"cache": tmp_path}), metrics, {})
        await watch.start(is_fetched=False)
        monkeypatch.setattr(metrics, "source_success", None)
        await until(lambda: "is not looked at any more" in caplog.text)

    asyncio.run(whole())


def test_a_failure_is_told_since_it_began(
    monkeypatch: pytest.MonkeyPatch, fetches: Fetches, tmp_path: Path
) -> None:
    """Of a cache that cannot be written each look says that it begins now."""
    times = iter(range(2, 1000))

    def full(uri: str, *_: object, **__: object) -> SourceStatus:
        since = float(next(times))
        return SourceStatus(uri, is_ok=False, reason="full", since=since, succeeded=since)

    monkeypatch.setattr("service.repository.sources.fetch", full)

    async def whole() -> None:
        watch = SourceWatch(LOOKS.model_copy(update={"cache": tmp_path}), Metrics(), {})
        await watch.start(is_fetched=False)
        await until(lambda: watch.statuses[0].succeeded > 3)
        assert watch.statuses[0].since == 2
        watch.stop()

    asyncio.run(whole())


@pytest.mark.parametrize("again", ["memory://hub", "memory://hub/"])
def test_a_uri_is_named_once(again: str, tmp_path: Path) -> None:
    settings = Settings(model_repository=("memory://hub", again), cache=tmp_path)
    with pytest.raises(StartupError, match=f"^{again}: is named twice$"):
        local_folders(settings)


def test_a_model_behind_a_uri_and_in_a_folder_is_told_by_the_uri(
    memory: MemoryFileSystem, tmp_path: Path
) -> None:
    settings = Settings(
        model_repository=("memory://hub", zoo_folder() / "moons"), cache=tmp_path / "cache"
    )
    with pytest.raises(StartupError, match="is taken by memory://hub/moons/1;"):
        asyncio.run(FolderRepository(settings, Metrics()).start())


def test_a_model_of_a_uri_that_cannot_be_loaded_is_told_by_the_uri(
    memory: MemoryFileSystem, tmp_path: Path
) -> None:
    memory.pipe("/hub/moons/1/model.safetensors", b"junk")
    with pytest.raises(StartupError, match=r"^memory://hub/moons/1/model\.safetensors: not"):
        asyncio.run(repository(tmp_path, Metrics()).start())


def test_a_model_that_is_left_over_answers_for_no_other(
    memory: MemoryFileSystem, tmp_path: Path
) -> None:
    memory.pipe("/hub/rings/config.json", b"{}")
    memory.pipe("/hub/rings/pushforward-index.json", b"{}")
    put(memory, 2)
    memory.pipe("/hub/moons/2/pushforward-index.json", b"{}")
    put(memory, 1)
    memory.pipe("/hub/moons/serving.toml", b"version_policy = [1]")
    served = repository(tmp_path, Metrics(), on_bad_model="skip")

    async def whole() -> None:
        await served.start()
        assert served.get("moons").card.version == "1"
        with pytest.raises(ModelNotFound, match="there are several: moons, rings"):
            served.get(None)
        memory.rm("/hub/rings", recursive=True)
        await until(lambda: served.sources()[0].is_ok)
        assert served.get(None).card.name == "moons"
        await served.drain()

    run(whole())
