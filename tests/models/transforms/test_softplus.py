"""Logs of sums of exponentials keep float64's digits, also beyond torch's threshold."""

import math

import pytest
import torch

from models.transforms.elementwise import LOG_SCALES, MIN_SCALE
from models.transforms.logistic import LogisticToNormal
from models.transforms.preprocess import Logit
from models.transforms.softplus import softplus

POINTS = (-700.0, -30.0, -1.0, 0.0, 1.0, 19.9, 20.1, 25.0, 36.0, 39.9, 40.1, 700.0)


def by_hand(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def test_softplus_has_the_digits_of_its_dtype() -> None:
    expected = torch.tensor([by_hand(x) for x in POINTS], dtype=torch.float64)
    for dtype in (torch.float64, torch.float32):
        got = softplus(torch.tensor(POINTS, dtype=dtype))
        rounding = torch.finfo(dtype).eps * expected.clamp(min=torch.finfo(dtype).tiny)
        assert (got.double() - expected).abs().le(2 * rounding + 1e-300).all()


@pytest.mark.parametrize("x", POINTS)
def test_floored_softplus_keeps_its_floor(x: float) -> None:
    got = LOG_SCALES["floored_softplus"](torch.tensor(x, dtype=torch.float64))
    assert float(got) == pytest.approx(math.log(by_hand(x) + MIN_SCALE), abs=1e-12)


@pytest.mark.parametrize("y", [-30.0, 0.5, 22.0])
def test_the_logit_is_scored_exactly_in_its_tails(y: float) -> None:
    _, log_det = Logit(0.05).decode(torch.tensor([[y]], dtype=torch.float64))
    expected = -by_hand(y) - by_hand(-y) - math.log1p(-0.1)
    assert float(log_det) == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("x", [-25.0, 3.0, 25.0])
def test_the_logistic_base_is_exact_in_its_tails(x: float) -> None:
    z, log_det = LogisticToNormal().encode(torch.tensor([[x]], dtype=torch.float64))
    log_prob = -0.5 * float(z) ** 2 - 0.5 * math.log(2 * math.pi) + float(log_det)
    assert log_prob == pytest.approx(-by_hand(x) - by_hand(-x), abs=1e-12)
