"""Flows over circles: densities of angles, without a border."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.datasets import Dataset, DatasetError
from models.registry import build
from models.training.defaults import fill_defaults
from models.transforms.circular import CircularShift, CircularSpline
from tests.cases import perturb

TORUS = {
    "event_shape": [2],
    "num_layers": 2,
    "num_bins": 4,
    "circular": [0, 1],
    "conditioner": {"kind": "mlp", "widths": [8]},
}


def torus(**arguments: Any) -> Any:
    torch.manual_seed(0)
    return perturb(build("nsf", {**TORUS, **arguments}).double(), 0.5).eval()


@pytest.mark.parametrize("structure", ["coupling", "autoregressive"])
@torch.no_grad()
def test_the_density_integrates_to_one_over_the_torus(structure: str) -> None:
    flow = torus(structure=structure)
    steps = 240
    axis = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps * 2 * math.pi - math.pi
    log_prob = flow.log_prob(torch.cartesian_prod(axis, axis))
    mass = float(log_prob.exp().sum()) * (2 * math.pi / steps) ** 2
    assert abs(mass - 1) <= 1e-3
    assert float(log_prob.max() - log_prob.min()) > 1


@torch.no_grad()
def test_pi_is_minus_pi() -> None:
    for structure in ("coupling", "autoregressive"):
        flow = torus(structure=structure)
        around = torch.tensor([math.pi, -math.pi], dtype=torch.float64)
        inner = torch.tensor([0.4, 0.4], dtype=torch.float64)
        for columns in ((around, inner), (inner, around)):
            first, second = flow.log_prob(torch.stack(columns, 1)).tolist()
            assert abs(first - second) <= 1e-9


@torch.no_grad()
def test_outside_there_is_no_density_and_pi_in_float32_is_inside() -> None:
    flow = torus()
    assert (flow.facts.support.low, flow.facts.support.high) == (-math.pi, math.pi)
    for column in range(2):
        x = torch.zeros(2, 2, dtype=torch.float64)
        x[:, column] = torch.tensor([3.15, float(np.float32(math.pi))])
        log_prob = flow.log_prob(x)
        assert log_prob[0] == -math.inf
        assert log_prob[1].isfinite()
        assert flow.encode(x)[0].isfinite().all()


@torch.no_grad()
def test_turns_come_back_and_keep_the_volume() -> None:
    shift = CircularShift(3, [0, 2], [math.pi, 2.0], [0.7, 5.0])
    x = torch.tensor([[3.0, 9.0, -1.9], [-3.0, -9.0, 1.9]], dtype=torch.float64)
    y, log_det = shift.encode(x)
    assert y[:, 1].tolist() == [9.0, -9.0]
    assert (y.abs() <= torch.tensor([math.pi, 9.0, 2.0])).all()
    torch.testing.assert_close(shift.decode(y)[0], x, rtol=0.0, atol=1e-14)
    assert not log_det.any()
    around = torch.tensor([[2 * math.pi, 0.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(shift.encode(x + around)[0], y, rtol=0.0, atol=1e-14)


@torch.no_grad()
def test_slopes_are_those_of_one_knot_where_a_circle_closes() -> None:
    spline = CircularSpline(2, 4, [math.pi, 3.0], circular=[0])
    params = torch.randn(2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ends = torch.tensor([[math.pi, 3.0], [-math.pi, -3.0]], dtype=torch.float64)
    y, log_slope = spline.encode(ends, params.expand(2, -1, -1))
    torch.testing.assert_close(y, ends)
    assert abs(float(log_slope[0, 0] - log_slope[1, 0])) <= 1e-12
    assert abs(float(log_slope[0, 0])) > 1e-2
    assert log_slope[:, 1].abs().max() <= 1e-12  # linear beyond
    outside = 1.1 * ends
    y, log_slope = spline.encode(outside, params.expand(2, -1, -1))
    torch.testing.assert_close(y, outside)
    assert log_slope.tolist() == [[-math.inf, 0.0]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"circular": [2]}, r"circular: expected ascending features below 2, got \[2\]"),
        ({"permutation": "reverse"}, "permutation: expected the default beside circular"),
        ({"base": "learned"}, "their base is uniform"),
    ],
)
def test_what_tears_circles_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("nsf", {**TORUS, **arguments})


def test_training_leaves_angles_as_they_are_and_refuses_degrees(tmp_path: Path) -> None:
    x = np.array([[1.0, 5.0], [-3.0, 7.0], [2.0, 6.0]])
    data = Dataset("angles", x)
    (step,) = fill_defaults("nsf", {"circular": [0]}, data)["preprocessing"]
    assert (step["mean"][0], step["std"][0]) == (0.0, 1.0)
    assert step["mean"][1] == 6.0
    with pytest.raises(DatasetError, match=r"has values from 5 to 7; circular features are angles"):
        fill_defaults("nsf", {"circular": [1]}, data)
