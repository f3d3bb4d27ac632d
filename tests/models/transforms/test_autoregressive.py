"""Autoregressive maps: dependence, number of passes, what is saved, and the other direction."""

import pytest
import torch
from torch import Tensor, nn

from models.conditioners.dense import MLP
from models.conditioners.masked import Masked, MaskedLinear
from models.registry import build
from models.transforms.autoregressive import MaskedAutoregressive, Swapped
from models.transforms.elementwise import Affine


class Counted(nn.Module):
    """A conditioner that counts its calls."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.calls = 0

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.calls += 1
        raw: Tensor = self.net(x, context)
        return raw


def make(order: list[int]) -> MaskedAutoregressive:
    torch.manual_seed(0)
    net = MLP(Masked(order, 2), [12], "tanh")
    nn.init.normal_(net.layers[-1].weight, std=0.5)
    affine = Affine("exp", "unshift_then_unscale")
    return MaskedAutoregressive(order, Counted(net), affine).double().eval()


@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3], [2, 0, 3, 1], [0, 0, 1, 1]], ids=["ascending", "shuffled", "halves"]
)
def test_jacobian_is_triangular_in_the_order_and_decode_takes_its_length(order: list[int]) -> None:
    transform = make(order)
    x = torch.randn(3, 4).double()
    jacobian = torch.autograd.functional.jacobian(lambda v: transform.encode(v)[0], x[:1])
    ranks = torch.tensor(order)
    later = (ranks[:, None] < ranks) | ((ranks[:, None] == ranks) & ~torch.eye(4).bool())
    assert not jacobian[0, :, 0][later].any()

    transform.conditioner.calls = 0
    y, _ = transform.encode(x)
    assert transform.conditioner.calls == 1
    back, _ = transform.decode(y)
    assert transform.conditioner.calls == 1 + len(set(order))
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-12)


class ShyConditioner(nn.Module):
    """The second feature overflows unless it sees the first, and the third sees the second."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        zero = torch.zeros_like(x[:, :1])
        alone = torch.where(x[:, :1] == 0, 800.0, 0.0)
        return torch.cat((zero, zero, x[:, 1:2], zero, alone, zero), 1)


def test_decode_throws_away_what_overflows_before_its_turn() -> None:
    affine = Affine("exp", "unshift_then_unscale")
    transform = MaskedAutoregressive([0, 1, 2], ShyConditioner(), affine)
    y = torch.tensor([[1.0, 2.0, 3.0]]).double()
    x, log_det = transform.decode(y)
    assert torch.equal(x, torch.tensor([[1.0, 2.0, 5.0]]).double())
    assert log_det.item() == 0.0


def test_swapped_exchanges_the_directions() -> None:
    transform = make([0, 1, 2, 3])
    iaf = Swapped(transform)
    x = torch.randn(3, 4).double()
    for got, expected in (
        (iaf.encode(x), transform.decode(x)),
        (iaf.decode(x), transform.encode(x)),
    ):
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_iaf_samples_in_one_pass_what_maf_scores_in_one() -> None:
    config = {"event_shape": [4], "num_layers": 1, "form": "scale_then_shift"}
    torch.manual_seed(0)
    maf, iaf = build("maf", config), build("maf", {**config, "one_pass": "decode"})
    state = {key.replace("0.", "0.transform.", 1): value for key, value in maf.state_dict().items()}
    iaf.load_state_dict(state)
    x = torch.randn(3, 4)
    assert torch.equal(maf.encode(x)[0], iaf.decode(x)[0])


@pytest.mark.parametrize("order", [[0, 2], [1, 2], [-1, 0]], ids=["gap", "from_one", "negative"])
def test_orders_with_gaps_are_refused(order: list[int]) -> None:
    with pytest.raises(ValueError, match="order: expected every number"):
        MaskedAutoregressive(order, nn.Identity(), Affine())


def test_masks_of_other_code_are_restored() -> None:
    flow = build("maf", {"event_shape": [3], "num_layers": 1})
    state = flow.state_dict()
    masks = [key for key in state if key.endswith(".mask")]
    assert len(masks) == 3
    for key in masks:
        state[key] = torch.zeros_like(state[key])
    flow.load_state_dict(state)
    assert not any(m.mask.any() for m in flow.modules() if isinstance(m, MaskedLinear))


def test_one_feature_is_an_affine_map() -> None:
    flow = build("maf", {"event_shape": [1], "num_layers": 1}).double()
    with torch.no_grad():
        flow.transforms[0].conditioner.layers[-1].bias.copy_(torch.tensor([0.5, 0.25]))
    z, log_det = flow.encode(torch.tensor([[2.0]]).double())
    torch.testing.assert_close(z, torch.tensor([[1.5]]).double() * torch.tensor(-0.25).exp())
    torch.testing.assert_close(log_det, torch.tensor([-0.25]).double())
