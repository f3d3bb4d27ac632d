"""What becomes of a change of live versions of which a part is refused."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.contracts import ModelIndexEntry, VersionPolicy
from service.errors import ModelNotFound, ModelRefused, NotReady
from service.repository import FolderRepository, repository
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.repository.test_versions import live_of, load_fake, put, say

Test = Callable[[FolderRepository, Path], Awaitable[None]]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a test on a repository of one model, `flow`, that is loaded in no time."""
    monkeypatch.setattr(repository, "load_model", load_fake)

    def start(test: Test, there: set[int], policy: Any, default: int | None = None) -> None:
        folder = tmp_path / "flow"
        folder.mkdir()
        put(folder, there, set(), policy, default)
        settings = Settings(model_repository=(tmp_path,), watch_models=False)

        async def play() -> None:
            served = FolderRepository(settings, Metrics())
            await served.start()
            await test(served, folder)
            await served.drain()

        asyncio.run(play())

    return start


def spoil(folder: Path, version: int) -> None:
    (folder / str(version) / "bad").touch()


@pytest.mark.parametrize(
    "said", ["", "version_policy = [2, 4]", "version_policy = [2, 3, 4]\ndefault_version = 2"]
)
def test_of_a_list_all_are_served_or_none(serve: Callable[..., None], said: str) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        spoil(folder, 4)
        before = [served.get(name) for name in ("flow", "flow@1", "flow@2")]
        say(folder, said)
        await served.refresh()
        assert [served.get(name) for name in ("flow", "flow@1", "flow@2")] == before
        assert live_of(served) == ("1", ["1", "2"])
        with pytest.raises(NotReady, match="flow 4 cannot be served"):
            served.get("flow@4")
        say(folder, "version_policy = [1, 2]\ndefault_version = 2")
        await served.refresh()
        assert live_of(served) == ("2", ["1", "2"])
        assert served.index() == [ModelIndexEntry("flow", version, True) for version in "12"]

    serve(test, {1, 2, 3, 4}, {1, 2}, 1)


def test_what_is_wanted_no_longer_is_not_listed_as_refused(serve: Callable[..., None]) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        for version in (2, 3):
            spoil(folder, version)
            say(folder, f"version_policy = [{version}]")
            await served.refresh()
            assert [one.version for one in served.index()] == ["1", str(version)]

    serve(test, {1, 2, 3}, {1})


def test_where_all_are_wanted_each_stands_for_itself(serve: Callable[..., None]) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        put(folder, {2, 3, 4}, {4}, "all", None)
        await served.refresh()
        assert live_of(served) == ("3", ["2", "3"])
        put(folder, {3, 4}, {4}, "all", 4)
        await served.refresh()
        assert live_of(served) == ("3", ["3"])

    serve(test, {1, 2}, "all")


def test_of_a_new_model_is_served_what_can_be(serve: Callable[..., None]) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        other = folder.parent / "other"
        other.mkdir()
        put(other, {1, 2}, {2}, {1, 2}, None)
        await served.refresh()
        assert served.get("other").card.version == "1"
        with pytest.raises(NotReady, match="other 2 cannot be served"):
            served.get("other@2")

    serve(test, {1}, None)


@pytest.mark.parametrize("is_call", [True, False], ids=["by call", "by file"])
def test_a_rollback_does_not_wait_for_a_live_version_whose_files_are_bad(
    serve: Callable[..., None], is_call: bool
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        former = served.get("flow")
        spoil(folder, 2)
        if is_call:
            await served.load("flow", VersionPolicy(None, 1))
        else:
            say(folder, "version_policy = [1, 2]\ndefault_version = 1")
            await served.refresh()
        assert live_of(served) == ("1", ["1", "2"])
        assert served.get("flow@2") is former
        assert "bad" in served.index()[1].reason

    serve(test, {1, 2}, {1, 2})


@pytest.mark.parametrize("wanted", [VersionPolicy(None, 2), VersionPolicy((2,), 2), None])
def test_a_call_is_refused_with_the_version_that_it_is_about(
    serve: Callable[..., None], wanted: VersionPolicy | None
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        before = served.get("flow@2")
        spoil(folder, 2)
        with pytest.raises(ModelRefused, match="2: bad"):
            await served.load("flow", wanted)
        assert live_of(served) == ("1", ["1", "2"])
        assert served.get("flow@2") is before

    serve(test, {1, 2}, {1, 2}, 1)


@pytest.mark.parametrize("wanted", [VersionPolicy("all"), VersionPolicy((1, 2)), None])
def test_what_was_unloaded_stays_so_where_its_load_is_refused(
    serve: Callable[..., None], wanted: VersionPolicy | None
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        await served.unload("flow")
        spoil(folder, 2)
        with pytest.raises(ModelRefused, match="2: bad"):
            await served.load("flow", wanted)
        await served.refresh()
        assert not served.versions("flow")
        assert not any(one.is_ready for one in served.index())

    serve(test, {1, 2}, {1, 2}, 1)


def test_a_call_that_asks_for_what_is_not_there_is_no_fault_of_the_model(
    serve: Callable[..., None],
) -> None:
    async def test(served: FolderRepository, _: Path) -> None:
        for wanted in (VersionPolicy((1, 9)), VersionPolicy(None, 9)):
            with pytest.raises(ModelRefused, match="got 9"):
                await served.load("flow", wanted)
            assert served.index() == [ModelIndexEntry("flow", "1", True)]

    serve(test, {1}, None)


def test_what_a_call_said_is_forgotten_with_the_model(serve: Callable[..., None]) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        await served.load("flow", VersionPolicy((1,)))
        assert live_of(served) == ("1", ["1"])
        (folder.parent / "other").mkdir()
        put(folder.parent / "other", {1}, set(), None, None)
        put(folder, set(), set(), None, None)
        await served.refresh()
        with pytest.raises(ModelNotFound):
            served.get("flow")
        put(folder, {1, 2}, set(), None, None)
        await served.refresh()
        assert live_of(served) == ("2", ["2"])

    serve(test, {1, 2}, None)
