"""Rational-quadratic splines against a second, slower writing of their formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.transforms.pointwise import Pointwise
from models.transforms.spline import RationalQuadratic

BINS, BOUND = 5, 3.0
SPLINES = {
    "floor": RationalQuadratic(BINS, BOUND),
    "floor_divided": RationalQuadratic(BINS, BOUND, min_bin=0.02, min_slope=0.1, divisor=4.0),
    "soft_clamp": RationalQuadratic(BINS, BOUND, "soft_clamp"),
}
names = pytest.mark.parametrize("name", SPLINES)


def raw_params(*shape: int, scale: float = 1.5) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return scale * torch.randn(*shape, 3 * BINS - 1, generator=generator, dtype=torch.float64)


def knots_and_slopes(name: str, raw: Tensor) -> tuple[NDArray[np.float64], ...]:
    """The parametrisations of nflows and zuko, as their papers' code has them."""
    spline = SPLINES[name]
    widths, heights, slopes = np.split(raw.numpy(), [BINS, 2 * BINS])
    edges = []
    for values in (widths, heights):
        if name == "soft_clamp":
            values = values / (1 + np.abs(2 * values / math.log(1e-3)))
        else:
            values = values / spline.divisor
        shares = np.exp(values) / np.exp(values).sum()
        if name != "soft_clamp":
            shares = spline.min_bin + (1 - spline.min_bin * BINS) * shares
        edges.append(BOUND * (2 * np.concatenate(([0.0], np.cumsum(shares))) - 1))
    if name == "soft_clamp":
        slopes = np.exp(slopes / (1 + np.abs(slopes / math.log(1e-3))))
    else:
        slopes = spline.min_slope + np.log1p(np.exp(slopes))
    return edges[0], edges[1], np.concatenate(([1.0], slopes, [1.0]))


def by_hand(
    x: float, xs: NDArray[np.float64], ys: NDArray[np.float64], ds: NDArray[np.float64]
) -> tuple[float, float]:
    """Value and slope, Durkan et al. 2019, eqs. 4 and 5 of section 3.1."""
    if abs(x) >= BOUND:
        return x, 1.0
    k = int(np.searchsorted(xs, x, side="right")) - 1
    width, height = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
    s, t = height / width, (x - xs[k]) / width
    below = s + (ds[k + 1] + ds[k] - 2 * s) * t * (1 - t)
    value = ys[k] + height * (s * t**2 + ds[k] * t * (1 - t)) / below
    slope = s**2 * (ds[k + 1] * t**2 + 2 * s * t * (1 - t) + ds[k] * (1 - t) ** 2) / below**2
    return value, slope


@names
def test_values_and_slopes_are_those_of_the_formula(name: str) -> None:
    params = raw_params(4)
    for row in params:
        xs = torch.linspace(-4, 4, 101, dtype=torch.float64)
        y, log_slope = SPLINES[name].encode(xs, row.expand(101, -1))
        expected = np.array([by_hand(x, *knots_and_slopes(name, row)) for x in xs.tolist()])
        np.testing.assert_allclose(y.numpy(), expected[:, 0], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(log_slope.exp().numpy(), expected[:, 1], rtol=1e-10)


@names
def test_knots_are_met_exactly_and_the_slope_is_continuous(name: str) -> None:
    row = raw_params()
    xs, ys, slopes = (torch.from_numpy(values) for values in knots_and_slopes(name, row))
    tiny = 1e-9
    for offset in (-tiny, 0.0, tiny):
        at = xs + offset
        y, log_slope = SPLINES[name].encode(at, row.expand(len(at), -1))
        assert (y - ys).abs().max() <= 1e-13 + 20 * abs(offset)
        assert (log_slope.exp() - slopes).abs().max() <= 1e-5
        x, back = SPLINES[name].decode(ys + offset, row.expand(len(at), -1))
        assert (x - xs).abs().max() <= 1e-11 + 20 * abs(offset)
        assert (back.exp() * slopes - 1).abs().max() <= 1e-4


@names
def test_tails_are_the_identity(name: str) -> None:
    x = torch.tensor([-1e300, -4.0, -BOUND, BOUND, math.nextafter(BOUND, 4.0), 7.5, 1e300])
    x = x.double().requires_grad_()
    params = raw_params(len(x)).requires_grad_()
    for step in (SPLINES[name].encode, SPLINES[name].decode):
        y, log_slope = step(x, params)
        assert torch.equal(y, x)
        assert not log_slope.any()
        gradients = torch.autograd.grad(y.sum() + log_slope.sum(), (x, params))
        assert torch.equal(gradients[0], torch.ones_like(x))
        assert not gradients[1].any()


@names
def test_strictly_increasing_and_undone_by_decode(name: str) -> None:
    x = torch.linspace(-3.5, 3.5, 2001, dtype=torch.float64)
    for row in raw_params(6, scale=3.0):
        params = row.expand(len(x), -1)
        y, log_slope = SPLINES[name].encode(x, params)
        assert (y.diff() > 0).all()
        back, back_log_slope = SPLINES[name].decode(y, params)
        assert (back - x).abs().max() <= 1e-9
        assert (back_log_slope + log_slope).abs().max() <= 1e-8


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
def test_decode_is_right_to_rounding_even_where_the_quadratic_cancels(
    dtype: torch.dtype, bound: float
) -> None:
    """Ill-conditioned points cannot come back to x, but must come back to y."""
    y = torch.linspace(-3, 3, 4000, dtype=dtype)
    params = raw_params(4000, scale=4.0).to(dtype)
    spline = SPLINES["floor"]
    x, log_slope = spline.decode(y, params)
    again, _ = spline.encode(x, params)
    # One rounding of x is worth slope roundings of y.
    allowed = bound * (-log_slope).exp().clamp(min=1)
    assert ((again - y).abs() <= allowed).all()


def test_slopes_agree_with_autograd() -> None:
    x = torch.linspace(-3.2, 3.2, 50, dtype=torch.float64, requires_grad=True)
    params = raw_params(50)
    y, log_slope = SPLINES["floor"].encode(x, params)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, slope.log(), rtol=1e-10, atol=1e-10)


def test_two_bins_that_mirror_keep_zero() -> None:
    spline = RationalQuadratic(2, 1.0)
    y, _ = spline.encode(torch.zeros(1).double(), torch.zeros(1, 5).double())
    assert y.item() == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_bins": 1}, "num_bins: expected at least 2"),
        ({"num_bins": 10, "min_bin": 0.1}, "min_bin: expected less than 1 / 10"),
        ({"bounds": "hard"}, "bounds: expected one of"),
    ],
    ids=["one_bin", "no_room", "bounds"],
)
def test_impossible_splines_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RationalQuadratic(**arguments)


def test_pointwise_moves_the_chosen_features_alone() -> None:
    transform = Pointwise(4, [1, 3], SPLINES["floor"]).double()
    with torch.no_grad():
        transform.params.copy_(raw_params(2).T)
    x = torch.randn(6, 4).double()
    y, log_det = transform.encode(x)
    moved, log_slope = SPLINES["floor"].encode(x[:, [1, 3]], raw_params(2).expand(6, -1, -1))
    assert torch.equal(y[:, [0, 2]], x[:, [0, 2]])
    assert torch.equal(y[:, [1, 3]], moved)
    assert torch.equal(log_det, log_slope.sum(1))


@pytest.mark.parametrize("chosen", [[], [1, 0], [0, 0], [4]])
def test_pointwise_refuses_features_that_are_not_there(chosen: list[int]) -> None:
    with pytest.raises(ValueError, match="chosen: expected ascending features below 4"):
        Pointwise(4, chosen, SPLINES["floor"])


def test_every_parameter_of_a_spline_matters() -> None:
    x = torch.linspace(-2.9, 2.9, 60, dtype=torch.float64)
    for name, index in itertools.product(SPLINES, range(3 * BINS - 1)):
        params = raw_params()
        before, _ = SPLINES[name].encode(x, params.expand(60, -1))
        params[index] += 0.5
        after, _ = SPLINES[name].encode(x, params.expand(60, -1))
        assert (before - after).abs().max() > 1e-4
