"""`pushforward export` writes what the server serves, and says what was proved."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import models
from models.checkpoints.folder import digest
from models.onnx.certified import read_certified
from models.onnx.load import read_export
from models.onnx.runtime import RuntimeMissing
from pushforward.cli import app as cli
from tests.cases import make_flow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models.save(make_flow("realnvp").float(), tmp_path / "model")
    return tmp_path / "model"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(arguments), list(arguments), env={"COLUMNS": "120"})


def test_the_graphs_lie_where_the_server_finds_them(folder: Path) -> None:
    result = invoke("export", str(folder))
    assert result.exit_code == 0, result.output
    assert "log_prob (nats)" in result.output
    assert "in batches of 1, 2, 7, 64: the same bits in all" in result.output
    found = read_export(folder, models.load(folder), digest(folder))
    written = json.loads((folder / "certificate.json").read_text("utf-8"))
    assert written.pop("model")["weights_sha256"] == digest(folder)
    assert found.certificate == written


def test_in_place_is_the_model_folder_and_nowhere_else(folder: Path, tmp_path: Path) -> None:
    refused = invoke("export", str(folder), "--in-place", "--out", str(tmp_path / "graphs"))
    assert refused.exit_code == 2
    assert "--in-place: expected no --out beside it" in refused.output
    assert invoke("export", str(folder), "--in-place").exit_code == 0
    assert read_certified(folder).facts.family == "realnvp"


def test_the_certificate_is_printed_as_json(folder: Path, tmp_path: Path) -> None:
    result = invoke("export", str(folder), "--out", str(tmp_path / "graphs"), "--json")
    assert json.loads(result.stdout)["precision"] == "float32"
    assert sorted(path.name for path in (tmp_path / "graphs").iterdir()) == [
        "answers.safetensors",
        "certificate.json",
        "decode.onnx",
        "encode.onnx",
    ]
    assert not (folder / "encode.onnx").exists()


def test_a_float64_model_is_exported_in_float64(tmp_path: Path) -> None:
    models.save(make_flow("maf"), tmp_path / "model")
    result = invoke("export", str(tmp_path / "model"), "--json")
    assert json.loads(result.stdout)["precision"] == "float64"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "fp16"], "fp16 is not offered"),
        (["--opset", "9"], "opset: expected 18 .. 23, got 9"),
    ],
)
def test_what_is_not_offered_is_refused(arguments: list[str], message: str, folder: Path) -> None:
    result = invoke("export", str(folder), *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (folder / "encode.onnx").exists()


def test_a_missing_onnxruntime_is_told_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise RuntimeMissing("install the extra cpu")

    monkeypatch.setattr("models.onnx.runtime.load_runtime", missing)
    result = invoke("export", str(folder))
    assert result.exit_code == 2
    assert "error: install the extra cpu" in result.output


def test_inspect_shows_the_certificate_or_the_refusal(folder: Path) -> None:
    assert "onnx" not in json.loads(invoke("inspect", str(folder), "--json").stdout)
    invoke("export", str(folder))
    shown = json.loads(invoke("inspect", str(folder), "--json").stdout)
    assert shown["onnx"]["is_batch_invariant"]
    assert "onnx.log_prob.max" in invoke("inspect", str(folder)).output
    (folder / "decode.onnx").write_bytes(b"nothing")
    shown = json.loads(invoke("inspect", str(folder), "--json").stdout)
    assert shown["onnx"].startswith("refused: ")


def test_what_is_being_done_is_told_on_stderr(folder: Path) -> None:
    result = invoke("export", str(folder), "--json")
    assert result.exit_code == 0, result.output
    json.loads(result.stdout)
    stages = result.stderr.splitlines()
    assert stages[:3] == [
        "loading the model ...",
        "folding and tracing the flow ...",
        "opening encode.onnx in onnxruntime ...",
    ]
    assert stages[-1] == "comparing decode.onnx with the flow ..."


def test_steps_that_are_too_few_are_told_at_once_with_a_number_that_does(tmp_path: Path) -> None:
    models.save(make_flow("ffjord_fourier_context"), tmp_path / "model")
    result = invoke("export", str(tmp_path / "model"), "--fixed-steps", "1")
    assert result.exit_code == 2
    found = re.search(r"fixed_steps: 1 equal steps do not solve \d of 8 golden rows", result.stderr)
    assert found is not None, result.stderr
    assert re.search(r"; take \d+, which solve them", result.stderr)
    assert "folding and tracing" not in result.stderr
