import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal

from models.conditioners.conv import GlowNet, ScaledConv2d
from models.flow import Flow
from models.registry import build
from models.training.initialisation import initialise_actnorm
from models.transforms.actnorm import ActNorm
from models.transforms.coupling import Coupling
from models.transforms.permute import Permute
from models.transforms.split import Chain, FactorOut
from models.transforms.squeeze import Squeeze
from tests.cases import CASES, make_flow, make_inputs, perturb

SMALL = {"event_shape": [2, 4, 4], "num_levels": 2, "num_steps": 1, "hidden_channels": 4}


def glow(seed: int = 0, **changes: Any) -> Flow:
    torch.manual_seed(seed)
    return perturb(build("glow", SMALL | changes).double(), 0.1).eval()


def image(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def before_split(flow: Flow, x: Tensor) -> tuple[Tensor, Tensor, FactorOut]:
    """Run the first level up to its split prior and `FactorOut`."""
    total = x.new_zeros(len(x))
    for transform in flow.chain:
        if isinstance(transform, FactorOut):
            return x, total, transform
        if isinstance(transform, Coupling) and isinstance(transform.conditioner, ScaledConv2d):
            continue
        x, log_det = transform.encode(x)
        total = total + log_det
    raise AssertionError("no FactorOut")


@pytest.mark.parametrize("order", ["fine_first", "coarse_first"])
def test_log_prob_is_the_sum_over_levels(order: str) -> None:
    flow = glow(latent_order=order)
    x = image(3, 2, 4, 4)
    with torch.no_grad():
        h, log_det, split = before_split(flow, x)
        kept, fine = h.chunk(2, 1)
        prior = next(
            transform.conditioner
            for transform in flow.chain
            if isinstance(transform, Coupling) and isinstance(transform.conditioner, ScaledConv2d)
        )
        mean, log_std = prior(kept).chunk(2, 1)
        deep, deep_log_det = split.rest.encode(kept)
        fine_log_prob = Normal(mean, log_std.exp()).log_prob(fine).flatten(1).sum(1)
        deep_log_prob = Normal(0.0, 1.0).log_prob(deep).sum(1) + deep_log_det
        assert torch.allclose(flow.log_prob(x), log_det + fine_log_prob + deep_log_prob, rtol=1e-12)
        z, _ = flow.encode(x)
        whitened = ((fine - mean) / log_std.exp()).flatten(1)
    parts = [whitened, deep] if order == "fine_first" else [deep, whitened]
    assert torch.allclose(z, torch.cat(parts, 1), rtol=1e-12)


def test_image_order_puts_the_same_latents_where_their_pixels_were() -> None:
    standard = {"split_prior": "standard", "top_prior": "standard"}
    flat, layout = glow(**standard), glow(**standard, latent_order="image")
    x = image(3, 2, 4, 4)
    z, log_det = flat.encode(x)
    placed, placed_log_det = layout.encode(x)
    fine, deep = z[:, :16].unflatten(1, (4, 2, 2)), z[:, 16:].unflatten(1, (16, 1, 1))
    joined = torch.cat((Squeeze().decode(deep)[0], fine), 1)
    assert torch.equal(placed, Squeeze().decode(joined)[0].flatten(1))
    assert torch.equal(log_det, placed_log_det)


def test_a_class_changes_the_density_and_nothing_else_in_the_context_shape() -> None:
    flow = make_flow("glow_class_conditional_logit")
    assert flow.context_shape == (3,)
    assert flow.facts.num_classes == 3
    assert flow.facts.num_levels == 256
    x = make_inputs("glow_class_conditional_logit", flow, rows=1).x.expand(3, -1, -1, -1)
    assert len(flow.log_prob(x, torch.eye(3).double()).unique()) == 3


def test_a_class_conditional_top_leaves_the_finer_latents_alone() -> None:
    flow = glow(num_classes=2)
    x = image(1, 2, 4, 4).expand(2, -1, -1, -1)
    z, _ = flow.encode(x, torch.eye(2).double())
    assert torch.allclose(z[0, :16], z[1, :16], atol=1e-14)
    assert not torch.isclose(z[0, 16:], z[1, 16:]).any()


def test_a_shuffle_is_saved_with_the_weights() -> None:
    source, target = glow(0, permutation="shuffle"), glow(1, permutation="shuffle")
    shuffles = [
        [module.indices for module in flow.modules() if isinstance(module, Permute)]
        for flow in (source, target)
    ]
    assert not all(map(torch.equal, *shuffles))
    target.load_state_dict(source.state_dict())
    x = image(2, 2, 4, 4)
    assert torch.equal(source.encode(x)[0], target.encode(x)[0])
    assert torch.allclose(target.decode(target.encode(x)[0])[0], x, atol=1e-9)


def test_a_new_glow_only_mixes_and_normalises() -> None:
    torch.manual_seed(0)
    flow = build("glow", SMALL | {"coupling": "additive"}).double()
    x = 7 * image(64, 2, 4, 4) + 3
    assert torch.allclose(flow.encode(x)[1], torch.zeros(64).double(), atol=1e-5)
    initialise_actnorm(flow, x)
    z, log_det = flow.encode(x)
    assert float(z.std().detach()) == pytest.approx(1, abs=0.1)
    assert float(log_det[0].detach()) == pytest.approx(-32 * math.log(7), rel=0.1)


def test_steps_levels_and_widths_are_those_asked_for() -> None:
    flow = build("glow", SMALL | {"num_steps": 3, "hidden_channels": 6, "event_shape": [1, 8, 4]})
    nets = [module for module in flow.modules() if isinstance(module, GlowNet)]
    assert len(nets) == 6
    assert {net.layers[0].weight.shape[0] for net in nets} == {6}
    assert sum(isinstance(module, FactorOut) for module in flow.modules()) == 1
    assert sum(isinstance(module, Chain) for module in flow.modules()) == 1


def normalised(layer: ActNorm, h: Tensor) -> Tensor:
    return (h + layer.shift.view(-1, 1, 1)) * layer.log_scale.exp().view(-1, 1, 1)


def reference_net(net: GlowNet, x: Tensor, slope: float) -> Tensor:
    """Glow's conditioner with actnorm, from its formulas."""
    first, norm_1, _, middle, norm_2, _, output = net.layers
    h = F.conv2d(x, first.weight, padding=1)
    h = F.leaky_relu(normalised(norm_1, h), slope)
    h = F.conv2d(h, middle.weight)
    h = F.leaky_relu(normalised(norm_2, h), slope)
    h = F.conv2d(h, output.conv.weight, output.conv.bias, padding=1)
    return h * (3 * output.log_scale).exp()


@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_the_net_is_glows(slope: float) -> None:
    torch.manual_seed(0)
    net = GlowNet(2, 3, 4, negative_slope=slope).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = image(2, 2, 4, 4)
    assert torch.allclose(net(x), reference_net(net, x, slope), rtol=1e-12)


def test_the_net_starts_at_zero() -> None:
    assert not GlowNet(2, 4, 8)(torch.randn(1, 2, 4, 4)).any()


def test_padding_with_ones_shows_at_the_border() -> None:
    conv = ScaledConv2d(1, 1, padding="ones", log_scale_factor=None)
    torch.nn.init.ones_(conv.conv.weight)
    expected = [[5.0, 3.0, 5.0], [3.0, 0.0, 3.0], [5.0, 3.0, 5.0]]
    assert conv(torch.zeros(1, 1, 3, 3))[0, 0].tolist() == expected


def test_middle_padding_frames_the_image_with_activated_biases() -> None:
    torch.manual_seed(0)
    net = GlowNet(1, 1, 2, output_padding="middle", log_scale_factor=1.0).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    first, norm_1, _, middle, norm_2, _, output = net.layers
    x = image(2, 1, 3, 3)
    h = norm_2(middle.weight.new_zeros(2, 2, 5, 5))
    h[:, :, 1:-1, 1:-1] = norm_2(F.conv2d(F.relu(norm_1(first(x))), middle.weight))
    expected = F.conv2d(F.relu(h), output.conv.weight, output.conv.bias) * output.log_scale.exp()
    assert torch.allclose(net(x), expected, rtol=1e-12)


def test_batch_norm_uses_running_statistics_when_evaluated() -> None:
    torch.manual_seed(0)
    net = GlowNet(2, 2, 4, normalisation="batch_norm")
    torch.nn.init.normal_(net.layers[-1].conv.weight)
    x = torch.randn(8, 2, 4, 4) + 5
    net.train()(x)
    together, alone = net.eval()(x), net.eval()(x[:1])
    assert torch.allclose(together[:1], alone, atol=1e-6)
    assert [type(layer).__name__ for layer in net.layers] == [
        *("BatchNorm2d", "ReLU", "Conv2d") * 2,
        *("BatchNorm2d", "ReLU", "ScaledConv2d"),
    ]


WRONG = {
    "sides": ({"event_shape": [1, 6, 8]}, r"divisible by 2\^\(num_levels\) = 4, got 6 x 8"),
    "class without prior": (
        {"num_classes": 3, "top_prior": "standard"},
        "num_classes: expected a top_prior or split_prior",
    ),
    "one level has no split": (
        {
            "num_classes": 3,
            "num_levels": 1,
            "split_prior": "element",
            "top_prior": "standard",
        },
        "num_classes: expected a top_prior or split_prior",
    ),
    "permutation": ({"permutation": "random"}, "permutation"),
    "shape": ({"event_shape": [4, 4]}, "event_shape"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_wrong_configurations_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("glow", SMALL | changes)


def test_the_cases_use_every_option() -> None:
    used: dict[str, set[str]] = {}
    for case in CASES.values():
        if case.family == "glow":
            for key, value in build("glow", case.config).config.items():
                used.setdefault(key, set()).add(str(value))
    assert used["permutation"] == {"conv", "lu_conv", "qr_conv", "reverse", "shuffle"}
    assert used["normalisation"] == {"none", "actnorm", "batch_norm"}
    assert used["output_padding"] == {"zeros", "ones", "middle"}
    assert used["split_prior"] == {"standard", "conv", "channel", "element"}
    assert used["top_prior"] == {"standard", "channel", "element"}
    assert used["latent_order"] == {"fine_first", "coarse_first", "image"}
    assert used["actnorm_storage"] == {"log", "direct"}
    assert used["keep_first"] == {"True", "False"}


def test_inner_actnorms_take_the_outer_form() -> None:
    flow = build("glow", SMALL | {"actnorm_form": "scale_then_shift", "actnorm_storage": "direct"})
    layers = [module for module in flow.modules() if isinstance(module, ActNorm)]
    assert {(layer.form, layer.storage) for layer in layers} == {("scale_then_shift", "direct")}
