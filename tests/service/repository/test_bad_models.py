"""Models that cannot be loaded at the start: they end it, or the others are served without them."""

import asyncio
import logging
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import models
from pushforward.client.retries import pause_before_retry
from service.app import create_app
from service.contracts import ModelIndexEntry
from service.errors import ModelNotFound, NotReady
from service.launch.exits import StartupError
from service.repository import FolderRepository
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.repository.test_repository import make_flow, run

BODY = {"x": [[0.1, 0.2, 0.3]]}
SECONDS = 10

Test = Callable[[FolderRepository, Metrics], Awaitable[None]]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow") / "flow"
    models.save(make_flow(), folder)
    return folder


@pytest.fixture
def folder(flow: Path, tmp_path: Path) -> Path:
    """A repository of two models, `good` and `bad`."""
    shutil.copytree(flow, tmp_path / "models" / "good")
    spoil(Path(shutil.copytree(flow, tmp_path / "models" / "bad" / "7")))
    return tmp_path / "models"


def spoil(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"nonsense")


def repair(model: Path, flow: Path) -> None:
    shutil.copyfile(flow / "model.safetensors", model / "model.safetensors")


def started(folder: Path, test: Test, **settings: Any) -> None:
    """Run a test on a repository that has started, by default skipping bad models."""

    async def whole() -> None:
        metrics = Metrics()
        options = {"on_bad_model": "skip", "watch_models": False, "engine": "torch"} | settings
        repository = FolderRepository(Settings(model_repository=(folder,), **options), metrics)
        await repository.start()
        await test(repository, metrics)
        await repository.drain()

    run(whole())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


def test_by_default_the_start_fails(folder: Path) -> None:
    with pytest.raises(StartupError) as caught:
        started(folder, never, on_bad_model="fail")
    assert str(folder / "bad" / "7" / "model.safetensors") in str(caught.value)
    assert Settings().on_bad_model == "fail"


async def never(*_: object) -> None:
    pytest.fail("it has started")


def test_the_others_are_served_and_the_bad_one_is_told_of(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(repository: FolderRepository, metrics: Metrics) -> None:
        assert repository.is_ready
        assert [model.card.name for model in repository.models()] == ["good"]
        bad, good = repository.index()
        assert good == ModelIndexEntry("good", "1", True)
        assert (bad.name, bad.version, bad.is_ready) == ("bad", "7", False)
        assert bad.reason.startswith("models/bad/7/model.safetensors: ")
        assert str(folder.parent) not in bad.reason
        text = metrics.render().decode()
        assert 'pushforward_model_ready{model="bad"} 0.0' in text
        assert 'pushforward_model_ready{model="good"} 1.0' in text

    with caplog.at_level(logging.ERROR):
        started(folder, test)
    (line,) = [one for one in caplog.messages if "is not served" in one]
    assert line.startswith(f"bad 7 is not served: {folder / 'bad' / '7' / 'model.safetensors'}: ")


def test_every_call_for_it_is_answered_503_with_the_reason(folder: Path) -> None:
    async def test(repository: FolderRepository, metrics: Metrics) -> None:
        app = create_app(Settings(log_level="error"), repository, metrics)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            (reason,) = [one.reason for one in repository.index() if not one.is_ready]
            ready = await client.get("/health/ready")
            assert ready.status_code == 200
            unavailable = [{"name": "bad", "version": "7", "reason": reason}]
            assert ready.json() == {"ready": True, "unavailable": unavailable}
            index = (await client.post("/v2/repository/index")).json()
            assert index[0] == unavailable[0] | {"state": "UNAVAILABLE"}
            assert index[1]["state"] == "READY"
            refused = [
                await client.get("/models/bad"),
                await client.get("/v2/models/bad"),
                await client.get("/v2/models/bad/ready"),
                await client.post("/encode", json={"model": "bad", **BODY}),
                await client.post("/sample", json={"model": "bad", "num_samples": 1}),
                await client.post("/v2/models/bad/infer", json={"inputs": []}),
            ]
            for reply in refused:
                problem = reply.json()
                assert (reply.status_code, problem["code"]) == (503, "not_ready")
                assert problem["detail"] == f"model: bad 7 cannot be served: {reason}"
                # A person has to repair it: our client does not try again until then.
                assert pause_before_retry(reply, 0, 3) is None
            assert (await client.get("/models/other")).status_code == 404
            assert (await client.post("/encode", json={"model": "other", **BODY})).is_client_error
            reply = await client.post("/encode", json={"model": "good", **BODY})
            assert reply.status_code == 200
        text = metrics.render().decode()
        counted = re.findall(r"pushforward_requests_total{(.*)} (\d+)", text)
        assert {labels for labels, _ in counted if 'op="/' not in labels} == {
            *(
                f'code="503",model="bad",op="{op}",version=""'
                for op in ("encode", "sample", "infer")
            ),
            'code="404",model="",op="encode",version=""',
            'code="200",model="good",op="encode",version="1"',
        }

    started(folder, test)


def test_it_is_served_once_its_folder_is_repaired(folder: Path, flow: Path) -> None:
    async def test(repository: FolderRepository, metrics: Metrics) -> None:
        repair(folder / "bad" / "7", flow)
        await until(lambda: all(one.is_ready for one in repository.index()))
        assert repository.get("bad").card.version == "7"
        assert 'pushforward_model_ready{model="bad"} 1.0' in metrics.render().decode()

    started(folder, test, watch_models=True)


def test_it_is_forgotten_once_its_folder_is_removed(folder: Path) -> None:
    async def test(repository: FolderRepository, metrics: Metrics) -> None:
        shutil.rmtree(folder / "bad")
        await until(lambda: repository.index() == [ModelIndexEntry("good", "1", True)])
        with pytest.raises(ModelNotFound):
            repository.get("bad")
        assert 'pushforward_model_ready{model="bad"}' not in metrics.render().decode()

    started(folder, test, watch_models=True)


def test_a_refused_version_is_forgotten_once_it_is_removed(folder: Path, flow: Path) -> None:
    async def test(repository: FolderRepository, _: Metrics) -> None:
        good = repository.get("bad")
        spoil(Path(shutil.copytree(flow, folder / "bad" / "8")))
        await repository.refresh()
        assert [one.version for one in repository.index()] == ["7", "8", "1"]
        shutil.rmtree(folder / "bad" / "8")
        await repository.refresh()
        assert [one.version for one in repository.index()] == ["7", "1"]
        assert repository.get("bad") is good

    repair(folder / "bad" / "7", flow)
    started(folder, test)


def test_a_request_without_a_name_is_not_for_the_one_left_over(folder: Path, flow: Path) -> None:
    async def test(repository: FolderRepository, _: Metrics) -> None:
        with pytest.raises(ModelNotFound, match="expected a name, there are several: bad, good"):
            repository.get(None)
        # It is the only one once the other is gone, and stays so beside one that comes and is bad.
        shutil.rmtree(folder / "bad")
        await repository.refresh()
        assert repository.get(None).card.name == "good"
        spoil(Path(shutil.copytree(flow, folder / "late")))
        await repository.refresh()
        assert repository.get(None).card.name == "good"

    started(folder, test)


def test_a_default_that_is_bad_is_named_with_the_reason(folder: Path) -> None:
    async def test(repository: FolderRepository, _: Metrics) -> None:
        with pytest.raises(NotReady, match=r"bad 7 cannot be served: .*model\.safetensors"):
            repository.get(None)

    started(folder, test, default_model="bad")


def test_without_any_good_model_the_start_fails(folder: Path, flow: Path) -> None:
    spoil(folder / "good")
    with pytest.raises(StartupError, match=r"safetensors: .*\(none of 2 models can be served\)$"):
        started(folder, never)
    shutil.rmtree(folder / "good")
    with pytest.raises(StartupError, match="safetensors: ") as caught:
        started(folder, never)
    assert "none of" not in str(caught.value)


def test_a_fault_that_no_one_foresaw_is_skipped_and_logged(
    folder: Path, flow: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    repair(folder / "bad" / "7", flow)
    from service.repository import repository as module

    load = module.load_model

    async def fail(location: Any, *rest: Any, **named: Any) -> Any:
        if location.name == "bad":
            raise KeyError("no one foresaw it")
        return await load(location, *rest, **named)

    monkeypatch.setattr(module, "load_model", fail)

    async def test(repository: FolderRepository, _: Metrics) -> None:
        bad, good = repository.index()
        assert bad.reason == "unexpected error, see the log"
        assert good.is_ready

    started(folder, test)
    assert "Traceback" in caplog.text
    assert "no one foresaw it" in caplog.text
