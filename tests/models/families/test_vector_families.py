"""What NICE, RealNVP, MAF, NSF and chains promise beyond the properties of every flow."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save as to_bytes
from torch import Tensor

import models
from models.checkpoints.folder import CheckpointError
from models.families.stack import make_masks, make_orders
from models.flow import Flow
from models.registry import build
from models.transforms.permute import Permute
from models.transforms.pointwise import Pointwise
from tests.cases import perturb


def moving(family: str, config: dict[str, Any], scale: float = 0.3) -> Flow:
    torch.manual_seed(0)
    return perturb(build(family, config).double(), scale).eval()


# NICE


def test_nice_changes_volume_by_its_scales_alone() -> None:
    """Six additive couplings on 28 x 28 digits: log_det is sum(s), whatever x is."""
    config = {"event_shape": [1, 28, 28], "num_couplings": 6, "widths": [32, 32]}
    flow = moving("nice", config, scale=0.05)
    x = torch.rand(3, 1, 28, 28).double()
    z, log_det = flow.encode(x)
    scales = flow.transforms[-1].log_scale
    torch.testing.assert_close(log_det, scales.sum().expand(3), rtol=0, atol=1e-12)
    back, _ = flow.decode(z)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-12)
    assert (z - x.flatten(1)).abs().min() > 0


def test_nice_couples_as_in_its_paper() -> None:
    flow = moving("nice", {"event_shape": [4], "num_couplings": 1, "widths": [5]})
    coupling, scale = flow.transforms
    x = torch.randn(2, 4).double()
    moved = x[:, 0::2] + coupling.conditioner(x[:, 1::2])
    y = torch.stack((moved[:, 0], x[:, 1], moved[:, 1], x[:, 3]), 1)
    torch.testing.assert_close(flow.encode(x)[0], scale.log_scale.exp() * y)


def test_logistic_base_is_the_logistic_density() -> None:
    config = {"event_shape": [3], "num_couplings": 2, "widths": [6]}
    normal = moving("nice", config)
    logistic = moving("nice", {**config, "base": "logistic"})
    x = torch.tensor([[0.3, -2.0, 1.0], [40.0, -500.0, 3000.0], [0.0, 0.0, 0.0]]).double()
    h, log_det = normal.encode(x)
    expected = (-F.softplus(h) - F.softplus(-h)).sum(1) + log_det
    torch.testing.assert_close(logistic.log_prob(x), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_logistic_base_keeps_its_digits_in_the_tails(dtype: torch.dtype, bound: float) -> None:
    flow = build("chain", {"event_shape": [1], "layers": [{"kind": "logistic"}]})
    size = torch.logspace(-6, 6, 500, dtype=torch.float64)
    x = torch.cat((-size, torch.zeros(1), size, torch.linspace(-9, 9, 999))).to(dtype)[:, None]
    z, log_det = flow.encode(x)
    back, back_log_det = flow.decode(z)
    allowed = bound * x[:, 0].abs().clamp(min=1)
    assert ((back - x)[:, 0].abs() <= allowed).all()
    assert ((log_det + back_log_det).abs() <= allowed).all()
    wide = x[:, 0].double()
    zero = torch.zeros_like(wide)
    expected = -torch.logaddexp(wide, zero) - torch.logaddexp(-wide, zero)
    assert ((flow.log_prob(x).double() - expected).abs() <= allowed).all()


def test_logistic_base_meets_the_normal_quantiles() -> None:
    flow = build("chain", {"event_shape": [1], "layers": [{"kind": "logistic"}]})
    # Quantiles of the normal at 0.975 and 1e-10, and its mean.
    quantiles, chances = [1.959963984540054, -6.361340902404056, 0.0], [0.975, 1e-10, 0.5]
    z = torch.tensor(quantiles, dtype=torch.float64)[:, None]
    x = torch.tensor([math.log(p / (1 - p)) for p in chances], dtype=torch.float64)[:, None]
    torch.testing.assert_close(flow.encode(x)[0], z, rtol=1e-14, atol=0)
    torch.testing.assert_close(flow.decode(z)[0], x, rtol=1e-14, atol=0)


def test_logistic_base_has_its_slope_at_zero() -> None:
    flow = build("chain", {"event_shape": [1], "layers": [{"kind": "logistic"}]})
    zero = torch.zeros(1, 1).double().requires_grad_()
    for step in (flow.encode, flow.decode):
        value, log_det = step(zero)
        (slope,) = torch.autograd.grad(value.sum(), zero)
        torch.testing.assert_close(slope.log().squeeze(), log_det.squeeze().detach())


# RealNVP


@pytest.mark.parametrize("coupling", ["affine", "additive"])
def test_realnvp_couples_as_in_its_paper(coupling: str) -> None:
    config = {"event_shape": [4], "num_layers": 1, "coupling": coupling}
    flow = moving("realnvp", {**config, "conditioner": {"kind": "mlp", "widths": [5]}})
    layer = flow.transforms[0]
    x = torch.randn(2, 4).double()
    raw = layer.conditioner(x[:, 1::2])
    log_scale = torch.zeros(2, 2).double()
    if coupling == "affine":
        log_scale = layer.elementwise.scale_weight * torch.tanh(raw[:, 2:])
    moved = x[:, 0::2] * log_scale.exp() + raw[:, :2]
    z, log_det = flow.encode(x)
    torch.testing.assert_close(z[:, 0::2], moved)
    assert torch.equal(z[:, 1::2], x[:, 1::2])
    torch.testing.assert_close(log_det, log_scale.sum(1))


def two_moons(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    angle = math.pi * torch.rand(rows, generator=generator)
    upper = torch.arange(rows) % 2 == 0
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack((x, y), 1) + 0.1 * torch.randn(rows, 2, generator=generator)


def test_five_affine_couplings_learn_two_moons() -> None:
    """The lecture example: better than the best Gaussian by more than half a nat."""
    data = two_moons(512)
    torch.manual_seed(0)
    net = {"kind": "mlp", "widths": [32, 32]}
    flow = build("realnvp", {"event_shape": [2], "num_layers": 5, "conditioner": net})
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-2)
    # At step 150 the last bits of the CPU still decide whether it is there.
    for _ in range(300):
        optimiser.zero_grad()
        loss = -flow.log_prob(data).mean()
        loss.backward()
        optimiser.step()
    gaussian = torch.distributions.MultivariateNormal(data.mean(0), data.T.cov())
    assert loss.item() < -gaussian.log_prob(data).mean().item() - 0.5


# What they share


def test_learned_base_is_a_gaussian() -> None:
    config = {"event_shape": [3], "num_layers": 1, "conditioner": {"kind": "mlp", "widths": [4]}}
    plain, learned = moving("realnvp", config), moving("realnvp", {**config, "base": "learned"})
    base = learned.transforms[-1]
    x = torch.randn(4, 3).double()
    y, log_det = plain.encode(x)
    normal = torch.distributions.Normal(base.mean, base.log_std.exp())
    torch.testing.assert_close(learned.log_prob(x), normal.log_prob(y).sum(1) + log_det)


def test_layers_come_in_the_documented_order() -> None:
    flow = build(
        "realnvp",
        {
            "event_shape": [2, 2],
            "num_layers": 2,
            "actnorm": {},
            "permutation": "reverse",
            "linear": {},
            "batch_norm": {},
            "final_mixing": True,
            "base": "learned",
            "preprocessing": [{"kind": "shift_scale", "scale": 2.0}],
        },
    )
    step = ["ActNorm", "Permute", "LULinear", "Coupling", "BatchNorm"]
    expected = ["ShiftScale", "Flatten", *step, *step, "Permute", "LULinear", "GaussianPrior"]
    assert [type(transform).__name__ for transform in flow.transforms] == expected


def test_unconditional_splines_move_what_the_couplings_keep() -> None:
    flow = build("nsf", {"event_shape": [5], "num_layers": 2, "unconditional": True})
    moved = [t.chosen.tolist() for t in flow.transforms if isinstance(t, Pointwise)]
    assert moved == [[1, 3], [0, 2, 4]]


@pytest.mark.parametrize("structure", ["coupling", "autoregressive"])
@pytest.mark.parametrize("divides", [True, False])
def test_splines_divide_by_the_square_root_of_the_width(structure: str, divides: bool) -> None:
    flow = build(
        "nsf",
        {
            "event_shape": [3],
            "num_layers": 1,
            "structure": structure,
            "divide_by_sqrt_width": divides,
            "conditioner": {"kind": "resnet", "widths": [16]},
        },
    )
    assert flow.transforms[0].elementwise.divisor == (4.0 if divides else 1.0)


def test_masks_take_turns() -> None:
    assert make_masks("alternating", 3, 3) == [(0, 1, 0), (1, 0, 1), (0, 1, 0)]
    assert make_masks("half", 5, 2) == [(1, 1, 0, 0, 0), (0, 0, 1, 1, 1)]
    given = ((1, 0), (0, 1), (1, 0))
    assert make_masks(given, 2, 4) == [*given, given[0]]


def test_orders_take_turns() -> None:
    assert make_orders("ascending", 3, 2) == [(0, 1, 2), (0, 1, 2)]
    assert make_orders("alternating", 3, 3) == [(0, 1, 2), (2, 1, 0), (0, 1, 2)]
    assert make_orders("alternating", 5, 2, passes=2) == [(0, 0, 0, 1, 1), (1, 1, 0, 0, 0)]
    assert make_orders(((1, 0),), 2, 2) == [(1, 0), (1, 0)]


def test_classes_are_a_one_hot_context() -> None:
    flow = build("maf", {"event_shape": [3], "num_classes": 4})
    assert (flow.context_shape, flow.facts.num_classes) == ((4,), 4)
    flow = build("maf", {"event_shape": [3], "context_features": 4})
    assert (flow.context_shape, flow.facts.num_classes) == ((4,), None)


SHUFFLED = {"event_shape": [6], "num_layers": 2, "permutation": "shuffle"}


def test_shuffles_travel_with_the_weights() -> None:
    torch.manual_seed(1)
    one = build("realnvp", SHUFFLED)
    torch.manual_seed(2)
    other = build("realnvp", SHUFFLED)
    x = torch.randn(3, 6)
    assert not torch.equal(one.encode(x)[0], other.encode(x)[0])
    other.load_state_dict(one.state_dict())
    z, _ = one.encode(x)
    assert torch.equal(other.encode(x)[0], z)
    assert torch.equal(other.decode(z)[0], one.decode(z)[0])


@pytest.mark.parametrize("indices", [[0, 0, 1], [1, 2, 3], [-1, 0, 1]])
def test_what_is_not_a_permutation_is_refused(indices: list[int]) -> None:
    with pytest.raises(ValueError, match=r"indices: expected a permutation of 0 .. 2"):
        Permute(indices)


def test_a_checkpoint_with_a_broken_permutation_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = build("realnvp", SHUFFLED)
    models.save(flow, tmp_path / "model")
    flow.transforms[0].indices.fill_(3)
    content = to_bytes({key: value.clone() for key, value in flow.state_dict().items()})
    (tmp_path / "model" / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"indices: expected a permutation of 0 .. 5"):
        models.load(tmp_path / "model")


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        ("nice", {"masks": [[1, 0]]}, "mask: expected one entry a feature, 3, got 2"),
        ("realnvp", {"masks": [[1, 1, 1]]}, "mask: expected some ones and some zeros"),
        ("realnvp", {"masks": [[1, 2, 1]]}, "masks"),
        ("realnvp", {"masks": []}, "masks"),
        ("realnvp", {"event_shape": [1]}, "so they take two or more, got one"),
        ("realnvp", {"event_shape": []}, "event_shape"),
        ("realnvp", {"base": "conditional"}, "needs context_features or num_classes"),
        ("realnvp", {"num_classes": 2, "context_features": 1}, "give one of them"),
        (
            "realnvp",
            {"coupling": "additive", "conditioner": {"kind": "pair"}},
            "a pair makes a shift and a scale",
        ),
        ("realnvp", {"conditioner": {"kind": "mlp", "widths": []}}, "widths"),
        ("realnvp", {"scale": "softmax"}, "scale"),
        ("maf", {"order": [[0, 1]]}, "order: expected one entry a feature, 3, got 2"),
        ("maf", {"order": [[0, 2, 2]]}, "order: expected every number"),
        ("nsf", {"conditioner": {"kind": "pair"}}, "conditioner"),
        ("naf", {"map": {"kind": "monotone_network", "widths": [4, 1]}}, "widths.*equal to 2"),
        ("nsf", {"num_bins": 1}, "num_bins: expected at least 2"),
        ("chain", {"layers": [{"kind": "permute", "indices": [0, 1]}]}, "layer 0 .permute."),
        ("chain", {"layers": [{"kind": "pointwise", "chosen": [7]}]}, "layer 0 .pointwise."),
        ("chain", {"layers": [{"kind": "sideways"}]}, "layers"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(
    family: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(family, {"event_shape": [3], **config})
