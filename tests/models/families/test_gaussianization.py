"""Gaussianization maps: mixtures of normals become normal, and nothing is lost far out."""

import math

import pytest
import torch
from torch import Tensor

from models.monotone.gaussianization import Gaussianization
from models.registry import build


def params(components: int, features: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(features, 2 * components, generator=generator, dtype=torch.float64)


def test_a_mixture_becomes_normal() -> None:
    scalar, raw = Gaussianization(4), params(4)
    x = torch.linspace(-40, 40, 4001, dtype=torch.float64)[:, None]
    z, log_slope = scalar.encode(x, raw.expand(len(x), 1, -1))
    density = torch.distributions.Normal(0.0, 1.0).log_prob(z) + log_slope
    shift, log_scale = raw[0].chunk(2)
    component = torch.distributions.Normal(-shift * (-log_scale).exp(), (-log_scale).exp())
    expected = component.log_prob(x).logsumexp(1, keepdim=True) - math.log(4)
    torch.testing.assert_close(density, expected, rtol=1e-12, atol=1e-12)
    mass = float(density.exp().sum() * (x[1] - x[0]))
    assert abs(mass - 1) < 1e-9


@pytest.mark.parametrize("far", [10.0, 300.0, 1e6])
def test_the_tails_keep_their_digits(far: float) -> None:
    scalar, raw = Gaussianization(3), params(3, 2)
    x = torch.tensor([[far, -far], [0.5 * far, 0.1]], dtype=torch.float64)
    z, log_slope = scalar.encode(x, raw.expand(2, -1, -1))
    back, log_slope_back = scalar.decode(z, raw.expand(2, -1, -1))
    torch.testing.assert_close(back, x, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(-log_slope_back, log_slope, rtol=1e-9, atol=1e-9 * far)


def test_latents_that_no_x_has_end_at_the_bound() -> None:
    scalar, raw = Gaussianization(2, margin=1e-6), params(2, 2)
    z = torch.tensor([[4.8, -4.8], [4.9, -4.9], [30.0, -30.0]], dtype=torch.float64)
    x, _ = scalar.decode(z, raw.expand(3, -1, -1))
    again, _ = scalar.encode(x[:1], raw.expand(1, -1, -1))
    torch.testing.assert_close(again, z[:1], rtol=1e-9, atol=0.0)
    assert x[1:].tolist() == [[10.0, -10.0]] * 2


def test_components_start_apart_and_near_the_identity() -> None:
    maps = [{"kind": "pointwise", "chosen": [0], "elementwise": {"kind": "gaussianization"}}]
    flow = build("chain", {"event_shape": [1], "layers": maps}).double()
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)[:, None]
    assert float((flow.encode(x)[0] - x).abs().max().detach()) < 0.2
    (raw,) = flow.parameters()
    assert len(raw[:8].unique()) == 8
