import math

import pytest
import torch
from torch import Tensor

from models.transforms.actnorm import ActNorm
from models.transforms.preprocess import ShiftScale
from models.transforms.split import Chain, FactorOut, GaussianPrior, LatentOrder
from models.transforms.squeeze import Flatten


def image(rows: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((rows, 4, 2, 3), generator=generator, dtype=torch.float64)


def doubling(order: LatentOrder) -> Chain:
    flatten = [] if order == "image" else [Flatten((2, 2, 3))]
    return Chain([ShiftScale(scale=2.0), *flatten])


@pytest.mark.parametrize("keep_first", [True, False])
@pytest.mark.parametrize("order", ["fine_first", "coarse_first", "image"])
def test_where_the_parts_go(order: LatentOrder, keep_first: bool) -> None:
    x = image()
    kept, fine = (x[:, :2], x[:, 2:]) if keep_first else (x[:, 2:], x[:, :2])
    prior = ShiftScale(shift=1.0)
    split = FactorOut(doubling(order), (4, 2, 3), order=order, keep_first=keep_first, prior=prior)
    y, log_det = split.encode(x)
    parts = {
        "fine_first": [(fine + 1).flatten(1), 2 * kept.flatten(1)],
        "coarse_first": [2 * kept.flatten(1), (fine + 1).flatten(1)],
        "image": [2 * kept, fine + 1] if keep_first else [fine + 1, 2 * kept],
    }
    assert torch.equal(y, torch.cat(parts[order], 1))
    assert log_det.tolist() == pytest.approx([12 * math.log(2)] * 3, rel=1e-14)
    back, back_log_det = split.decode(y)
    assert torch.allclose(back, x, atol=1e-15)
    assert torch.equal(back_log_det, -log_det)


def test_without_a_prior_the_half_is_standard_already() -> None:
    x = image()
    y, _ = FactorOut(Flatten((2, 2, 3)), (4, 2, 3), order="coarse_first").encode(x)
    assert torch.equal(y, x.flatten(1))


def test_a_chain_sums_in_float64() -> None:
    chain = Chain([ActNorm(4), ShiftScale(scale=3.0)])
    _, log_det = chain.encode(image().float())
    assert log_det.dtype == torch.float64


def test_the_prior_is_a_gaussian() -> None:
    torch.manual_seed(0)
    prior = GaussianPrior((4, 2, 3)).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter)
    x = image()
    z, log_det = prior.encode(x)
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    gaussian = torch.distributions.Normal(prior.mean, prior.log_std.exp())
    assert torch.allclose(standard + log_det, gaussian.log_prob(x).flatten(1).sum(1), rtol=1e-12)


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 2, 3)], ids=["channel", "element"])
def test_the_conditional_prior_is_linear_in_the_context(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    prior = GaussianPrior(shape, context_features=3).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter)
    x = image()
    context = torch.tensor([[1, 0, 0], [0, 0, 1], [1, 1, 0]]).double()
    z, log_det = prior.encode(x, context)
    for row, classes in enumerate(([0], [2], [0, 1])):
        mean = prior.mean + prior.mean_context[classes].sum(0)
        log_std = prior.log_std + prior.log_std_context[classes].sum(0)
        assert torch.allclose(z[row], (x[row] - mean) / log_std.exp(), rtol=1e-12)
        assert torch.allclose(log_det[row], -log_std.expand(4, 2, 3).sum(), rtol=1e-12)
    back, back_log_det = prior.decode(z, context)
    assert torch.allclose(back, x, atol=1e-12)
    assert torch.equal(back_log_det, -log_det)


def test_a_conditional_prior_asks_for_its_context() -> None:
    with pytest.raises(ValueError, match=r"context: expected shape \(\*, 3\), got none"):
        GaussianPrior((4, 1, 1), context_features=3).encode(image())


def test_wrong_splits_are_named() -> None:
    with pytest.raises(ValueError, match="C even, got"):
        FactorOut(Flatten((1, 2, 2)), (3, 2, 2))
    with pytest.raises(ValueError, match="order: expected one of"):
        FactorOut(Flatten((1, 2, 2)), (2, 2, 2), order="random")
