"""Model folders that version 0.1.0 wrote: they load, and give the same numbers.

`tests/fixtures/pushforward-0.1.0` was written by the code of that version: a model folder with its
graphs, and what version 0.1.0 computed from it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
from models.checkpoints.folder import digest
from models.onnx.load import read_export
from models.onnx.runtime import load_runtime, open_session
from tests.fixtures import case_folder

# On another machine or with another build numbers differ by rounding, and solvers' steps with it.
ROUNDING = 2e-5


@pytest.fixture(params=["realnvp", "ffjord"])
def case(request: pytest.FixtureRequest) -> Path:
    return case_folder("pushforward-0.1.0", request.param)


@pytest.fixture
def expected(case: Path) -> dict[str, Any]:
    with np.load(case / "expected.npz") as archive:
        return dict(archive)


def compare(expected: dict[str, Any], engine: str, found: dict[str, Any]) -> None:
    """Bit for bit by the same build of onnxruntime; in torch the processor has a say in it."""
    here = {
        "onnxruntime": load_runtime().__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    is_same = engine in here and all(
        expected[f"made_with_{name}"] == here[name] for name in (engine, "cpu")
    )
    for name, value in found.items():
        wanted = expected[f"{engine}_{name}"]
        assert np.asarray(value).dtype == wanted.dtype
        if is_same:
            np.testing.assert_array_equal(value, wanted, err_msg=name)
        np.testing.assert_allclose(value, wanted, rtol=ROUNDING, atol=ROUNDING, err_msg=name)


def test_its_flow_is_the_same(case: Path, expected: dict[str, Any]) -> None:
    flow = models.load(case / "model")
    assert flow.provenance == {"trained_on": "nothing: weights drawn from seed 7"}
    x, z = torch.from_numpy(expected["x"]), torch.from_numpy(expected["z"])
    with torch.no_grad():
        encoded, log_det = flow.encode(x)
        decoded, decoded_log_det = flow.decode(z)
        found = {
            "z": encoded,
            "log_det": log_det,
            "log_prob": flow.log_prob(x),
            "x": decoded,
            "x_log_det": decoded_log_det,
        }
    compare(expected, "torch", {name: value.numpy() for name, value in found.items()})


def test_its_graphs_are_taken_and_are_the_same(case: Path, expected: dict[str, Any]) -> None:
    folder = case / "model"
    graphs = read_export(folder, models.load(folder), digest(folder))
    encode, decode = open_session(graphs.encode), open_session(graphs.decode)
    encoded = encode.run(["z", "log_det", "log_prob"], {"x": expected["x"]})
    found = dict(zip(("z", "log_det", "log_prob"), encoded, strict=True))
    decoded = decode.run(["x", "log_det"], {"z": expected["z"]})
    found |= dict(zip(("x", "x_log_det"), decoded, strict=True))
    compare(expected, "onnxruntime", found)
