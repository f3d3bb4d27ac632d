"""Commands say before the work that its result cannot be written, and leave no half of a file."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import models
from pushforward.cli import app as cli
from pushforward.cli.main import main
from pushforward.cli.plain_errors import plain_errors
from pushforward.client import Client
from tests.blank_pictures import blank_pictures  # noqa: F401  (fixtures)
from tests.cases import make_flow
from tests.disks import disk, fill
from tests.pushforward.cli import test_client
from tests.pushforward.cli.test_import_checkpoint import ROSINALITY, SIZES

invoke = test_client.invoke
TRAIN = ("train", "--data", "two_moons?rows=200", "--family", "realnvp", "--out")
LONG = "n" * 300


def run(*arguments: str | Path) -> Result:
    words = list(map(str, arguments))
    return CliRunner().invoke(cli.build(words), words)


def assert_refused(result: Result, text: str) -> None:
    assert result.exit_code == 2, result.output
    assert not result.stdout
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.save(make_flow("realnvp").float(), tmp_path / "model")
    return tmp_path / "model"


def test_an_out_that_cannot_be_is_one_line(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for command in (TRAIN, ("import", ROSINALITY, *SIZES, "--out"), ("export", folder, "--out")):
        assert_refused(run(*command, tmp_path / LONG), "name too long")
        assert_refused(run(*command, file / "model"), "Not a directory")
        assert_refused(run(*command, file), "file")
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]


def test_an_import_takes_no_models_place_unless_told(tmp_path: Path, folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    importing = ("import", ROSINALITY, *SIZES, "--out", folder)
    assert_refused(run(*importing), "holds a model; delete it or choose another folder")
    assert (folder / "model.safetensors").read_bytes() == before
    assert run(*importing, "--overwrite").exit_code == 0
    assert models.load(folder).family == "glow"


def test_a_full_disk_leaves_the_graphs_as_they_were(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk(tmp_path / "disk", "2m") as small:
        graphs = small / "graphs"
        assert run("export", folder, "--out", graphs).exit_code == 0
        before = {path.name: path.read_bytes() for path in graphs.iterdir()}
        fill(small)
        assert "No space left" in run("export", folder, "--out", graphs, "--opset", 19).stderr
        monkeypatch.setattr("models.checkpoints.files.try_folder", lambda _: None)
        result = run("export", folder, "--out", graphs, "--opset", 19)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith("error: ")
        assert "No space left" in result.stderr
        assert {path.name: path.read_bytes() for path in graphs.iterdir()} == before


def test_a_disk_with_too_little_room_is_named_and_left_clean(tmp_path: Path, folder: Path) -> None:
    with disk(tmp_path / "disk", "16k") as small:
        for command in (("export", folder), ("import", ROSINALITY, *SIZES)):
            out = small / command[0]
            result = run(*command, "--out", out)
            assert result.exit_code == 1
            assert f"{out}" in result.stderr
            assert "No space left" in result.stderr
            assert list(small.iterdir()) == []


def test_samples_take_the_place_of_a_file_whole_or_not_at_all(
    tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    with disk(tmp_path / "disk", "64k") as small:
        for name in ("x.npy", "x.csv"):
            path = small / name
            path.write_bytes(b"before")
            assert invoke("sample", "--model", "line", "-o", path).exit_code == 0
            before = path.read_bytes()
            result = invoke("sample", "-n", 9000, "--model", "line", "-o", path)
            assert result.exit_code == 1
            assert f"{name}: No space left" in result.stderr
            assert path.read_bytes() == before
            assert len(list(small.iterdir())) == 1
            path.unlink()


@pytest.mark.parametrize("name", [LONG + ".npy", "nowhere/x.npy", "folder.npy", "x.txt"])
def test_an_output_that_cannot_be_is_refused_before_anything_is_drawn(
    tmp_path: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder.npy").mkdir()
    monkeypatch.setattr(Client, "stream", lambda *_, **__: pytest.fail("drawn"))
    result = invoke("sample", "--model", "line", "-o", tmp_path / name)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npy"]


def test_a_device_and_a_link_stay_what_they_are(
    tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    pipe, link = tmp_path / "pipe.npy", tmp_path / "link.npy"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "real.npy")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert invoke("sample", "--model", "line", "-o", pipe).exit_code == 0
    assert os.read(reader, 6) == b"\x93NUMPY"
    os.close(reader)
    assert pipe.is_fifo()
    assert invoke("sample", "--model", "line", "-o", link).exit_code == 0
    assert link.is_symlink()
    assert len(np.load(tmp_path / "real.npy")) == 16


def test_an_error_of_the_system_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in (
        (PermissionError(13, "Permission denied", "data.csv"), 2),
        (OSError(28, "No space left on device", "x.npy"), 1),
    ):
        with pytest.raises(Exception, match=str(code)) as caught, plain_errors():
            raise error
        assert getattr(caught.value, "exit_code", None) == code
        assert capsys.readouterr().err == f"error: {error.filename}: {error.strerror}\n"


def test_an_interrupt_ends_the_process_while_modules_are_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Raised inside an import it would be lost there, or end as a RecursionError."""
    seen = []
    former = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, "build", lambda _: lambda: seen.append(signal.getsignal(2)))
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
        main()
    finally:
        signal.signal(signal.SIGINT, former)
    assert seen == [signal.SIG_DFL, signal.SIG_IGN]


def test_an_interrupt_at_work_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "models.onnx.export.export_folder", lambda *_, **__: signal.raise_signal(signal.SIGINT)
    )
    result = run("export", folder)
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"
