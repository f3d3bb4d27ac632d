"""Planar and radial maps where they are steepest, and at the points where a formula could break."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import models
from models.fold import fold
from models.monotone.planar import Planar, PlanarActivation, solve_tanh
from models.transforms.radial import Radial
from models.transforms.transform import Transform

LENGTHS = torch.tensor([0.0, 1e-9, 1e-3, 0.4, 3.0, 1e3]).double()


def planar(activation: PlanarActivation, along: float) -> Planar:
    """One along the first axis, whose w v is given: the steepness is its softplus."""
    made = Planar(2, activation, negative_slope=0.2).double()
    with torch.no_grad():
        made.w.copy_(torch.tensor([1.0, 0.0]))
        made.v.copy_(torch.tensor([along, 0.7]))
        made.b.zero_()
    return made


def radial(alpha: float, beta: float) -> Radial:
    made = Radial(2).double()
    with torch.no_grad():
        made.alpha.fill_(alpha)
        made.beta.fill_(beta)
        made.point.zero_()
    return made


MAPS: dict[str, Callable[[], Transform]] = {
    "tanh, nearly flat": lambda: planar("tanh", -20.0),
    "tanh, steep": lambda: planar("tanh", 50.0),
    "leaky, nearly flat": lambda: planar("leaky_relu", -5.0),
    "leaky, steep": lambda: planar("leaky_relu", 50.0),
    "drawn in": lambda: radial(2.0, -15.0),
    "pushed out": lambda: radial(-1e-9, 3.0),
}


@pytest.mark.parametrize("name", MAPS)
@torch.no_grad()
def test_steep_maps_lead_back_and_their_log_dets_cancel(name: str) -> None:
    made = MAPS[name]()
    y = torch.stack((torch.cat((-LENGTHS, LENGTHS)), torch.full((12,), 0.1).double()), 1)
    x, there = made.decode(y)
    again, back = made.encode(x)
    assert torch.allclose(again, y, rtol=1e-12, atol=1e-10)
    assert torch.allclose(there, -back, rtol=1e-6, atol=1e-6)
    assert there.isfinite().all()


def test_the_inverse_of_tanh_is_its_root_to_the_last_bits() -> None:
    value = torch.cat((-LENGTHS, LENGTHS))[:, None]
    for steepness in (1e-9, 0.3, 1.0, 40.0):
        t = solve_tanh(value, torch.tensor([steepness], dtype=torch.float64))
        error = t + (steepness - 1) * t.tanh() - value
        assert float((error / value.abs().clamp(min=1)).abs().max()) <= 2e-14


@pytest.mark.parametrize("decoding", [False, True])
def test_the_centre_of_a_radial_map_has_a_density_and_gradients(decoding: bool) -> None:
    made = radial(0.5, 1.0)
    x = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    value, log_det = made.decode(x) if decoding else made.encode(x)
    # At the centre both directions are scaled by s / a.
    scale = torch.log(torch.nn.functional.softplus(torch.tensor(1.0).double()) / 0.5)
    assert float(log_det.detach()) == pytest.approx(float(-2 * scale if decoding else 2 * scale))
    assert not value.detach().any()
    (gradient,) = torch.autograd.grad(log_det.sum() + value.sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("formula", ["encode", "decode"])
@torch.no_grad()
def test_a_row_keeps_its_bits_beside_others(formula: str) -> None:
    torch.manual_seed(3)
    layers = [
        {"kind": kind, "formula": formula} for kind in ("planar", "radial", "planar", "radial")
    ]
    flow = fold(models.build("chain", {"event_shape": [3], "layers": layers}))
    rows = torch.randn(37, 3)
    for call in (flow.encode, flow.decode):
        together = call(rows)
        alone = [call(row) for row in rows.split(1)]
        for index, part in enumerate(together):
            assert torch.equal(part, torch.cat([one[index] for one in alone]))


def test_either_direction_may_have_the_formula() -> None:
    flows = []
    for formula in ("encode", "decode"):
        torch.manual_seed(5)
        flows.append(
            models.build("planar", {"event_shape": [2], "num_layers": 1, "formula": formula})
        )
    x: Tensor = torch.randn(4, 2)
    with torch.no_grad():
        assert torch.equal(flows[0].encode(x)[0], flows[1].decode(x)[0])
        assert torch.equal(flows[0].decode(x)[1], flows[1].encode(x)[1])


@pytest.mark.parametrize("family", ["planar", "radial"])
def test_a_context_that_nothing_takes_is_refused(family: str) -> None:
    with pytest.raises(ValueError, match=r"take no context.*give base=conditional"):
        models.build(family, {"event_shape": [2], "context_features": 3})
