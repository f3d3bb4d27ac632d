"""Versions that come, change and go while their model serves."""

import asyncio
import gc
import json
import shutil
import threading
import weakref
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from models.checkpoints.folder import Checkpoint, load_checkpoint
from models.flow import Flow
from service.contracts import ModelIndexEntry
from service.engines.torch import TorchEngine
from service.errors import ModelNotFound, ModelRefused, NotReady, TooLarge
from service.launch.exits import StartupError
from service.repository import FolderRepository
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.repository.test_repository import later, make_flow, run

X = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)

Test = Callable[[FolderRepository, Path], Awaitable[None]]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders 1, 2 and 3, each another flow."""
    folder = tmp_path_factory.mktemp("versions")
    for version in (1, 2, 3):
        models.save(make_flow(version), folder / str(version))
    return folder


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def repository(versions: Path, tmp_path: Path, metrics: Metrics) -> Callable[..., None]:
    """Run a test on a repository of one model, `flow`, whose version 1 is served."""

    def start(test: Test, **settings: Any) -> None:
        shutil.copytree(versions / "1", tmp_path / "flow" / "1")
        options = {"watch_models": False, "max_batch_size": 8, "engine": "torch"} | settings

        async def whole() -> None:
            chosen = Settings(model_repository=(tmp_path,), **options)
            served = FolderRepository(chosen, metrics)
            await served.start()
            await test(served, tmp_path / "flow")
            await served.drain()

        run(whole())

    return start


@cache
def expected(folder: Path) -> Any:
    flow: Flow = models.load(folder)
    return flow.encode(torch.from_numpy(X.copy()))[0].numpy()


async def encode(repository: FolderRepository, name: str = "flow") -> tuple[str, Any]:
    served = repository.get(name)
    answer = await served.encode.submit(X.copy(), None, later())
    return served.card.version, answer.value


def test_a_new_version_takes_over(repository: Callable[..., None], versions: Path) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder / "2")
        assert (await encode(served))[0] == "1"
        await served.load("flow")
        version, z = await encode(served)
        assert version == "2"
        np.testing.assert_allclose(z, expected(versions / "2"), rtol=1e-5, atol=1e-6)
        assert served.index() == [ModelIndexEntry("flow", "2", True)]

    repository(test)


def test_what_was_accepted_is_answered_by_the_version_that_took_it(
    repository: Callable[..., None], versions: Path
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder / "2")
        tasks = [asyncio.create_task(encode(served)) for _ in range(200)]
        await asyncio.sleep(0)
        await served.load("flow")
        tasks += [asyncio.create_task(encode(served)) for _ in range(50)]
        answers = await asyncio.gather(*tasks)
        assert [version for version, _ in answers] == ["1"] * 200 + ["2"] * 50
        for version, z in answers:
            np.testing.assert_allclose(z, expected(versions / version), rtol=1e-5, atol=1e-6)

    repository(test)


def test_an_old_version_leaves_no_thread_and_no_memory(
    repository: Callable[..., None], versions: Path
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        before = set(threading.enumerate())
        flow = served.get("flow")
        former = [weakref.ref(batcher) for batcher in (flow.encode, flow.decode)]
        del flow
        workers = [thread for thread in before if thread.name.startswith("flow.")]
        assert len(workers) == 2
        shutil.copytree(versions / "2", folder / "2")
        await served.load("flow")
        await ended(workers)
        # The pool of the loop may have grown too: its threads are nobody's.
        names = [thread.name for thread in threading.enumerate() if thread not in before]
        names = [name for name in names if not name.startswith("asyncio_")]
        assert sorted(names) == ["flow.decode", "flow.encode"]
        before.clear()
        workers.clear()
        gc.collect()
        assert [reference() for reference in former] == [None, None]

    repository(test)


async def ended(threads: list[threading.Thread]) -> None:
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.01)


def _truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])


def _corrupt(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"nonsense")


def _remove_golden_rows(folder: Path) -> None:
    (folder / "golden.safetensors").unlink()


def _change_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name] += 0.5
    save_file(weights, folder / "model.safetensors")


def _change_the_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["config"]["num_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))


def _break_the_settings(folder: Path) -> None:
    (folder / "serving.toml").write_text('max_batch_size = "many"')


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        pytest.param(_truncate, "model.safetensors", id="truncated"),
        pytest.param(_corrupt, "model.safetensors", id="corrupt"),
        pytest.param(_remove_golden_rows, "golden.safetensors", id="no-golden-rows"),
        pytest.param(_change_a_weight, "golden rows", id="golden-mismatch"),
        pytest.param(_change_the_architecture, "", id="other-architecture"),
        pytest.param(_break_the_settings, "serving.toml", id="bad-settings"),
    ],
)
def test_a_bad_version_never_displaces_a_good_one(
    repository: Callable[..., None],
    versions: Path,
    damage: Callable[[Path], None],
    named: str,
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder / "2")
        damage(folder / "2")
        threads = _threads_of_batchers()
        with pytest.raises(ModelRefused) as caught:
            await served.load("flow")
        assert caught.value.status == 422
        assert named in caught.value.detail
        assert str(folder.parent) not in caught.value.detail
        await served.refresh()
        assert (await encode(served))[0] == "1"
        good, bad = served.index()
        assert (good, bad.version, bad.is_ready) == (ModelIndexEntry("flow", "1", True), "2", False)
        assert bad.reason == caught.value.detail
        assert _threads_of_batchers() <= threads + 1  # one more instance may have started
        shutil.copytree(versions / "3", folder / "3")
        await served.refresh()
        assert served.index() == [ModelIndexEntry("flow", "3", True)]

    repository(test)


def _threads_of_batchers() -> int:
    """Those that load end a moment after they have told what came of it."""
    return sum(thread.name != "load" for thread in threading.enumerate())


def test_a_load_that_never_ends_is_given_up_and_holds_up_no_other(
    repository: Callable[..., None], versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, ended, entered = load_checkpoint, threading.Event(), threading.Event()

    def stuck(folder: Path, **options: Any) -> Checkpoint:
        if folder.parent.name == "slow":
            entered.set()
            ended.wait(30)
        return load(folder, **options)

    monkeypatch.setattr("models.checkpoints.loading.load_checkpoint", stuck)

    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder.parent / "slow" / "1")
        first = asyncio.create_task(served.refresh())
        while not entered.is_set():
            await asyncio.sleep(0.01)
        # Others come and change meanwhile, by the watch and by name.
        shutil.copytree(versions / "3", folder.parent / "other" / "1")
        shutil.copytree(versions / "2", folder / "2")
        await served.load("other")
        second = asyncio.create_task(served.refresh())
        while served.get("flow").card.version != "2":
            await asyncio.sleep(0.01)
        assert not first.done()
        await asyncio.gather(first, second)
        (refused,) = (one for one in served.index() if not one.is_ready)
        assert (refused.name, refused.version) == ("slow", "1")
        assert "not loaded within 1 s (--load-timeout-seconds)" in refused.reason
        ended.set()
        await served.load("slow")
        assert served.get("slow").card.version == "1"

    repository(test, load_timeout_seconds=1)


@pytest.mark.parametrize(
    ("slow", "long", "sizes"), [(0.0, 0.0, {4}), (1e9, 0.0, {1, 4}), (1e9, 1e9, {1, 4, 8})]
)
def test_a_slow_engine_is_warmed_up_by_half_a_batch(
    slow: float,
    long: float,
    sizes: set[int],
    repository: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = TorchEngine.decode
    seen: list[int] = []

    def counted(self: TorchEngine, z: Any, context: Any) -> Any:
        seen.append(len(z))
        return run(self, z, context)

    async def test(served: FolderRepository, folder: Path) -> None:
        monkeypatch.setattr("service.repository.loading.SLOW_BATCH_SECONDS", slow)
        monkeypatch.setattr("service.repository.loading.LONG_BATCH_SECONDS", long)
        monkeypatch.setattr("service.engines.torch.TorchEngine.decode", counted)
        await served.load("flow")
        assert set(seen) == sizes

    repository(test, max_batch_size=8)


def test_an_engine_that_fails_its_warm_up_is_refused(
    repository: Callable[..., None], versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        threads = set(threading.enumerate())
        monkeypatch.setattr("service.engines.torch.TorchEngine.encode", _fail)
        with pytest.raises(ModelRefused, match="warm-up"):
            await served.load("flow")
        monkeypatch.undo()
        assert (await encode(served))[0] == "1"
        for thread in set(threading.enumerate()) - threads:
            if thread.name.startswith("flow."):
                thread.join(10)
                assert not thread.is_alive()

    repository(test)


def _fail(*_: object) -> None:
    raise RuntimeError("as the test wants")


def test_files_that_change_in_place_are_loaded_anew_and_others_are_not(
    repository: Callable[..., None], versions: Path
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        before = served.get("flow")
        await served.refresh()
        assert served.get("flow") is before
        shutil.copytree(versions / "3", folder / "1", dirs_exist_ok=True)
        await served.refresh()
        version, z = await encode(served)
        assert version == "1"
        np.testing.assert_allclose(z, expected(versions / "3"), rtol=1e-5, atol=1e-6)

    repository(test)


def test_models_come_and_go_with_their_folders(
    repository: Callable[..., None], versions: Path, metrics: Metrics
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder.parent / "other")
        await served.refresh()
        assert [model.card.name for model in served.models()] == ["flow", "other"]
        shutil.rmtree(folder.parent / "other")
        queue = served.get("other").encode
        workers = [one for one in threading.enumerate() if one.name.startswith("other.")]
        assert len(workers) == 2
        await served.refresh()
        with pytest.raises(ModelNotFound):
            served.get("other")
        assert 'pushforward_model_ready{model="other"}' not in metrics.render().decode()
        await ended(workers)
        with pytest.raises(NotReady):
            await queue.submit(X.copy(), None, later())

    repository(test)


def test_what_was_unloaded_by_name_comes_back_by_name_only(
    repository: Callable[..., None], versions: Path
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder.parent / "other")
        await served.refresh()
        await served.unload("other")
        assert ModelIndexEntry("other", "1", False, "unloaded") in served.index()
        await served.refresh()
        with pytest.raises(ModelNotFound):
            served.get("other")
        with pytest.raises(ModelNotFound):
            await served.unload("other")
        await served.load("other")
        assert (await encode(served, "other"))[0] == "1"
        assert served.is_ready

    repository(test)


@pytest.mark.parametrize("name", ["nobody", "../flow", "flow/1", "", "flow\0"])
def test_only_names_that_were_found_can_be_loaded(
    repository: Callable[..., None], name: str
) -> None:
    async def test(served: FolderRepository, _: Path) -> None:
        with pytest.raises(ModelNotFound):
            await served.load(name)

    repository(test)


def test_gauges_follow_the_version_that_serves(
    repository: Callable[..., None], versions: Path, metrics: Metrics
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder / "2")
        await served.load("flow")
        text = metrics.render().decode()
        assert text.count("pushforward_model_info{") == 1
        assert 'version="2"' in text
        await served.unload("flow")
        text = metrics.render().decode()
        assert "pushforward_model_info{" not in text
        assert 'pushforward_model_ready{model="flow"} 0.0' in text
        await served.load("flow")
        assert 'pushforward_model_ready{model="flow"} 1.0' in metrics.render().decode()

    repository(test)


def test_a_folder_that_changes_is_noticed(repository: Callable[..., None], versions: Path) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder / "2")
        while (await encode(served))[0] != "2":
            await asyncio.sleep(0.02)
        _corrupt(shutil.copytree(versions / "3", folder / "3"))
        while len(served.index()) < 2:
            await asyncio.sleep(0.02)
        assert (await encode(served))[0] == "2"

    repository(test, watch_models=True)


def test_a_model_loaded_while_the_service_ends_is_dropped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Late:
        aborted: str | None = None

        def abort(self, detail: str) -> None:
            self.aborted = detail

    late = Late()
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "config.json").write_text("{}")
    served = FolderRepository(Settings(model_repository=(tmp_path,)), Metrics())

    async def load_late(*_: object, **__: object) -> Late:
        await served.drain()
        return late

    monkeypatch.setattr("service.repository.repository.load_model", load_late)

    async def test() -> None:
        with pytest.raises(NotReady):
            await served.load("toy")

    run(test())
    assert late.aborted == "the service is shutting down"
    assert served.models() == []


# serving.toml


def test_a_model_can_be_served_in_its_own_way(
    repository: Callable[..., None], versions: Path
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "1", folder.parent / "own")
        (folder.parent / "own" / "serving.toml").write_text(
            'dtype = "float64"\nbatching = "invariant"\nmax_queue_rows = 3\ndevice = "cpu"\n'
        )
        await served.refresh()
        card = served.get("own").card
        assert (card.dtype, card.accuracy["batching"]) == ("float64", "invariant")
        assert served.get("flow").card.dtype == "float32"
        assert served.get("flow").card.accuracy["batching"] == "fast"
        four = np.zeros((4, *card.event_shape))
        with pytest.raises(TooLarge, match="at most 3 rows"):
            await served.get("own").encode.submit(four, None, later())

    repository(test)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("max_batch_size = 0", "max_batch_size"),
        ("max_batch_size = true", "max_batch_size"),
        ("max_batch_size = 1.0", "max_batch_size"),
        ('engine = "pickle"', "engine"),
        ('device = "tpu"', "device"),
        ('device = "cuda:99"', "device"),
        ('dtype = "float16"', "dtype"),
        ("max_batch_sise = 1", "max_batch_sise"),
        ("port = 1", "port"),
        ("max_batch_size = ", "cannot be read"),
        ("\udcff", "cannot be read"),
        ("#" * 70_000, "at most"),
    ],
)
def test_bad_settings_of_a_model_are_named_with_their_file(
    versions: Path, tmp_path: Path, text: str, named: str
) -> None:
    shutil.copytree(versions / "1", tmp_path / "flow")
    (tmp_path / "flow" / "serving.toml").write_text(text, errors="surrogateescape")

    async def test() -> None:
        repository = FolderRepository(Settings(model_repository=(tmp_path,)), Metrics())
        with pytest.raises(StartupError, match=named) as caught:
            await repository.start()
        assert "serving.toml" in str(caught.value)
        assert "\n" not in str(caught.value)

    run(test())
