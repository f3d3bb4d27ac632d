"""The normal distribution function and its inverse against SciPy, far out too."""

import torch
from scipy.special import erfcx, log_ndtr
from torch import Tensor

from models.transforms.normal import log_normal_cdfs, normal_quantile

PLACES = torch.cat(
    [
        torch.linspace(-40, 40, 801, dtype=torch.float64),
        torch.tensor([-1e6, -0.66, 1e-9], dtype=torch.float64),
    ]
)


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs() / expected.abs()).max())


def test_both_tails_keep_their_digits() -> None:
    below, above = log_normal_cdfs(PLACES)
    near = PLACES.abs() < 8
    for found, places in ((below, PLACES), (above, -PLACES)):
        expected = torch.from_numpy(log_ndtr(places[near].numpy()))
        assert _relative_error(found[near], expected) < 1e-14
        far = places[places < 0]
        scaled = torch.from_numpy(erfcx(-far.numpy() / 2**0.5))
        assert _relative_error(found[places < 0], (scaled / 2).log() - far.square() / 2) < 1e-14


def test_the_inverse_finds_the_place_again() -> None:
    logs = torch.tensor([-0.6932, -2.0, -50.0, -700.0, -1e5], dtype=torch.float64)
    assert _relative_error(log_normal_cdfs(normal_quantile(logs))[1], logs) < 1e-14


def test_derivatives_are_those_of_the_functions_at_zero_too() -> None:
    places = torch.tensor([-9.0, -0.3, 0.0, 2.0, 30.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: log_normal_cdfs(u)[0], places)
    assert torch.autograd.gradcheck(lambda u: log_normal_cdfs(u)[1], places)
    tails = torch.tensor([-0.7, -3.0, -400.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normal_quantile, tails)
