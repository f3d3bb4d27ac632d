"""Nothing that was trained is lost: places are tried first, signals and full disks are survived."""

import signal
from pathlib import Path

import pytest
import torch

import models
from models.checkpoints.folder import CheckpointError
from models.datasets import Dataset, load
from models.training import (
    TrainingError,
    TrainingInterrupted,
    TrainingKept,
    TrainingOptions,
    loop,
    train,
)
from models.training.progress import Silence
from models.training.report import Epoch
from models.training.run import Run
from models.training.state import state_path
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)
from tests.disks import disk, fill
from tests.models.training.test_train import VECTOR, assert_same_weights

OPTIONS = TrainingOptions(epochs=3, batch_rows=64, warmup_steps=5)


@pytest.fixture(scope="module")
def moons() -> Dataset:
    return load("two_moons?rows=400")


class Signalled(Silence):
    """Sends this process a signal at one step."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step, self.steps = number, step, 0

    def on_step(self, nats: float) -> None:
        self.steps += 1
        if self.steps == self.step:
            signal.raise_signal(self.number)


class Fills(Silence):
    """Fills a disk at the end of the first epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_epoch(self, number: int, epoch: Epoch, *, is_best: bool) -> None:
        if number == 1:
            fill(self.folder)


def quick(data: Dataset, out: Path, **changes: object) -> None:
    train(data, "realnvp", VECTOR, out, options=OPTIONS, **changes)  # type: ignore[arg-type]


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("step", [1, 7], ids=["first epoch", "second epoch"])
def test_a_signal_at_any_step_saves_a_state_from_which_the_same_weights_come(
    tmp_path: Path, moons: Dataset, number: int, step: int
) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    quick(moons, tmp_path / "whole")
    out = tmp_path / "broken"
    with pytest.raises(TrainingInterrupted, match=r"--resume") as caught:
        quick(moons, out, listener=Signalled(number, step))
    assert caught.value.number == number
    assert str(state_path(out)) in str(caught.value)
    assert not out.exists()
    rest = Signalled(number, 0)
    quick(moons, out, resume=True, listener=rest)
    assert rest.steps == 3 * 5 - step, "a step was lost or made twice"
    assert_same_weights(tmp_path / "whole", out)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_before_the_first_step_is_told(
    tmp_path: Path, moons: Dataset, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It ended the command without a word, SIGTERM with the exit code of Ctrl-C."""
    out = tmp_path / "m"
    monkeypatch.setattr(loop, "check_fits", lambda *_: signal.raise_signal(number))
    with pytest.raises(TrainingInterrupted, match=r"before the first step; .* nothing") as caught:
        quick(moons, out)
    assert caught.value.number == number
    state_path(out).write_bytes(b"of another run")
    with pytest.raises(TrainingInterrupted, match=r"before the first step; .*--resume"):
        quick(moons, out, resume=True)
    assert state_path(out).read_bytes() == b"of another run"


def test_a_signal_within_a_step_waits_for_its_end(
    tmp_path: Path, moons: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(moons, tmp_path / "whole")
    out, step = tmp_path / "broken", torch.optim.AdamW.step

    def signalled(optimiser: torch.optim.AdamW) -> None:
        monkeypatch.setattr(torch.optim.AdamW, "step", step)
        signal.raise_signal(signal.SIGINT)
        step(optimiser)

    monkeypatch.setattr(torch.optim.AdamW, "step", signalled)
    with pytest.raises(TrainingInterrupted):
        quick(moons, out)
    quick(moons, out, resume=True)
    assert_same_weights(tmp_path / "whole", out)


def test_a_signal_while_the_weights_are_judged(
    tmp_path: Path, moons: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(moons, tmp_path / "whole")
    out, validate = tmp_path / "broken", Run.validate

    def interrupted(run: Run, validation: Dataset) -> float:
        monkeypatch.setattr(Run, "validate", validate)
        torch.rand(3)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the signal waited for the validation to end")

    monkeypatch.setattr(Run, "validate", interrupted)
    with pytest.raises(TrainingInterrupted):
        quick(moons, out)
    quick(moons, out, resume=True)
    assert_same_weights(tmp_path / "whole", out)


def test_a_signal_while_the_model_is_written_leaves_its_state(
    tmp_path: Path, moons: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", interrupted)
        with pytest.raises(TrainingInterrupted):
            quick(moons, tmp_path / "m")
    quick(moons, tmp_path / "m", resume=True)
    models.load(tmp_path / "m")


def test_a_saved_state_is_not_discarded(tmp_path: Path, moons: Dataset) -> None:
    out = tmp_path / "m"
    with pytest.raises(TrainingInterrupted):
        quick(moons, out, listener=Signalled(signal.SIGINT, 7))
    before = state_path(out).read_bytes()
    with pytest.raises(TrainingError, match=r"interrupted run left its state.*--resume"):
        quick(moons, out)
    assert state_path(out).read_bytes() == before


# ------------------------------------------------------------------ places


def test_what_cannot_be_written_is_told_before_anything_is_trained(
    tmp_path: Path, moons: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    monkeypatch.setattr(Run, "run_epoch", lambda *_: pytest.fail("training began"))
    for name, message in {
        "file": "got a file",
        "file/model": "cannot be written: Not a directory",
        "full": "got one with letter.txt",
        "n" * 300: "cannot be written: File name too long",
        # Long enough for the state beside it, but not for the folder, or the other way round.
        "n" * 240: "cannot be written: File name too long",
    }.items():
        with pytest.raises(TrainingError, match=message):
            quick(moons, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_a_full_or_read_only_disk_is_told_before(tmp_path: Path, moons: Dataset) -> None:
    with disk(tmp_path / "disk", "64k") as small, pytest.raises(TrainingError, match="No space"):
        quick(moons, small / "model")
    with disk(tmp_path / "disk", "4k,ro") as ro, pytest.raises(TrainingError, match="Read-only"):
        quick(moons, ro / "model")


def test_a_mount_point_is_filled(tmp_path: Path, moons: Dataset) -> None:
    with disk(tmp_path / "volume") as volume:
        (volume / "lost+found").mkdir()
        with pytest.raises(TrainingInterrupted):
            quick(moons, volume, listener=Signalled(signal.SIGINT, 7))
        assert state_path(volume).parent == volume
        quick(moons, volume, resume=True)
        models.load(volume)
        assert not state_path(volume).exists()
        # Nor is it a fault to replace a model that lies in one.
        models.save(models.load(volume), volume)
        models.load(volume)
        assert not list(volume.glob(".*"))


@pytest.mark.parametrize("is_current_full", [False, True], ids=["current", "temporary"])
def test_a_disk_that_fills_up_while_training_costs_nothing(
    tmp_path: Path, moons: Dataset, monkeypatch: pytest.MonkeyPatch, is_current_full: bool
) -> None:
    current, temporary = tmp_path / "current", tmp_path / "temporary"
    current.mkdir()
    temporary.mkdir()
    with disk(tmp_path / "disk") as full:
        monkeypatch.chdir(full if is_current_full else current)
        monkeypatch.setattr("tempfile.tempdir", str(temporary))
        with pytest.raises(TrainingKept, match="No space left") as caught:
            quick(moons, full / "moons", listener=Fills(full))
        kept = (temporary if is_current_full else current) / "moons"
        assert caught.value.path == kept
        assert str(kept) in str(caught.value)
        assert not list(full.glob("*/config.json"))
        monkeypatch.chdir(current)
    quick(moons, tmp_path / "same")
    assert_same_weights(kept, tmp_path / "same")
    models.load(kept)


def test_a_model_that_does_not_prove_itself_keeps_its_weights(
    tmp_path: Path, moons: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(moons, tmp_path / "good")

    def refuse(*_: object, **__: object) -> None:
        raise CheckpointError("off by 3")

    monkeypatch.setattr(loop, "save", refuse)
    with pytest.raises(TrainingKept, match="off by 3; what was trained is kept") as caught:
        quick(moons, tmp_path / "m")
    kept = caught.value.path
    assert kept == tmp_path / "m.weights.safetensors"
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "model.safetensors").write_bytes(kept.read_bytes())
    assert_same_weights(tmp_path / "good", tmp_path / "kept")


def test_a_model_too_steep_for_float32_is_written_to_be_served_in_float64(
    tmp_path: Path,
    moons: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save = loop.save

    def refuse_float32(*arguments: object, dtype: object = None, **options: object) -> None:
        if dtype is None:
            raise CheckpointError("too steep")
        save(*arguments, dtype=dtype, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "save", refuse_float32)
    quick(moons, tmp_path / "m")
    assert models.load(tmp_path / "m").dtype == torch.float64
    assert "served in float64" in caplog.text
