"""`log_model`: a folder in MLflow, loaded again from a run and from the registry."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("mlflow")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of it in a process of its own: MLflow sets up logging for all that it is in."""
    command = [sys.executable, "-m", "tests.pushforward.log_to_mlflow"]
    command.append(str(tmp_path_factory.mktemp("mlflow")))
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_what_is_loaded_is_a_scorer(told: dict[str, Any]) -> None:
    assert told["is_equal"]
    assert told["is_anomaly"] == [True, None, None, True]
    assert told["status"] == ["", "invalid_input: missing", "invalid_input: infinite", ""]


def test_the_registry_has_it_and_takes_other_fields(told: dict[str, Any]) -> None:
    assert 2 == told["flagged"][0] > told["flagged"][1]


def test_the_signature_has_the_names_of_the_model(told: dict[str, Any]) -> None:
    assert told["inputs"] == [
        {"type": "double", "name": name, "required": True} for name in ("x1", "x2")
    ]
    assert [column["name"] for column in told["outputs"] if column["required"]] == ["status"]
    assert told["picture"][0]["name"] == "x"
    assert told["latents"] == 28 * 28 + 2  # log_det, status


def test_the_folder_and_what_reads_it_are_stored(told: dict[str, Any]) -> None:
    assert told["is_copied"]
    version = metadata.version("pushforward")
    assert f"pushforward[mlflow,onnx]=={version}" in told["requirements"]


def test_what_cannot_be_logged_is_refused(told: dict[str, Any]) -> None:
    sample, score = told["refused"]
    assert sample == "operation: expected one that takes rows, got 'sample'"
    assert score == "score has no field 'beta'"
