"""Calibrations that come, change and go while their model serves."""

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models
from models.checkpoints.manifest import digest
from models.scoring.calibration import Calibration
from models.scoring.storage import CALIBRATION_FILE, SCORES_FILE, write_calibration
from service.contracts import ModelIndexEntry
from service.errors import ModelRefused
from service.repository import FolderRepository, loading
from service.settings import Settings
from service.telemetry import Metrics
from tests.service.repository.test_repository import later, make_flow, run
from tests.service.telemetry.test_aggregation import value

Test = Callable[[FolderRepository, Path], Awaitable[None]]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders 1 and 2, each another flow; the first is calibrated."""
    folder = tmp_path_factory.mktemp("versions")
    for version in (1, 2):
        models.save(make_flow(version), folder / str(version))
    write_calibration(folder / "1", calibration(folder / "1"))
    return folder


def calibration(folder: Path, rows: int = 99, **facts: Any) -> Calibration:
    plain = Calibration(
        statistic="neg_log_prob",
        parameters={},
        weights=digest(folder),
        dtype="float32",
        scores=np.arange(float(rows)),
        dataset="held-out",
        created="2026-11-28T12:00:00+00:00",
        report={"warnings": ["this model finds blank images more likely than its own data"]},
    )
    return replace(plain, **facts)


def serve(
    versions: Path, folder: Path, test: Test, metrics: Metrics | None = None, **settings: Any
) -> None:
    """Run a test on a repository of one model, `flow`, whose version 1 is served."""
    if not (folder / "flow").exists():
        shutil.copytree(versions / "1", folder / "flow" / "1")
    options = {"watch_models": False, "max_batch_size": 8, "engine": "torch"} | settings

    async def whole() -> None:
        known = Settings(model_repository=(folder,), **options)
        served = FolderRepository(known, metrics or Metrics())
        await served.start()
        await test(served, folder / "flow")
        await served.drain()

    run(whole())


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    lines: list[str] = []
    with caplog.at_level(logging.INFO):
        yield lines
    lines += [record.getMessage() for record in caplog.records]


def test_a_calibration_is_served_and_its_warnings_are_logged_once(
    versions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        card = repository.get("flow").card
        assert card.calibration is not None
        assert card.describe()["calibration"]["rows"] == 99
        assert card.weights == digest(folder / "1")
        await repository.refresh()

    with logged(caplog) as lines:
        serve(versions, tmp_path, test)
    assert sum("blank images" in line for line in lines) == 1


def test_another_calibration_is_served_by_the_same_batchers(versions: Path, tmp_path: Path) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        before = repository.get("flow")
        write_calibration(folder / "1", calibration(folder / "1", rows=199))
        await repository.refresh()
        after = repository.get("flow")
        assert after.card.calibration is not None
        assert after.card.calibration.rows == 199
        assert after.encode is before.encode
        rows = np.zeros((1, 3), np.float32)
        await before.encode.submit(rows, None, later())  # who asked before is answered

    serve(versions, tmp_path, test)


@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_version_without_calibration_does_not_replace_one_that_has_it(
    versions: Path, tmp_path: Path, is_allowed: bool
) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        shutil.copytree(versions / "2", folder / "2")
        await repository.refresh()
        assert repository.get("flow").card.version == ("2" if is_allowed else "1")
        refused = [one for one in repository.index() if not one.is_ready]
        assert [one.version for one in refused] == ([] if is_allowed else ["2"])
        if not is_allowed:
            assert "pushforward calibrate" in refused[0].reason
            assert "--allow-uncalibrated true" in refused[0].reason
            assert refused[0].reason.startswith("it has no calibration")
            with pytest.raises(ModelRefused, match="has no calibration"):
                await repository.load("flow")
            write_calibration(folder / "2", calibration(folder / "2"))
            await repository.refresh()
            assert repository.get("flow").card.version == "2"

    serve(versions, tmp_path, test, allow_uncalibrated=is_allowed)


def test_a_version_of_the_same_weights_has_no_calibration_from_before(
    versions: Path, tmp_path: Path
) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        without = shutil.ignore_patterns("calibration.*")
        shutil.copytree(versions / "1", folder / "2", ignore=without)
        await repository.refresh()
        (_, refused) = repository.index()
        assert "the version that is served, 1, has one" in refused.reason

    serve(versions, tmp_path, test)


@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_calibration_that_goes_stays_in_use_unless_that_is_allowed(
    versions: Path, tmp_path: Path, is_allowed: bool
) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        for name in (CALIBRATION_FILE, SCORES_FILE):
            (folder / "1" / name).unlink()
        await repository.refresh()
        assert (repository.get("flow").card.calibration is None) == is_allowed

    serve(versions, tmp_path, test, allow_uncalibrated=is_allowed)


def test_drift_is_tested_against_the_calibration_that_is_served(
    versions: Path, tmp_path: Path
) -> None:
    metrics = Metrics()
    name = "pushforward_drift_log_martingale"

    async def test(repository: FolderRepository, folder: Path) -> None:
        def feed(rows: int) -> None:
            card = repository.get("flow").card
            assert card.calibration is not None
            scores, p_values = np.full(rows, 1e3), np.full(rows, 0.01)
            metrics.drift.observe(
                "flow", card.calibration.id, scores, p_values, version=card.version
            )

        assert value(metrics.render(), name, model="flow") == 0
        feed(5)
        reached = value(metrics.render(), name, model="flow")
        assert reached > 0
        # The same calibration, written anew beside other weights of the same kind: it goes on.
        shutil.copytree(folder / "1", folder / "2")
        await repository.refresh()
        assert repository.get("flow").card.version == "2"
        assert value(metrics.render(), name, model="flow") == reached
        write_calibration(folder / "2", calibration(folder / "2", rows=199))
        await repository.refresh()
        assert value(metrics.render(), name, model="flow") == 0
        # The window is that of the settings.
        feed(7)
        assert value(metrics.render(), "pushforward_drift_windows_total", model="flow") == 2
        await repository.unload("flow")
        assert name + "{" not in metrics.render().decode()

    serve(versions, tmp_path, test, metrics, drift_window_rows=5)


def _truncate(folder: Path) -> None:
    path = folder / SCORES_FILE
    path.write_bytes(path.read_bytes()[:-8])


def _of_other_weights(folder: Path) -> None:
    write_calibration(folder, calibration(folder, weights="0" * 64))


def _of_another_precision(folder: Path) -> None:
    write_calibration(folder, calibration(folder, dtype="float64"))


def _of_pixels(folder: Path) -> None:
    write_calibration(folder, calibration(folder, statistic="complexity"))


def _without_parameters(folder: Path) -> None:
    write_calibration(folder, calibration(folder, statistic="typicality"))


def _of_another_width(folder: Path) -> None:
    write_calibration(folder, calibration(folder, grid=np.zeros((16, 7))))


def _of_pictures(folder: Path) -> None:
    parameters = {"mean": np.zeros(2), "std": np.ones(2)}
    write_calibration(folder, calibration(folder, statistic="latent", parameters=parameters))


def _by_class(folder: Path) -> None:
    write_calibration(folder, calibration(folder, class_scores={1: np.arange(99.0)}))


HARMS = {
    _of_pictures: "mean: expected 1 values",
    _by_class: "the model has no classes, got [1]",
    _truncate: "calibration.safetensors",
    _of_other_weights: "other weights",
    _of_another_precision: "float64",
    _of_pixels: "complexity",
    _without_parameters: "median",
    _of_another_width: "7",
}


def test_a_model_is_served_without_a_calibration_that_cannot_be_used(
    versions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        assert repository.get("flow").card.calibration is None
        write_calibration(folder / "1", calibration(folder / "1"))
        await repository.refresh()
        assert repository.get("flow").card.calibration is not None

    shutil.copytree(versions / "1", tmp_path / "flow" / "1")
    _of_other_weights(tmp_path / "flow" / "1")
    with logged(caplog) as lines:
        serve(versions, tmp_path, test)
    (warning,) = [line for line in lines if "is served without calibration: " in line]
    assert "other weights" in warning


def test_what_cannot_be_used_does_not_replace_a_calibration(
    versions: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        for harm, said in HARMS.items():
            harm(folder / "1")
            await repository.refresh()
            assert repository.get("flow").card.calibration is not None, harm
            (entry,) = repository.index()
            assert (entry.version, entry.is_ready) == ("1", True)
            assert entry.reason.startswith("its calibration cannot be used: ")
            assert said in entry.reason
            assert str(tmp_path) not in entry.reason
            assert caplog.messages[-1].startswith("flow 1 is served as it was before: its calib")
        write_calibration(folder / "1", calibration(folder / "1", rows=299))
        await repository.refresh()
        found = repository.get("flow").card.calibration
        assert found is not None
        assert found.rows == 299
        assert repository.index() == [ModelIndexEntry("flow", "1", True)]

    monkeypatch.setattr(loading, "SETTLED_SECONDS", 0.01)
    serve(versions, tmp_path, test)


@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_calibration_that_is_being_written_is_read_once_it_is_there(
    versions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, is_allowed: bool
) -> None:
    """Its two files take their places one after the other."""

    async def test(repository: FolderRepository, folder: Path) -> None:
        whole = tmp_path / "whole"
        whole.mkdir()
        write_calibration(whole, calibration(folder / "1", rows=199))
        shutil.copy(whole / SCORES_FILE, folder / "1")
        looking = asyncio.create_task(repository.refresh())
        await asyncio.sleep(loading.SETTLED_SECONDS / 2)
        found = repository.get("flow").card.calibration
        assert found is not None
        assert found.rows == 99
        shutil.copy(whole / CALIBRATION_FILE, folder / "1")
        await looking
        found = repository.get("flow").card.calibration
        assert found is not None
        assert found.rows == 199
        assert repository.index() == [ModelIndexEntry("flow", "1", True)]

    with caplog.at_level(logging.ERROR):
        serve(versions, tmp_path, test, allow_uncalibrated=is_allowed)
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_a_calibration_changes_alone_beside_its_card_and_what_is_being_written(
    versions: Path, tmp_path: Path
) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        before = repository.get("flow")
        write_calibration(folder / "1", calibration(folder / "1", rows=199))
        (folder / "1" / "README.md").write_text("# Calibrated by this")
        (folder / "1" / ".0123.partial").touch()
        await repository.refresh()
        after = repository.get("flow")
        assert after.card.calibration is not None
        assert after.card.calibration.rows == 199
        assert after.encode is before.encode

    serve(versions, tmp_path, test)


def test_other_files_in_the_place_of_a_version_that_cannot_be_served_are_told_of_once(
    versions: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(repository: FolderRepository, folder: Path) -> None:
        (folder / "1" / "config.json").write_text("{")
        await repository.refresh()
        (entry,) = repository.index()
        assert (entry.version, entry.is_ready) == ("1", True)
        assert "config.json" in entry.reason
        assert caplog.messages[-1].startswith("flow 1 is served as it was before: ")

    serve(versions, tmp_path, test)
