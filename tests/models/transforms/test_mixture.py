"""Mixtures of Gaussians as maps: their density, their samples, and what lies between components."""

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from models.monotone.mixture import GaussianMixture, NormalMixture
from models.noise import LOG_TWO_PI, base_noise

LOGITS = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64)
MEANS = torch.tensor([[0.0, 3.0], [-4.0, 1.0], [2.0, -2.0]], dtype=torch.float64)
FACTORS = torch.tensor(
    [[[0.5, 0.0], [0.7, 1.2]], [[2.0, 0.0], [-1.0, 0.3]], [[0.1, 0.0], [0.0, 1.0]]],
    dtype=torch.float64,
)


def make_mixture(factor: str) -> GaussianMixture:
    """The same distribution by factors of the covariances or of the precisions."""
    is_precision = factor == "precision"
    deviation = "inverse_softplus" if is_precision else "exp"
    mixture = GaussianMixture(2, 3, factor=factor, deviation=deviation).double()
    factors = torch.linalg.inv(FACTORS) if is_precision else FACTORS
    diagonal = factors.diagonal(dim1=1, dim2=2)
    raw = diagonal.expm1().log() if is_precision else diagonal.log()
    with torch.no_grad():
        learned = [LOGITS, MEANS.flatten(), raw.flatten(), factors[:, 1, 0]]
        mixture.learned.copy_(torch.cat(learned))
    return mixture


def log_prob(mixture: GaussianMixture, x: Tensor) -> Tensor:
    z, log_det = mixture.encode(x)
    return log_det - 0.5 * (z.square() + LOG_TWO_PI).sum(1)


@torch.no_grad()
def test_both_factors_have_the_density_of_the_mixture_far_out_too() -> None:
    expected = MixtureSameFamily(
        Categorical(logits=LOGITS), MultivariateNormal(MEANS, scale_tril=FACTORS)
    )
    x = torch.cat([torch.from_numpy(base_noise(20, 2, seed=1)) * 4, torch.tensor([[1e5, -3e4]])])
    for factor in ("covariance", "precision"):
        found = log_prob(make_mixture(factor), x)
        reference = expected.log_prob(x)
        assert float(((found - reference) / reference.abs().clamp(min=1)).abs().max()) < 1e-12


@torch.no_grad()
def test_samples_have_the_moments_of_the_mixture() -> None:
    count = 3000
    x, _ = make_mixture("covariance").decode(torch.from_numpy(base_noise(count, 2, seed=5)))
    weights = LOGITS.softmax(0)
    mean = weights @ MEANS
    second = (FACTORS @ FACTORS.mT) + MEANS[:, :, None] * MEANS[:, None]
    covariance = (weights[:, None, None] * second).sum(0) - torch.outer(mean, mean)
    assert float(((x.mean(0) - mean) / (covariance.diagonal() / count).sqrt()).abs().max()) < 4
    assert float((x.T.cov() - covariance).abs().max()) < 0.1 * float(covariance.abs().max())
    # How often a component is met, here the first two of which lie left of and above the others.
    share = float(((x[:, 0] < -1.5) & (x[:, 1] > 0)).double().mean())
    assert abs(share - float(weights[1])) < 0.06


@torch.no_grad()
def test_nothing_is_lost_between_components_far_apart() -> None:
    elementwise = NormalMixture(2)
    params = torch.tensor([0.0, 0.0, -1e3, 1e3, math.log(1e-2), math.log(1e-2)]).double()
    x = torch.tensor([[-1e3 - 0.03], [-1e3], [1e3 + 0.02]]).double()
    z, log_slope = elementwise.encode(x, params)
    again, back = elementwise.decode(z, params)
    assert float((again - x).abs().max()) < 1e-9
    assert float((log_slope + back).abs().max()) < 1e-6
    # In the middle F is 1/2 over hundreds of deviations: any of these places is right.
    middle, _ = elementwise.decode(torch.zeros(1, 1).double(), params)
    assert float(middle.abs()) <= 1e3
