"""Several live versions of a model: found by number, promoted, rolled back, refused, retired."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import models
from models.checkpoints.manifest import digest
from models.scoring.calibration import Calibration
from models.scoring.storage import write_calibration
from service.contracts import ModelIndexEntry, ServedModel, VersionPolicy
from service.errors import ModelNotFound, ModelRefused, NotReady
from service.launch.exits import StartupError
from service.repository import FolderRepository, ModelLocation, repository
from service.repository.folders import stamp
from service.repository.loading import LoadedModel
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.batcher.batching import batcher
from tests.service.engines.fakes import Gated
from tests.service.fake_repository import card
from tests.service.repository.test_repository import later, make_flow, run
from tests.service.telemetry.test_aggregation import value

X = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)

Test = Callable[[FolderRepository, Path], Awaitable[None]]


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders 1, 2 and 3, each another flow; 1 and 2 are calibrated, each in its own way."""
    folder = tmp_path_factory.mktemp("versions")
    for version in (1, 2, 3):
        models.save(make_flow(version), folder / str(version))
        if version < 3:
            write_calibration(folder / str(version), _calibration(folder / str(version), version))
    return folder


def _calibration(folder: Path, version: int) -> Calibration:
    return Calibration(
        statistic="neg_log_prob",
        parameters={},
        weights=digest(folder),
        dtype="float32",
        scores=np.arange(50.0 * version),
        dataset="held-out",
        created="2026-11-28T12:00:00+00:00",
    )


@pytest.fixture
def serve(flows: Path, tmp_path: Path) -> Callable[..., None]:
    """Run a test on a repository of one model, `flow`."""

    def start(test: Test, versions: str = "123", said: str = "", **settings: Any) -> None:
        for version in versions:
            shutil.copytree(flows / version, tmp_path / "flow" / version)
        say(tmp_path / "flow", said)
        metrics = settings.pop("metrics", None) or Metrics()
        options = {"watch_models": False, "max_batch_size": 8, "engine": "torch"} | settings

        async def whole() -> None:
            served = FolderRepository(Settings(model_repository=(tmp_path,), **options), metrics)
            await served.start()
            await test(served, tmp_path / "flow")
            await served.drain()

        run(whole())

    return start


def say(folder: Path, said: str) -> None:
    (folder / "serving.toml").write_text(said)


async def encode(served: FolderRepository, name: str) -> tuple[str, Any]:
    found = served.get(name)
    answer = await found.encode.submit(X.copy(), None, later())  # type: ignore[attr-defined]
    return found.card.version, answer.value.tolist()


def live_of(served: FolderRepository) -> tuple[str, list[str]]:
    versions = [found.card.version for found in served.versions("flow")]
    return served.get("flow").card.version, versions


def test_each_version_answers_by_its_number(serve: Callable[..., None], flows: Path) -> None:
    async def test(served: FolderRepository, _: Path) -> None:
        assert live_of(served) == ("3", ["1", "2", "3"])
        found = [await encode(served, f"flow@{version}") for version in "123"]
        assert [version for version, _ in found] == ["1", "2", "3"]
        assert len({str(numbers) for _, numbers in found}) == 3
        assert await encode(served, "flow") == found[2]
        cards = [found.card for found in served.versions("flow")]
        rows = [card.calibration and card.calibration.rows for card in cards]
        assert rows == [50, 100, None]
        assert [found.card.version for found in served.models()] == ["3"]
        assert served.index() == [ModelIndexEntry("flow", version, True) for version in "123"]

    serve(test, version_policy="all")


def test_what_is_not_live_is_told_with_what_is(serve: Callable[..., None]) -> None:
    told = {
        "flow@3": "model: version '3' of flow is not live; live: 1, 2",
        "flow@02": "model: version '02' of flow is not live; live: 1, 2",
        "flow@": "model: version '' of flow is not live; live: 1, 2",
        "flow@1@2": "model: no model is called 'flow@1@2'; served: flow",
        "other@1": "model: no model is called 'other@1'; served: flow",
        "@1": "model: no model is called '@1'; served: flow",
        "@": "model: no model is called '@'; served: flow",
    }

    async def test(served: FolderRepository, _: Path) -> None:
        for name, detail in told.items():
            with pytest.raises(ModelNotFound) as raised:
                served.get(name)
            assert raised.value.detail == detail

    serve(test, said="version_policy = [1, 2]")


def test_an_edit_promotes_rolls_back_and_retires(serve: Callable[..., None]) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        assert live_of(served) == ("1", ["1", "2"])
        kept = served.get("flow@2")
        say(folder, "version_policy = [1, 2]\ndefault_version = 2")
        await served.refresh()
        assert live_of(served) == ("2", ["1", "2"])
        say(folder, "version_policy = [2, 3]")
        await served.refresh()
        assert live_of(served) == ("3", ["2", "3"])
        assert [(await encode(served, f"flow{end}"))[0] for end in ("", "@2", "@3")] == [*"323"]
        say(folder, "version_policy = [2, 3]\ndefault_version = 2")
        await served.refresh()
        assert live_of(served) == ("2", ["2", "3"])
        assert served.get("flow@2") is kept, "what goes on being live is not loaded anew"
        say(folder, "")
        await served.refresh()
        assert live_of(served) == ("3", ["3"])
        with pytest.raises(NotReady):
            await kept.encode.submit(X.copy(), None, later())  # type: ignore[attr-defined]

    serve(test, said="version_policy = [1, 2]\ndefault_version = 1", allow_uncalibrated=True)


def test_a_bad_edit_changes_nothing_and_is_told(serve: Callable[..., None]) -> None:
    good = "version_policy = [1, 2]"
    faults = {
        "version_policy = [1, 2, 9]": "expected versions that lie there (1, 2, 3), got 9",
        f"{good}\ndefault_version = 9": "expected a version that is live (1, 2), got 9",
        "oops": "cannot be read",
        "a = 1": "a: expected version_policy or default_version",
    }

    async def test(served: FolderRepository, folder: Path) -> None:
        before = [served.get(f"flow@{version}") for version in "12"]
        for said, fault in faults.items():
            say(folder, said)
            await served.refresh()
            assert [served.get(f"flow@{version}") for version in "12"] == before
            first, second = served.index()
            assert (first.is_ready, second.is_ready, first.reason) == (True, True, "")
            assert "/flow/serving.toml: " in second.reason
            assert fault in second.reason
            assert str(folder) not in second.reason
            say(folder, good)
            await served.refresh()
            assert [one.reason for one in served.index()] == ["", ""]

    serve(test, said=good)


def test_a_bad_file_ends_the_start_or_is_skipped(serve: Callable[..., None]) -> None:
    async def test(*_: Any) -> None: ...

    with pytest.raises(StartupError, match="default_version: expected a version that is live"):
        serve(test, said="default_version = 1")


def test_a_pinned_version_that_is_bad_is_answered_for_by_no_other(
    serve: Callable[..., None], flows: Path, tmp_path: Path
) -> None:
    (tmp_path / "flow" / "4").mkdir(parents=True)
    (tmp_path / "flow" / "4" / "config.json").touch()

    async def test(served: FolderRepository, folder: Path) -> None:
        with pytest.raises(NotReady, match="flow 4 cannot be served"):
            served.get("flow")
        with pytest.raises(NotReady, match="flow 4 cannot be served"):
            served.get("flow@4")
        assert (await encode(served, "flow@1"))[0] == "1"
        shutil.rmtree(folder / "4")
        shutil.copytree(flows / "3", folder / "4")
        await served.refresh()
        assert live_of(served) == ("4", ["1", "2", "4"])

    said = "version_policy = [1, 2, 4]\ndefault_version = 4"
    serve(test, "12", said, on_bad_model="skip")


@pytest.mark.parametrize("policy", ["[1, 3]", '"all"'])
def test_a_version_without_calibration_is_not_promoted_over_one_that_has_it(
    serve: Callable[..., None], policy: str
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        assert live_of(served) == ("1", ["1", "3"])
        say(folder, f"version_policy = {policy}\ndefault_version = 3")
        await served.refresh()
        assert live_of(served) == ("1", ["1", "3"])
        assert "it has no calibration" in served.index()[1].reason
        with pytest.raises(ModelRefused, match="it has no calibration"):
            await served.load("flow", VersionPolicy(None, 3))
        assert live_of(served) == ("1", ["1", "3"])

    serve(test, "13", said=f"version_policy = {policy}\ndefault_version = 1")


def test_a_change_that_promotes_a_version_without_calibration_retires_none(
    serve: Callable[..., None],
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        for said in ("version_policy = [3]", ""):
            say(folder, said)
            await served.refresh()
            assert live_of(served) == ("1", ["1", "2"])
            assert "it has no calibration" in served.index()[2].reason
        say(folder, 'version_policy = "all"')
        await served.refresh()
        assert live_of(served) == ("1", ["1", "2", "3"])
        assert "it has no calibration" in served.index()[2].reason

    serve(test, said="version_policy = [1, 2]\ndefault_version = 1")


def test_a_load_may_say_which_are_live_until_the_next_one(serve: Callable[..., None]) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        kept = served.get("flow@2")
        await served.load("flow", VersionPolicy((1, 2), 1))
        assert live_of(served) == ("1", ["1", "2"])
        assert served.get("flow@2") is kept
        await served.refresh()
        assert live_of(served) == ("1", ["1", "2"]), "the folder does not say otherwise"
        with pytest.raises(ModelRefused, match="expected versions that lie there"):
            await served.load("flow", VersionPolicy((1, 2, 7)))
        (folder / "3" / "model.safetensors").write_bytes(b"")
        with pytest.raises(ModelRefused, match=r"model\.safetensors"):
            await served.load("flow", VersionPolicy((1, 2, 3), 2))
        assert live_of(served) == ("1", ["1", "2"])
        await served.refresh()
        assert live_of(served) == ("1", ["1", "2"]), "what was refused is not wanted"
        await served.load("flow")
        assert live_of(served) == ("2", ["2"])
        assert served.get("flow@2") is not kept, "without parameters all is loaded anew"
        await served.unload("flow")
        assert [one.reason for one in served.index()] == ["unloaded"]
        await served.load("flow", VersionPolicy("latest"))

    with pytest.raises(ModelRefused):
        serve(test, said="version_policy = [2]")


@pytest.mark.parametrize("is_call", [True, False], ids=["by call", "by file"])
def test_who_asks_notices_nothing_of_a_change_that_is_refused(
    serve: Callable[..., None], is_call: bool
) -> None:
    async def test(served: FolderRepository, folder: Path) -> None:
        (folder / "3" / "model.safetensors").write_bytes(b"junk")
        before, answers = await encode(served, "flow"), []
        threads = _workers()

        async def ask(name: str) -> None:
            while True:
                answers.append(await encode(served, name))

        clients = [asyncio.create_task(ask(name)) for name in ("flow", "flow@1")]
        if is_call:
            with pytest.raises(ModelRefused, match=r"model\.safetensors"):
                await served.load("flow", VersionPolicy((2, 3)))
        else:
            say(folder, "version_policy = [2, 3]")
            await served.refresh()
        asked = len(answers)
        while len(answers) < asked + 10 or _workers() > threads:
            await asyncio.sleep(0)
        for client in clients:
            client.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        assert {type(end) for end in ended} == {asyncio.CancelledError}
        assert all(answer == before for answer in answers)
        assert live_of(served) == ("1", ["1"])
        with pytest.raises(ModelNotFound, match="version '2' of flow is not live; live: 1"):
            served.get("flow@2")
        first, refused = served.index()
        assert (first.reason, refused.version, refused.is_ready) == ("", "3", False)
        assert "model.safetensors" in refused.reason

    options = {"allow_uncalibrated": True, "batching": "invariant"}
    serve(test, said="version_policy = [1]", **options)


def _workers() -> int:
    """Of the batchers, that compute what they are given."""
    return sum(thread.name.startswith("flow.") for thread in threading.enumerate())


def test_an_unloaded_model_lists_all_its_versions(serve: Callable[..., None]) -> None:
    async def test(served: FolderRepository, _: Path) -> None:
        await served.unload("flow")
        assert served.index() == [
            ModelIndexEntry("flow", version, False, "unloaded") for version in "123"
        ]
        with pytest.raises(ModelNotFound, match="no model is called 'flow@1'"):
            served.get("flow@1")
        await served.load("flow")
        assert live_of(served) == ("3", ["1", "2", "3"])

    serve(test, version_policy="all")


def test_each_version_has_its_own_drift_test_and_gauges(serve: Callable[..., None]) -> None:
    metrics = Metrics()

    async def test(served: FolderRepository, folder: Path) -> None:
        def observe(version: str) -> None:
            calibration = served.get(f"flow@{version}").card.calibration
            assert calibration is not None
            scores, p_values = np.full(5, 1e3), np.full(5, 0.01)
            metrics.drift.observe("flow", calibration.id, scores, p_values, version=version)

        observe("2")
        name = "pushforward_drift_log_martingale"
        text = metrics.render()
        assert value(text, name, model="flow", version="1") == 0
        reached = value(text, name, model="flow", version="2")
        assert reached > 0
        for gauge in ("queue_rows", "model_info", "requests_running"):
            count = text.decode().count(f"\npushforward_{gauge}{{")
            assert count == (4 if gauge == "queue_rows" else 2)
        say(folder, "version_policy = [2]")
        await served.refresh()
        text = metrics.render()
        assert value(text, name, model="flow", version="2") == reached
        assert 'version="1"' not in "".join(
            line for line in text.decode().splitlines() if line.startswith("pushforward_queue_rows")
        )

    serve(test, said="version_policy = [1, 2]", metrics=metrics)


@pytest.mark.parametrize(("said", "goes_on_as"), [("", "2"), ("version_policy = [1, 2]", "1")])
def test_a_drift_test_goes_on_as_that_of_the_successor_of_what_is_retired(
    serve: Callable[..., None], said: str, goes_on_as: str
) -> None:
    metrics = Metrics()

    async def test(served: FolderRepository, folder: Path) -> None:
        calibration = served.get("flow").card.calibration
        assert calibration is not None
        scores, p_values = np.full(5, 1e3), np.full(5, 0.01)
        metrics.drift.observe("flow", calibration.id, scores, p_values, version="1")
        name = "pushforward_drift_log_martingale"
        reached = value(metrics.render(), name, model="flow", version="1")
        shutil.copytree(folder / "1", folder / "2")
        say(folder, said)
        await served.refresh()
        assert served.get("flow").card.version == "2"
        text = metrics.render()
        assert value(text, name, model="flow", version=goes_on_as) == reached > 0
        assert text.decode().count(f"\n{name}{{") == len(served.versions("flow"))

    serve(test, "1", metrics=metrics)


def load_fake(location: ModelLocation, *_: object, **__: object) -> Any:
    """Load a model in no time; one that has a file `bad` cannot be."""

    async def load() -> LoadedModel:
        seen = stamp(location)
        await asyncio.sleep(0)
        if (location.folder / "bad").exists():
            raise StartupError(f"{location.folder}: bad")
        encode, decode = batcher(Gated()), batcher(Gated())
        facts = card(location.name, (3,), version=location.version)
        return LoadedModel(ServedModel(facts, encode, decode), encode, decode, None, seen)

    return load()


# In another order as text, of one to nine digits: the highest that a folder may have.
_VERSIONS = (1, 2, 10, 103, 999_999_999)
_NUMBERS = st.sets(st.sampled_from(_VERSIONS), min_size=1)
_NO_VERSIONS = ("", "0", "01", "1.0", "-1", "11", "1000000000", "9223372036854775808", "all")
# What lies there, what is bad of it, what is said.
_STEPS = st.lists(
    st.tuples(
        _NUMBERS,
        st.sets(st.sampled_from(_VERSIONS)),
        st.one_of(st.none(), st.sampled_from(["latest", "all"]), _NUMBERS),
        st.one_of(st.none(), st.sampled_from(_VERSIONS)),
    ),
    min_size=1,
    max_size=6,
)


def put(folder: Path, there: set[int], bad: set[int], policy: Any, default: int | None) -> None:
    """Let a folder hold these versions, and say this of them."""
    for number in {*_VERSIONS, *there}:
        version = folder / str(number)
        if number not in there:
            shutil.rmtree(version, ignore_errors=True)
            continue
        version.mkdir(exist_ok=True)
        (version / "config.json").touch()
        if number in bad:
            (version / "bad").touch()
        else:
            (version / "bad").unlink(missing_ok=True)
    said = sorted(policy) if isinstance(policy, set) else policy
    lines = [f"version_policy = {said!r}"] if said else []
    lines += [f"default_version = {default}"] if default else []
    say(folder, "\n".join(lines))


@given(_STEPS)
@examples(max_examples=12, deadline=None)
def test_whatever_is_written_what_is_live_follows_it_or_stays(steps: Any) -> None:
    async def play(root: Path) -> None:
        folder = root / "flow"
        folder.mkdir()
        put(folder, {1}, set(), None, None)
        served = FolderRepository(Settings(model_repository=(root,), watch_models=False), Metrics())
        await served.start()
        for there, bad, policy, default in steps:
            before = live_of(served)
            put(folder, there, bad, policy, default)
            await served.refresh()
            check(served, before, (there, bad, policy, default))
        await served.drain()

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository, "load_model", load_fake)
        asyncio.run(play(Path(name)))


def check(served: FolderRepository, before: tuple[str, list[str]], step: Any) -> None:
    there, bad, policy, default = step
    known = {"latest": {max(there)}, None: {max(there)}, "all": there}
    wanted = policy if isinstance(policy, set) else known[policy]
    now, versions = live_of(served)
    for version in versions:
        assert served.get(f"flow@{version}").card.version == version
    entries = {one.version: one for one in served.index()}
    for other in {*map(str, _VERSIONS), *_NO_VERSIONS}.difference(versions):
        with pytest.raises(NotReady if other in entries else ModelNotFound):
            served.get(f"flow@{other}")
    assert {version for version, one in entries.items() if one.is_ready} == set(versions)
    assert versions == sorted(versions, key=int)
    if not wanted <= there or (default is not None and default not in wanted):
        assert (now, versions) == before
        assert "serving.toml" in entries[now].reason
        return
    names = {str(number) for number in wanted}
    lost = {str(number) for number in wanted & bad} - {*before[1]}
    if lost and policy != "all":
        assert (now, versions) == before
        assert all("bad" in entries[version].reason for version in lost)
        return
    assert names - {str(number) for number in bad} <= set(versions)
    assert set(versions) <= names | {now}
    for number in wanted & bad:
        assert "bad" in entries[str(number)].reason
    serving = [int(version) for version in versions if version in names]
    pinned = default if default is not None else max(serving, default=0)
    assert now == (str(pinned) if pinned in serving else before[0])
