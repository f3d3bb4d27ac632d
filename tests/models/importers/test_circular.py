"""Flows over circles: what the sources do at the borders, and what an import makes of it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from models.importers.report import ImportRefused
from models.importers.run import Request, run
from tests.models.importers.golden import load, relative_error

pytestmark = pytest.mark.xdist_group("golden")

NORMFLOWS = "normflows_circular_a"


@torch.no_grad()
def test_a_uniform_base_makes_latents_normal_and_samples_come_back() -> None:
    for name in ("zuko_ncsf_a", NORMFLOWS):
        flow = load(name).flow()
        x, log_prob = flow.sample(200, seed=0)
        assert relative_error(flow.log_prob(x), log_prob) <= 1e-9
        z, _ = flow.encode(x)
        again, _ = flow.decode(z)
        assert float((again - x).abs().max()) <= 1e-9
    assert float(load("zuko_ncsf_a").flow().sample(50, seed=1)[0].abs().max()) <= math.pi


@torch.no_grad()
def test_linear_features_keep_their_value_outside_and_circular_ones_have_no_density() -> None:
    case = load(NORMFLOWS)
    flow = case.flow()
    outside = case.arrays["x_outside"]  # of feature 0, a linear one
    z, log_det = flow.encode(outside)
    x, log_det_back = flow.decode(z)
    assert relative_error(x, outside) <= 1e-9
    assert relative_error(-log_det_back, log_det) <= 1e-9
    assert relative_error(flow.log_prob(outside), case.arrays["log_prob_outside"]) > 1e-2
    beyond = case.arrays["x"][:2].clone()
    beyond[0, 1], beyond[1, 3] = 4.0, -3.2
    assert flow.log_prob(beyond).isneginf().all()
    assert flow.encode(beyond)[0].isfinite().all()
    assert "no bijection" in str(case.report())


def test_the_density_is_periodic() -> None:
    flow = load(NORMFLOWS).flow()
    x = torch.tensor([[0.3, math.pi, -0.2, 1.0], [0.3, -math.pi, -0.2, 1.0]], dtype=torch.float64)
    first, second = flow.log_prob(x).tolist()
    # The shifts turn circles of 2 pi in float32.
    assert abs(first - second) <= 1e-5


def config_of(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "source"}


def import_circular(folder: Path, state: dict[str, Any], **config: Any) -> None:
    case = load(NORMFLOWS)
    torch.save(state, folder / "model.pt")
    run(folder / "model.pt", Request(None, {**config_of(case.config), **config}, "none"))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = torch.load(load(NORMFLOWS).checkpoint, weights_only=True)
    with pytest.raises(ImportRefused, match=r"ind_circ: .*the weights say \[1, 3\]"):
        import_circular(tmp_path, state, ind_circ=[0, 3])
    narrow = {**state, "q0.scale": torch.ones(4)}
    with pytest.raises(ImportRefused, match=r"whose circle is 6\.28319 long; expected the same"):
        import_circular(tmp_path, narrow)
    many = {**state, "flows.1.shift": torch.ones(3)}
    with pytest.raises(ImportRefused, match="expected 2 numbers, one each of ind_circ"):
        import_circular(tmp_path, many)
