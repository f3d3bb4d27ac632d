"""The normal distribution function, and the uniform base that is made with it."""

import math

import numpy as np
import pytest
import torch
from scipy import special

from models.registry import build
from models.transforms.normal import erfcx, log_normal_cdfs, normal_quantile
from models.transforms.uniform import UniformToNormal

LOW, HIGH = -2.0, math.pi + 1e-5


def test_the_normal_distribution_function_keeps_its_digits() -> None:
    y = torch.cat([torch.linspace(0, 30, 3001), torch.logspace(1, 6, 50)]).double()
    np.testing.assert_allclose(erfcx(y).numpy(), special.erfcx(y.numpy()), rtol=2e-15)
    z = torch.linspace(-8, 40, 3001).double()
    expected = special.log_ndtr(-z.numpy())
    below, above = (tail.numpy() for tail in log_normal_cdfs(z))
    np.testing.assert_allclose(above, expected, rtol=3e-14)
    np.testing.assert_allclose(below, special.log_ndtr(z.numpy()), rtol=1e-12, atol=1e-300)


def test_quantiles_invert_it_however_far_out() -> None:
    log_tail = -torch.logspace(math.log10(math.log(2)), 8, 3001).double()
    z = normal_quantile(log_tail)
    torch.testing.assert_close(log_normal_cdfs(z)[1], log_tail, rtol=2e-15, atol=2e-15)
    expected = -special.ndtri(np.exp(log_tail[:900].numpy()))
    np.testing.assert_allclose(z[:900].numpy(), expected, rtol=1e-14, atol=1e-15)


def test_the_derivative_of_quantiles_is_exact() -> None:
    log_tail = torch.tensor([-0.7, -1.0, -30.0, -1e4]).double().requires_grad_()
    z = normal_quantile(log_tail)
    (slope,) = torch.autograd.grad(z.sum(), log_tail)
    # d log(1 - Phi(z)) / dz = -phi(z) / (1 - Phi(z))
    expected = -math.sqrt(math.pi / 2) * erfcx(z.detach() * math.sqrt(0.5))
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=0.0)


def uniform(dtype: torch.dtype = torch.float64) -> UniformToNormal:
    return UniformToNormal(2, [1], [LOW], [HIGH]).to(dtype)


def test_the_density_is_that_of_the_box() -> None:
    layers = [{"kind": "uniform", "chosen": [0], "low": [LOW], "high": [HIGH]}]
    flow = build("chain", {"event_shape": [1], "layers": layers}).double()
    x = torch.linspace(LOW, HIGH, 1001, dtype=torch.float64)[:, None]
    expected = torch.full((1001,), -math.log(HIGH - LOW), dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0.0, atol=1e-12)
    outside = torch.tensor([[LOW - 1e-9], [HIGH + 1e-9]], dtype=torch.float64)
    assert torch.equal(flow.log_prob(outside), torch.tensor([-math.inf, -math.inf]).double())
    assert flow.encode(outside)[0].isfinite().all()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-15), (torch.float32, 3e-7)])
def test_values_near_the_ends_come_back(dtype: torch.dtype, bound: float) -> None:
    base = uniform(dtype)
    near = torch.logspace(-14, -1, 50, dtype=torch.float64)
    x = torch.cat([LOW + near, HIGH - near]).to(dtype)
    x = x[(x.double() >= LOW) & (x.double() <= HIGH)]
    rows = torch.stack([x, x], 1)
    z, log_det = base.encode(rows)
    back, log_det_back = base.decode(z)
    assert torch.equal(z[:, 0], x)  # not chosen
    torch.testing.assert_close(back, rows, rtol=bound, atol=0.0)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-5, atol=1e-12)


def test_a_box_in_float32_keeps_its_ends() -> None:
    found = uniform(torch.float32).box.get_buffer("high")
    assert float(found[1]) == HIGH


@pytest.mark.parametrize(
    ("chosen", "low", "high", "message"),
    [
        ([2], [0.0], [1.0], "chosen: expected ascending features below 2, got \\[2\\]"),
        ([0, 1], [0.0, 0.0, 0.0], [1.0], "one number for all or 2, one a chosen feature, got 3"),
        ([0, 1], [0.0, 1.0], [1.0], "expected low < high"),
    ],
)
def test_boxes_that_are_none_are_refused(
    chosen: list[int], low: list[float], high: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        UniformToNormal(2, chosen, low, high)
