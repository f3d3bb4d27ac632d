"""The examples run as they stand, with nothing but what they say they need."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from models.noise import base_noise
from models.onnx.export import export_folder

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "onnx_only.py"
MODEL = ROOT / "models" / "zoo" / "moons"

# Imports of what stands first in the arguments fail in this process.
_WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# One process for all: what they share is made once.
pytestmark = pytest.mark.xdist_group("examples")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    export_folder(MODEL).write(folder)
    return folder


def run(*arguments: object) -> list[float]:
    """Run the example without PyTorch, onnx and this project."""
    command = [sys.executable, "-c", _WITHOUT, "torch,onnx,models,service", str(EXAMPLE)]
    command += map(str, arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return [float(line) for line in done.stdout.split()]


def test_rows_are_scored_as_by_torch(graphs: Path, tmp_path: Path) -> None:
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "rows.npy", x.numpy())
    scored = run(graphs, "--rows", tmp_path / "rows.npy")
    with torch.no_grad():
        expected = models.load(MODEL).log_prob(x)
    np.testing.assert_allclose(scored, expected, rtol=1e-5, atol=1e-5)


def test_samples_are_those_of_torch_for_the_seed(graphs: Path, tmp_path: Path) -> None:
    log_prob = run(graphs, "--samples", 5, "--seed", 3, "--out", tmp_path / "samples.npy")
    flow = models.load(MODEL)
    z = torch.from_numpy(base_noise(5, 2, seed=3)).float()
    with torch.no_grad():
        x, _ = flow.decode(z)
        np.testing.assert_allclose(np.load(tmp_path / "samples.npy"), x, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(log_prob, flow.log_prob(x), rtol=1e-5, atol=1e-4)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "encode.onnx" in done.stderr
