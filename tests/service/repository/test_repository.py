"""From folders to served models: what is found, what is refused, what is served."""

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from models.checkpoints.facts import facts_of
from models.checkpoints.folder import load_checkpoint
from models.checkpoints.promise import LOG_PROB_ERRORS
from models.flow import Flow
from models.onnx.export import export_folder
from service.contracts import Repository
from service.engines.cpu import share_cpu
from service.engines.selection import EngineConfig
from service.engines.torch import make_engine
from service.errors import ModelNotFound, NotReady
from service.launch.exits import StartupError
from service.repository import FolderRepository, ModelLocation, find_models, zoo_folder
from service.repository.batch_policy import make_policy
from service.repository.engine_loading import needs_torch
from service.repository.folders import stamp
from service.repository.loading import make_card
from service.repository.overrides import ModelOverrides
from service.settings import Settings
from service.telemetry import Metrics


def touch_model(folder: Path) -> Path:
    """What looks like a model to whoever does not read it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_file_that_took_the_place_of_its_like_is_another_model(tmp_path: Path) -> None:
    """Copied with their times, files of one size differ in nothing but their inode."""
    location = ModelLocation("m", "1", touch_model(tmp_path / "m"))
    path = location.folder / "config.json"
    before = path.stat()
    seen = stamp(location)
    assert stamp(location) == seen
    other = tmp_path / "other"
    other.write_text("[]")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)
    assert stamp(location) != seen


def make_flow(seed: int = 0, **config: Any) -> Flow:
    torch.manual_seed(seed)
    flow = models.build("realnvp", {"event_shape": [3], "num_layers": 2} | config)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return flow.eval()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two models: plain, and conditional in version 4 of 2 and 4."""
    folder = tmp_path_factory.mktemp("library")
    models.save(make_flow(), folder / "plain", provenance={"data": "none"})
    for version in ("2", "4"):
        models.save(make_flow(int(version), context_features=2), folder / "given" / version)
    return folder


def serving(*folders: Path, **settings: Any) -> tuple[FolderRepository, Metrics]:
    metrics = Metrics()
    chosen = Settings(model_repository=folders, **{"engine": "torch"} | settings)
    return FolderRepository(chosen, metrics), metrics


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test

    asyncio.run(bounded())


def later() -> float:
    return time.monotonic() + 60


# Finding.


def test_a_folder_with_config_is_one_model(tmp_path: Path) -> None:
    folder = touch_model(tmp_path / "moons")
    assert find_models([folder]) == [ModelLocation("moons", "1", folder)]


def test_the_highest_version_of_a_model_is_found(tmp_path: Path) -> None:
    for version in ("1", "9", "10", "notes"):
        touch_model(tmp_path / "moons" / version)
    expected = [ModelLocation("moons", "10", tmp_path / "moons" / "10")]
    assert find_models([tmp_path / "moons"]) == expected
    assert find_models([tmp_path]) == expected


def test_a_folder_of_models_may_hold_other_things(tmp_path: Path) -> None:
    touch_model(tmp_path / "b")
    touch_model(tmp_path / "a" / "3")
    touch_model(tmp_path / ".hidden")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "README.md").write_text("hello")
    assert [(location.name, location.version) for location in find_models([tmp_path])] == [
        ("a", "3"),
        ("b", "1"),
    ]


def test_several_folders_are_joined(tmp_path: Path) -> None:
    one, more = touch_model(tmp_path / "one"), tmp_path / "more"
    touch_model(more / "two")
    assert [location.name for location in find_models([one, more])] == ["one", "two"]


def test_two_models_of_one_name_are_refused_naming_both(tmp_path: Path) -> None:
    first, second = touch_model(tmp_path / "a" / "moons"), touch_model(tmp_path / "b" / "moons")
    with pytest.raises(StartupError) as caught:
        find_models([first, second])
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_model_that_is_mounted_somewhere_has_the_name_it_is_given(tmp_path: Path) -> None:
    mounted = touch_model(tmp_path / "models")
    assert find_models([mounted], "flights") == [ModelLocation("flights", "1", mounted)]
    versions = tmp_path / "versions"
    touch_model(versions / "3")
    assert find_models([versions], "flights") == [ModelLocation("flights", "3", versions / "3")]
    with pytest.raises(StartupError, match="'flights' is taken by"):
        find_models([mounted, versions], "flights")
    with pytest.raises(StartupError, match="'7' cannot be a model's name"):
        find_models([mounted], "7")


def test_models_in_a_folder_keep_their_names(tmp_path: Path) -> None:
    touch_model(tmp_path / "a")
    touch_model(tmp_path / "b" / "2")
    assert [location.name for location in find_models([tmp_path], "flights")] == ["a", "b"]


@pytest.mark.parametrize("name", ["a b", "a;b", "-a", "_a", "ünicode", "x" * 129, "a\\b"])
def test_a_name_that_is_not_safe_is_refused(tmp_path: Path, name: str) -> None:
    touch_model(tmp_path / name)
    with pytest.raises(StartupError, match="cannot be a model's name"):
        find_models([tmp_path])


def test_a_model_cannot_be_called_by_a_number(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="not a number alone"):
        find_models([touch_model(tmp_path / "7")])


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_models_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StartupError, match=name):
        find_models([tmp_path / name])


def test_the_zoo_is_found_in_the_package() -> None:
    assert zoo_folder() == Path(models.__file__).parent / "zoo"


# Serving.


def test_a_served_model_gives_the_flows_numbers(library: Path) -> None:
    async def test() -> None:
        repository: Repository = (served_by := serving(library))[0]
        await repository.start()
        assert repository.is_ready
        assert [model.card.name for model in repository.models()] == ["given", "plain"]
        plain = repository.get("plain")
        flow, x = make_flow(), torch.randn(5, 3)
        with torch.no_grad():
            z, log_det = flow.encode(x)
        answer = await plain.encode.submit(x.numpy(), None, later())
        np.testing.assert_allclose(answer.value, z.numpy(), atol=1e-6)
        np.testing.assert_allclose(answer.log_det, log_det.numpy(), atol=1e-6)
        back = await plain.decode.submit(answer.value, None, later())
        np.testing.assert_allclose(back.value, x.numpy(), atol=1e-5)
        metrics = served_by[1].registry
        assert rows_counted(metrics) == 5  # the warm-up is not counted
        assert metrics.get_sample_value("pushforward_model_ready", {"model": "plain"}) == 1
        await repository.drain()

    run(test())


def rows_counted(registry: Any) -> float | None:
    value: float | None = registry.get_sample_value(
        "pushforward_rows_total", {"model": "plain", "version": "1", "op": "encode"}
    )
    return value


def test_a_card_says_what_the_checkpoint_says(library: Path) -> None:
    async def test() -> None:
        repository, _ = serving(library)
        await repository.start()
        card = repository.get("plain").card
        assert (card.version, card.family, card.event_shape) == ("1", "realnvp", (3,))
        assert (card.engine, card.device, card.dtype) == ("torch", "cpu", "float32")
        assert card.num_parameters == sum(p.numel() for p in make_flow().parameters())
        assert card.describe()["cost"] == {"encode": "1", "decode": "1"}
        assert card.provenance == {"data": "none"}
        assert card.accuracy["batching"] == "fast"
        assert card.accuracy["log_prob_max_abs_error"] < 1e-4
        json.dumps(card.describe())
        given = repository.get("given").card
        assert (given.version, given.context_shape) == ("4", (2,))
        await repository.drain()

    run(test())


def test_a_model_left_unnamed_is_the_default_or_the_only_one(library: Path) -> None:
    async def test() -> None:
        several, _ = serving(library)
        chosen, _ = serving(library, default_model="plain")
        alone, _ = serving(library / "plain")
        for repository in (several, chosen, alone):
            await repository.start()
        with pytest.raises(ModelNotFound, match="given, plain"):
            several.get(None)
        assert chosen.get(None).card.name == "plain"
        assert alone.get(None).card.name == "plain"
        for repository in (several, chosen, alone):
            await repository.drain()

    run(test())


@pytest.mark.parametrize(
    "name", ["other", "", "../plain", "plain/", "PLAIN", "plain\0", "pl\u0430in", "x" * 10_000]
)
def test_an_unknown_name_touches_no_file(library: Path, name: str) -> None:
    async def test() -> None:
        repository, _ = serving(library / "plain")
        await repository.start()
        with pytest.raises(ModelNotFound) as caught:
            repository.get(name)
        assert len(caught.value.detail) < 300
        await repository.drain()

    run(test())


def test_before_the_start_and_after_the_end_nothing_is_served(library: Path) -> None:
    async def test() -> None:
        repository, metrics = serving(library / "plain")
        assert not repository.is_ready
        with pytest.raises(NotReady):
            repository.get("plain")
        await repository.start()
        served = repository.get("plain")
        await repository.drain()
        assert not repository.is_ready
        assert repository.is_alive
        with pytest.raises(NotReady):
            repository.get("plain")
        with pytest.raises(NotReady):
            await served.encode.submit(np.zeros((1, 3), np.float32), None, later())
        ready = metrics.registry.get_sample_value("pushforward_model_ready", {"model": "plain"})
        assert ready == 0

    run(test())


def test_starting_twice_loads_once(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        repository, _ = serving(library / "plain")
        await repository.start()
        served = repository.get("plain")
        monkeypatch.delattr("service.repository.repository.load_model")
        await repository.start()
        assert repository.get("plain") is served
        await repository.drain()

    run(test())


def test_one_bad_model_keeps_the_service_from_starting(library: Path, tmp_path: Path) -> None:
    shutil.copytree(library / "plain", tmp_path / "good")
    shutil.copytree(library / "plain", tmp_path / "ugly")
    (tmp_path / "ugly" / "model.safetensors").write_bytes(b"nonsense")

    async def test() -> None:
        repository, _ = serving(tmp_path)
        with pytest.raises(StartupError) as caught:
            await repository.start()
        assert str(tmp_path / "ugly" / "model.safetensors") in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not repository.is_ready
        await repository.drain()

    run(test())


def test_a_machine_without_a_further_thread_is_reported(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        repository, _ = serving(library / "plain")
        reason = "can't start new thread"

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError(reason)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StartupError, match=r"plain: .*no further thread.*ulimit"):
            await repository.start()
        reason = "another fault"
        with pytest.raises(RuntimeError, match=reason):
            await repository.start()

    run(test())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"default_model": "plane"}, "--default-model"),
        ({"device": "cuda:99"}, "--device"),
    ],
    ids=["default-model", "device"],
)
def test_a_setting_that_does_not_fit_is_named(
    library: Path, settings: dict[str, str], named: str
) -> None:
    async def test() -> None:
        repository, _ = serving(library, **settings)
        with pytest.raises(StartupError, match=named):
            await repository.start()

    run(test())


@pytest.mark.parametrize("family", ["ffjord", "realnvp"])
def test_bits_are_claimed_only_where_they_hold(family: str, tmp_path: Path) -> None:
    """In torch, rows that are solved leave the batch: matrix sizes depend on neighbours."""
    flow = models.build(family, {"event_shape": [2]}).eval()
    models.save(flow, tmp_path / "m")
    flow.accuracy = dict.fromkeys(LOG_PROB_ERRORS, 1e-4) | {LOG_PROB_ERRORS[1]: 2e-3}
    selection = make_engine(EngineConfig(load_checkpoint(tmp_path / "m"), 1, 8))
    card = make_card(ModelLocation("m", "1", Path("m")), facts_of(flow), selection, "invariant")
    assert card.accuracy["is_bitwise_reproducible"] is (family == "realnvp")
    warning = card.accuracy.get("warning", "")
    assert ("2.0e-03" in warning) is (family == "ffjord")
    elsewhere = replace(load_checkpoint(tmp_path / "m"), flow=flow.to("meta"))
    assert not make_engine(EngineConfig(elsewhere, 1, 8)).is_neighbour_invariant
    certain = replace(selection, is_batch_invariant=True)
    card = make_card(ModelLocation("m", "1", Path("m")), facts_of(flow), certain, "fast")
    assert card.accuracy["is_bitwise_reproducible"] is True


@pytest.mark.parametrize(
    ("engine", "device", "has_graphs", "wanted"),
    [
        ("auto", "cpu", True, False),
        ("onnx", "cpu", True, False),
        ("auto", "cpu", False, True),
        ("torch", "cpu", True, True),
        ("auto", "cuda:0", True, True),
    ],
)
def test_it_is_known_ahead_which_models_need_torch(
    engine: str, device: str, has_graphs: bool, wanted: bool, tmp_path: Path
) -> None:
    models.save(models.build("realnvp", {"event_shape": [2]}), tmp_path)
    if has_graphs:
        export_folder(tmp_path).write(tmp_path)
    overrides = ModelOverrides(Settings(engine=engine), device, None)
    assert needs_torch(tmp_path, overrides) is wanted


def test_invariant_batching_gives_a_row_the_same_bits_beside_any_others(library: Path) -> None:
    async def test() -> None:
        repository, _ = serving(library / "plain", batching="invariant")
        await repository.start()
        served = repository.get("plain")
        assert served.card.accuracy["is_bitwise_reproducible"]
        x = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
        alone = await served.encode.submit(x[:1], None, later())
        for count in (2, 7, 32, 100):
            for row in (0, count // 2, count - 1):
                rows = x[1 : count + 1].copy() if count < 100 else x.copy()
                rows[row] = x[0]
                answer = await served.encode.submit(rows, None, later())
                assert answer.value[row].tobytes() == alone.value[0].tobytes()
                assert answer.log_det[row].tobytes() == alone.log_det[0].tobytes()
        await repository.drain()

    run(test())


@pytest.mark.parametrize(
    ("features", "settings", "batch_rows", "queue_rows"),
    [
        pytest.param(2, {}, 1024, 32 * 1024, id="small-rows"),
        pytest.param(784, {}, 128, 32 * 128, id="28x28"),
        pytest.param(3072, {}, 64, 32 * 64, id="3x32x32"),
        pytest.param(10**6, {}, 16, 32 * 16, id="huge-rows"),
        pytest.param(2, {"max_batch_size": 5}, 5, 32 * 1024, id="chosen"),
        pytest.param(2, {"max_queue_rows": 100}, 100, 100, id="queue-below-batch"),
        pytest.param(2, {"batching": "invariant"}, 32, 32 * 1024, id="invariant"),
    ],
)
def test_limits_follow_the_size_of_a_row(
    features: int, settings: dict[str, Any], batch_rows: int, queue_rows: int
) -> None:
    policy = make_policy(Settings(**settings), features)
    assert (policy.max_batch_rows, policy.max_queue_rows) == (batch_rows, queue_rows)


def test_batches_that_wait_for_their_hardest_row_are_smaller() -> None:
    policy = make_policy(Settings(), 2, is_solved=True)
    assert (policy.max_batch_rows, policy.max_queue_rows) == (128, 32 * 128)


def test_noise_is_drawn_by_as_many_threads_as_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr("service.repository.repository.set_noise_threads", threads.append)
    models.save(make_flow(), tmp_path / "toy")
    repository, _ = serving(tmp_path, instances=3, num_threads=1)

    async def test() -> None:
        await repository.start()
        await repository.drain()

    run(test())
    assert threads == [share_cpu(3, 1).budget]


@pytest.mark.parametrize(
    ("features", "is_solved", "batch_rows"),
    [(2, False, 8192), (3072, False, 256), (12288, False, 64), (10**6, False, 16), (2, True, 1024)],
)
def test_batches_are_larger_on_a_device(features: int, is_solved: bool, batch_rows: int) -> None:
    policy = make_policy(Settings(), features, is_solved=is_solved, device="cuda:1")
    assert policy.max_batch_rows == batch_rows
    chosen = Settings(max_batch_size=5, batching="invariant")
    assert make_policy(chosen, features, device="cuda:1").max_batch_rows == 5


def test_the_card_names_columns_of_whole_numbers(tmp_path: Path) -> None:
    steps = [{"kind": "dequantise_columns", "columns": [0, 2]}]
    flow = make_flow(preprocessing=steps)
    names = [{"name": name} for name in ("smoker", "weight", "children")]
    models.save(flow, tmp_path / "named", provenance={"columns": names})
    models.save(flow, tmp_path / "nameless")
    repository, _ = serving(tmp_path)

    async def body() -> dict[str, Any]:
        await repository.start()
        found = {served.card.name: served.card.describe() for served in repository.models()}
        await repository.drain()
        return found

    cards = asyncio.run(body())
    assert cards["named"]["discrete"] == ("smoker", "children")
    assert cards["nameless"]["discrete"] == (0, 2)
