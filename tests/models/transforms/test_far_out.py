"""Where numbers overflow, underflow or meet an end: a log-density, or minus infinity, never NaN."""

import math

import pytest
import torch

from models.flow import Flow
from models.monotone.planar import Planar
from models.registry import build
from models.transforms.beta import BetaToNormal
from models.transforms.inverse_softplus import InverseSoftplus
from models.transforms.normal import log_normal_tail, normal_quantile
from models.transforms.radial import Radial
from tests.cases import make_flow

FAR = {torch.float32: 1e20, torch.float64: 1e200}


@pytest.mark.parametrize("dtype", FAR)
@pytest.mark.parametrize("name", ["radial", "radial_from_latents", "gf_context", "chain_mixtures"])
@torch.no_grad()
def test_far_out_is_no_density(name: str, dtype: torch.dtype) -> None:
    flow = make_flow(name).to(dtype)
    x = torch.full((1, *flow.event_shape), FAR[dtype], dtype=dtype)
    context = None if flow.context_shape is None else torch.zeros(1, *flow.context_shape).to(dtype)
    assert float(flow.log_prob(x, context)) < -1e30


@pytest.mark.parametrize("exponent", [1, 2, 3])
@torch.no_grad()
def test_latents_of_a_beta_base_have_log_dets_however_far(exponent: int) -> None:
    base = BetaToNormal(1, [0], [0.0], [1.0], exponent=exponent)
    x, log_det = base.decode(torch.tensor([[39.0], [-60.0], [90.0]]))
    assert ((x >= 0) & (x <= 1)).all()
    assert (log_det.isfinite() & (log_det < -200)).all()


@torch.no_grad()
def test_quantiles_of_what_cannot_be_have_a_size() -> None:
    size = normal_quantile(torch.tensor([-math.inf, -1e300, -1e4], dtype=torch.float64))
    assert size.isfinite().all()
    torch.testing.assert_close(log_normal_tail(size[-1:])[0].item(), -1e4)


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_ends_of_a_circle_have_a_density_in_float32(layers: int) -> None:
    config = {"event_shape": [1], "num_layers": layers, "circular": [0]}
    torch.manual_seed(0)
    flow = build("nsf", {**config, "structure": "autoregressive"}).eval()
    angles = torch.tensor([[0.0], [math.pi], [-math.pi]])
    wide = flow.log_prob(angles)
    torch.testing.assert_close(
        wide.double(), flow.double().log_prob(angles.double()), atol=1e-4, rtol=0
    )
    outside = flow.float().log_prob(torch.tensor([[3.1416]]))
    assert outside.isinf().all()


@pytest.mark.parametrize("value", [1e-45, 1e-38, 1e-30])
@torch.no_grad()
def test_the_least_positive_numbers_have_a_logarithm(value: float) -> None:
    y, log_det = InverseSoftplus(1, [0], [0.5]).encode(torch.tensor([[value]]))
    assert y.isfinite().all()
    assert log_det.isfinite().all()


@torch.no_grad()
def test_maps_without_a_direction_or_a_reach() -> None:
    planar, radial = Planar(2), Radial(2)
    planar.w.zero_()
    radial.alpha.zero_()
    x = torch.zeros(1, 2)
    assert all(part.isfinite().all() for part in planar.encode(x))
    y, log_det = radial.encode(radial.point[None])
    _, back = radial.decode(y)
    torch.testing.assert_close(back, -log_det)


def test_norms_of_an_iaf_see_each_batch_once() -> None:
    """Not the guesses of the iteration, and the rows of the batch as they are solved."""
    net = {"kind": "resnet", "widths": [8], "batch_norm": True}
    flow: Flow = build("iaf", {"event_shape": [4], "num_layers": 1, "conditioner": net})
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    flow.train().log_prob(x).mean().backward()
    counts = [int(value) for key, value in flow.named_buffers() if key.endswith("batches_tracked")]
    assert counts
    assert set(counts) == {1}
