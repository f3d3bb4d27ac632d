from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.conditioners.conv import RealNVPResNet, WeightNormConv2d
from models.flow import Flow
from models.registry import build
from models.transforms.coupling import CheckerboardCoupling, Coupling
from models.transforms.split import Chain, FactorOut

SMALL = {"event_shape": [1, 4, 4], "num_scales": 2, "mid_channels": 2, "num_blocks": 1}


def fresh(**changes: Any) -> Flow:
    torch.manual_seed(0)
    return build("realnvp_image", SMALL | changes).double().eval()


def image(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("scales", "side"), [(1, 2), (2, 4), (3, 8)])
def test_a_new_flow_keeps_every_latent_at_its_pixel(scales: int, side: int) -> None:
    x = image(2, 1, side, side)
    z, log_det = fresh(event_shape=[1, side, side], num_scales=scales).encode(x)
    assert torch.equal(z, x.flatten(1))
    assert torch.equal(log_det, torch.zeros(2).double())


def test_a_checkerboard_is_factored_out() -> None:
    x = image(2, 1, 4, 4)
    z, _ = fresh(latent_order="fine_first").encode(x)
    fine = torch.cat((x[:, 0, 0::2, 1::2].flatten(1), x[:, 0, 1::2, 0::2].flatten(1)), 1)
    coarse = torch.cat((x[:, 0, 0::2, 0::2].flatten(1), x[:, 0, 1::2, 1::2].flatten(1)), 1)
    assert torch.equal(z, torch.cat((fine, coarse), 1))


def test_the_arrangement_is_the_papers() -> None:
    flow = fresh()
    kinds = [type(transform).__name__ for transform in flow.chain]
    assert kinds == [
        *["CheckerboardCoupling"] * 3,
        "Squeeze",
        *["Coupling"] * 3,
        "Unsqueeze",
        "Squeeze",
        "FactorOut",
        "Unsqueeze",
        "Flatten",
    ]
    split = flow.chain[9]
    assert isinstance(split, FactorOut)
    assert isinstance(split.rest, Chain)
    assert [coupling.parity for coupling in split.rest.chain[:4]] == [0, 1, 0, 1]
    kept = [module.keep.tolist() for module in flow.chain if isinstance(module, Coupling)]
    assert kept == [[2, 3], [0, 1], [2, 3]]


def test_networks_double_in_width_and_only_checkerboards_double_their_input() -> None:
    flow = fresh(mid_channels=3)
    found = [
        (module.conditioner.double_input, len(module.conditioner.input_conv.bias))
        for module in flow.modules()
        if isinstance(module, (CheckerboardCoupling, Coupling))
    ]
    assert found == [(True, 3)] * 3 + [(False, 6)] * 3 + [(True, 6)] * 4


@pytest.mark.parametrize("double_input", [False, True])
def test_the_residual_network(double_input: bool) -> None:
    torch.manual_seed(0)
    net = RealNVPResNet(2, 4, 3, num_blocks=2, double_input=double_input).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    net.input_norm.running_mean += 0.5
    x = image(2, 2, 4, 4)
    h = net.input_norm(x) * (2 if double_input else 1)
    h = conv(net.input_conv, torch.cat((h, -h), 1).relu())
    total = conv(net.input_skip, h)
    for block, skip in zip(net.blocks, net.skips, strict=True):
        inner = conv(block.layers[2], block.layers[0](h).relu())
        h = h + conv(block.layers[5], block.layers[3](inner).relu())
        total = total + conv(skip, h)
    expected = conv(net.output_conv, net.output_norm(total).relu())
    assert torch.allclose(net(x), expected, rtol=1e-10)


def conv(layer: WeightNormConv2d, x: Tensor) -> Tensor:
    norms = layer.direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    size = layer.direction.shape[-1]
    return F.conv2d(x, layer.gain * layer.direction / norms, layer.bias, padding=size // 2)


def test_the_bounded_scale_learns_a_weight_a_channel() -> None:
    shapes = {
        tuple(parameter.shape)
        for key, parameter in fresh().named_parameters()
        if key.endswith("scale_weight")
    }
    assert shapes == {(1, 1, 1), (2, 1, 1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event_shape": [1, 6, 6], "num_scales": 3}, r"divisible by 2\^\(num_scales - 1\) = 4"),
        ({"event_shape": [1, 2, 2]}, "at least 2 pixels at the last scale"),
        ({"num_blocks": -1}, "num_blocks"),
    ],
    ids=["sides", "one pixel", "blocks"],
)
def test_wrong_configurations_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fresh(**changes)


def test_a_u_net_is_told_what_it_has_instead_of_scales() -> None:
    message = (
        r"divisible by 2\^\(number of hidden_channels - 1\) = 2.* or give fewer hidden_channels"
    )
    with pytest.raises(ValueError, match=message):
        build("cnf_unet", {"event_shape": [1, 9, 9]})
