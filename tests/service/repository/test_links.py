"""Repositories behind links, as git-sync and Kubernetes lay them: every swap is seen."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

import models
from benchmarks.process import serving
from service.errors import ServiceError
from service.repository import FolderRepository
from service.repository.watcher import FolderWatcher, find_targets
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.repository.test_repository import make_flow, run, touch_model

REVISIONS = ("1", "2", "3")
# Looking at names takes half a second; the rest is for a machine that is busy.
SEEN_SECONDS = 10
REPLIES_BETWEEN_SWAPS = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Revisions 1, 2, ... of a folder of models, in which `flow` names its revision."""
    folder = tmp_path_factory.mktemp("store")
    for number in REVISIONS:
        models.save(make_flow(int(number)), folder / number / "flow", provenance={"rev": number})
    return folder


@pytest.fixture
def top(store: Path, tmp_path: Path) -> Path:
    """A folder with the revisions in it, to remove or move them."""
    shutil.copytree(store, tmp_path / "store")
    return tmp_path


def point(link: Path, target: str) -> None:
    """Let a link lead elsewhere in one step, as `ln -sfn TARGET LINK` does."""
    beside = link.with_name(link.name + ".new")
    beside.symlink_to(target)
    beside.replace(link)


def git_sync(top: Path, revision: str) -> Path:
    point(top / "root", f"store/{revision}")
    return top / "root"


def config_map(top: Path, revision: str) -> Path:
    volume = top / "volume"
    volume.mkdir(exist_ok=True)
    point(volume / "..data", f"../store/{revision}")
    if not (volume / "flow").exists():
        (volume / "flow").symlink_to("..data/flow")
    return volume


def config_map_of_files(top: Path, revision: str) -> Path:
    """A volume mounted beside the models, a link for each of its files."""
    point(top / "..data", f"store/{revision}/flow")
    folder = top / "root" / "flow"
    if not folder.exists():
        folder.mkdir(parents=True)
        for file in (top / "store" / revision / "flow").iterdir():
            (folder / file.name).symlink_to(f"../../..data/{file.name}")
    return folder.parent


def one_model(top: Path, revision: str) -> Path:
    point(top / "flow", f"store/{revision}/flow")
    return top / "flow"


def link_above(top: Path, revision: str) -> Path:
    point(top / "current", f"store/{revision}")
    return top / "current" / "flow"


def link_to_link(top: Path, revision: str) -> Path:
    point(top / "second", f"store/{revision}")
    if not (top / "first").exists():
        point(top / "first", "second")
    return top / "first"


def moved(top: Path, revision: str) -> Path:
    root = top / "root"
    if root.exists():
        root.rename(top / f"before-{revision}")
    shutil.copytree(top / "store" / revision, top / "new")
    return (top / "new").rename(root)


def copied_anew(top: Path, revision: str) -> Path:
    root = top / "root"
    if root.exists():
        shutil.rmtree(root)
    return Path(shutil.copytree(top / "store" / revision, root))


LAYOUTS = (
    *(git_sync, config_map, config_map_of_files, one_model, link_above, link_to_link),
    *(moved, copied_anew),
)


def revision_of(repository: FolderRepository) -> str:
    try:
        return str(repository.get("flow").card.provenance["rev"])
    except ServiceError:
        return "none"


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SEEN_SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "removed"])
@pytest.mark.parametrize("lay", LAYOUTS, ids=lambda lay: lay.__name__)
def test_every_swap_is_seen(lay: Callable[[Path, str], Path], is_kept: bool, top: Path) -> None:
    async def test() -> None:
        first, *others = REVISIONS
        settings = Settings(model_repository=(lay(top, first),), engine="torch", max_batch_size=8)
        repository = FolderRepository(settings, Metrics())
        await repository.start()
        before = first
        for revision in others:
            assert revision_of(repository) == before
            lay(top, revision)
            if not is_kept:
                shutil.rmtree(top / "store" / before)
            await until(lambda wanted=revision: revision_of(repository) == wanted)
            before = revision
        assert [one.is_ready for one in repository.index()] == [True]
        await repository.drain()

    run(test())


def test_files_that_change_behind_a_swapped_link_are_seen(top: Path) -> None:
    async def test() -> None:
        settings = Settings(model_repository=(git_sync(top, "1"),), engine="torch")
        repository = FolderRepository(settings, Metrics())
        await repository.start()
        git_sync(top, "2")
        await until(lambda: revision_of(repository) == "2")
        shutil.copytree(top / "store" / "3", top / "store" / "2", dirs_exist_ok=True)
        await until(lambda: revision_of(repository) == "3")
        await repository.drain()

    run(test())


def test_a_folder_that_is_missing_for_a_while_is_waited_for(
    top: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        root = git_sync(top, "1")
        repository = FolderRepository(Settings(model_repository=(root,), engine="torch"), Metrics())
        await repository.start()
        root.unlink()
        await until(lambda: "watched by name only" in caplog.text)
        assert revision_of(repository) == "1"
        git_sync(top, "2")
        await until(lambda: revision_of(repository) == "2")
        await repository.drain()

    run(test())
    assert caplog.text.count("watched by name only") == 1


def test_without_watches_and_without_threads_names_are_looked_at(
    top: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def no_watches(*_: object, **__: object) -> AsyncIterator[None]:
        raise OSError("OS file watch limit reached.")
        yield

    def no_thread(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("service.repository.watcher.awatch", no_watches)
    monkeypatch.setattr("service.repository.watcher.run_in_dedicated_thread", no_thread)
    changes: list[float] = []

    async def on_change() -> None:
        changes.append(time.monotonic())

    async def test() -> None:
        watcher = FolderWatcher([git_sync(top, "1")], on_change)
        await watcher.start()
        for count, revision in enumerate(("2", "3"), 1):
            git_sync(top, revision)
            await until(lambda wanted=count: len(changes) == wanted)
        await watcher.stop()

    run(test())
    assert caplog.text.count("file watch limit reached") == 1


def test_where_nothing_changes_nothing_is_looked_at_anew(top: Path) -> None:
    async def fail() -> None:
        pytest.fail("nothing has changed")

    async def test() -> None:
        watcher = FolderWatcher([git_sync(top, "1"), config_map(top, "1")], fail)
        await watcher.start()
        await asyncio.sleep(1.2)  # names are looked at twice
        await watcher.stop()

    run(test())


def test_links_are_looked_for_as_deep_as_a_model_lies(tmp_path: Path) -> None:
    deep = touch_model(tmp_path / "root" / "flow" / "1")
    links = {
        tmp_path / "root" / "..data": "flow",
        tmp_path / "root" / "flow" / "2": "../gone",
        deep / "model.safetensors": "gone",
    }
    for link, target in links.items():
        link.symlink_to(target)
    found = find_targets([tmp_path / "root", tmp_path / "absent"])
    assert set(found) == {str(tmp_path / "root"), str(tmp_path / "absent"), *map(str, links)}
    assert found[str(deep / "model.safetensors")] is None
    assert found[str(tmp_path / "absent")] is None
    flow = os.stat(tmp_path / "root" / "flow")
    assert found[str(tmp_path / "root" / "..data")] == (flow.st_dev, flow.st_ino)


class Sender(threading.Thread):
    """Sends requests, one after another, and keeps what came back."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.is_over = threading.Event()
        self.replies: list[tuple[int, str]] = []
        self._url = url

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, verify=False) as client:
            while not self.is_over.is_set():
                reply = client.post("/encode", json={"model": "flow", "x": [[0.1, 0.2, 0.3]]})
                self.replies.append((reply.status_code, reply.json().get("version", reply.text)))


def test_a_server_of_two_workers_loses_no_request_in_two_swaps(top: Path) -> None:
    """With a bad model among those of the repository, which is repaired by the last swap."""
    for revision in ("1", "2"):
        bad = Path(
            shutil.copytree(top / "store" / revision / "flow", top / "store" / revision / "b")
        )
        (bad / "model.safetensors").write_bytes(b"nonsense")
    shutil.copytree(top / "store" / "3" / "flow", top / "store" / "3" / "b")
    options = ("--workers", "2", "--on-bad-model", "skip", "--engine", "torch")
    with serving(top / "log", str(git_sync(top, "1")), *options) as server:
        sender = Sender(server.url)
        sender.start()
        try:
            for revision in ("2", "3"):
                ready = httpx.get(f"{server.url}/health/ready", verify=False).json()
                (bad_one,) = ready.pop("unavailable")
                assert ready == {"ready": True, "workers_ready": 2, "workers": 2}
                assert (bad_one["name"], bad_one["version"]) == ("b", "1")
                assert "b/model.safetensors" in bad_one["reason"]
                assert str(top) not in bad_one["reason"]
                git_sync(top, revision)
                wait_until_all_serve(server.url, "flow", revision)
                count = len(sender.replies)
                while sender.is_alive() and len(sender.replies) < count + REPLIES_BETWEEN_SWAPS:
                    time.sleep(0.01)
            wait_until_all_serve(server.url, "b", "3")
            assert "unavailable" not in httpx.get(f"{server.url}/health/ready", verify=False).json()
        finally:
            sender.is_over.set()
            sender.join()
        assert set(sender.replies) == {(200, "1")}
        assert server.terminate() == 0


def wait_until_all_serve(url: str, model: str, revision: str) -> None:
    """Ask on new connections, which reach either worker, until the revision comes from all."""
    deadline, in_a_row = time.monotonic() + SEEN_SECONDS, 0
    while in_a_row < 12:
        assert time.monotonic() < deadline, (model, revision)
        reply = httpx.get(f"{url}/models/{model}", verify=False)
        seen = reply.json()["provenance"]["rev"] if reply.status_code == 200 else None
        in_a_row = in_a_row + 1 if seen == revision else 0
