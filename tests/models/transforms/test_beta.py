"""A beta base is the beta distribution, however far out; with exponent 1 it is the uniform one."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from models.transforms.beta import BetaToNormal
from models.transforms.inverse_softplus import InverseSoftplus
from models.transforms.uniform import UniformToNormal

LOW, HIGH = -5.0, 4.0


@pytest.mark.parametrize("exponent", [1, 2, 13, 64])
def test_its_density_and_latents_are_those_of_the_beta_distribution(exponent: int) -> None:
    base = BetaToNormal(1, [0], [LOW], [HIGH], exponent=exponent).double()
    share = np.concatenate([np.logspace(-12, -2, 40), np.linspace(0.01, 0.99, 99)])
    x = torch.from_numpy(LOW + (HIGH - LOW) * share)[:, None]
    z, log_det = base.encode(x)
    beta = stats.beta(exponent, exponent, loc=LOW, scale=HIGH - LOW)
    log_prob = stats.norm.logpdf(z[:, 0].numpy()) + log_det.numpy()
    np.testing.assert_allclose(log_prob, beta.logpdf(x[:, 0].numpy()), rtol=1e-11, atol=1e-11)
    inner = slice(40, 100)
    expected = stats.norm.ppf(beta.cdf(x[inner, 0].numpy()))
    np.testing.assert_allclose(z[inner, 0].numpy(), expected, rtol=1e-8, atol=1e-8)
    back, log_det_back = base.decode(z)
    np.testing.assert_allclose((back - LOW).numpy(), (x - LOW).numpy(), rtol=1e-13)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-12, atol=1e-12)


def test_with_exponent_1_it_is_the_uniform_base() -> None:
    x = torch.linspace(LOW, HIGH, 101).double()[:, None]
    found = BetaToNormal(1, [0], [LOW], [HIGH], exponent=1).encode(x)
    expected = UniformToNormal(1, [0], [LOW], [HIGH]).encode(x)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_exponents_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="exponent: expected a positive whole number, got 0"):
        BetaToNormal(1, [0], [LOW], [HIGH], exponent=0)


def test_positive_features_keep_their_digits_and_others_have_no_density() -> None:
    step = InverseSoftplus(2, [1], [2.5]).double()
    x = torch.logspace(-12, 3, 200).double()
    rows = torch.stack([-x, x], 1)
    y, log_det = step.encode(rows)
    exact = np.log(np.expm1(2.5 * x[:150].numpy())) / 2.5
    np.testing.assert_allclose(y[:150, 1].numpy(), exact, rtol=1e-13)
    back, log_det_back = step.decode(y)
    torch.testing.assert_close(back, rows, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-10, atol=1e-12)
    y, log_det = step.encode(torch.tensor([[1.0, 0.0], [1.0, -1.0]]).double())
    assert y.isfinite().all()
    assert (log_det == -math.inf).all()


@pytest.mark.parametrize(
    ("chosen", "sharpness", "message"),
    [
        ([2], [1.0], "ascending columns below 2"),
        ([0, 1], [1.0, 2.0, 3.0], "1 or 2 positive numbers"),
        ([0], [0.0], "1 or 1 positive numbers"),
    ],
)
def test_columns_that_cannot_be_are_refused(
    chosen: list[int], sharpness: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        InverseSoftplus(2, chosen, sharpness)
