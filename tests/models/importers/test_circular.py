"""Flows over circles: what the sources do at the borders, and what an import makes of it."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from models.flow import Flow
from models.importers.report import ImportRefused, Report
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


PLAIN = "normflows_circular_plain_shift"
TURN = {"bound": math.pi, "shift": 0.7}


def import_plain(folder: Path, last: int, **config: Any) -> tuple[Flow, Report]:
    """The flow of plain shifts up to one of its places."""
    case = load(PLAIN)
    state = torch.load(case.checkpoint, weights_only=True)
    behind = tuple(f"flows.{place}." for place in range(last + 1, 9))
    kept = {key: value for key, value in state.items() if not key.startswith(behind)}
    torch.save(kept, folder / "model.pt")
    base = {key: case.config[key] for key in ("activation", "ind_circ", "tail_bound")}
    return run(folder / "model.pt", Request(None, {**base, **config}, "none"))


def turned(x: Tensor, bound: float, shift: float) -> Tensor:
    return torch.remainder(x - shift + bound, 2 * bound) - bound


@torch.no_grad()
@pytest.mark.parametrize(
    ("last", "plain", "ended"),
    [
        (0, {"num_flows": 1}, TURN),
        (2, TURN, {**TURN, "num_flows": 4}),
        (2, TURN, {**TURN, "layers": "spline, PeriodicShift, spline, PeriodicWrap"}),
    ],
    ids=["alone", "num_flows", "layers"],
)
def test_a_shift_at_the_end_is_said_by_its_numbers(
    tmp_path: Path, last: int, plain: dict[str, Any], ended: dict[str, Any]
) -> None:
    x = load(PLAIN).arrays["x"]
    behind = x.clone()
    behind[:, [0, 2]] = turned(x[:, [0, 2]], **TURN)
    without, _ = import_plain(tmp_path, last, **plain)
    flow, report = import_plain(tmp_path, last, **ended)
    assert relative_error(flow.log_prob(x), without.log_prob(behind)) <= 1e-11
    assert not any(item.what == "num_flows" for item in report.items)


def test_a_shift_at_the_end_that_is_not_given_is_warned_of(tmp_path: Path) -> None:
    _, report = import_plain(tmp_path, 0)
    assert "num_flows" in [item.what for item in report.items if item.kind == "warning"]
    with pytest.raises(ImportRefused, match=r"shift: flows\.1 is a PeriodicShift"):
        import_plain(tmp_path, 0, bound=1.0)
    with pytest.raises(ImportRefused, match=r"num_flows: 2 was given, but flows\.2 is in"):
        import_plain(tmp_path, 2, **TURN, num_flows=2)


@torch.no_grad()
def test_shifts_among_linear_splines_are_told_from_swaps(tmp_path: Path) -> None:
    case = load("normflows_nsf_coupling_a")
    state = torch.load(case.checkpoint, weights_only=True)
    moved = {
        re.sub(r"^flows\.(\d+)", lambda match: f"flows.{int(match[1]) + 1}", key): value
        for key, value in state.items()
    }
    torch.save(moved, tmp_path / "model.pt")
    turn = {"bound": 9.0, "shift": 2.5}
    config = {"activation": case.config["activation"], "tail_bound": case.config["tail_bound"]}
    config |= {"ind_circ": [0], **turn}
    flow, _ = run(tmp_path / "model.pt", Request(None, config, "none"))
    z, _ = case.flow().encode(case.arrays["x"])
    z[:, 0] = turned(z[:, 0], **turn)
    assert relative_error(flow.encode(case.arrays["x"])[0], z) <= 1e-9
