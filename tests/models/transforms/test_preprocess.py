import json
import math

import pytest
import torch

from models.families.config import FamilyConfig
from models.families.preprocessing import Preprocessing, build_preprocessing
from models.flow import Facts, Flow, Support
from models.transforms.preprocess import Dequantise, Logit, ReduceBits, ShiftScale, Standardise
from models.transforms.squeeze import Flatten
from models.transforms.transform import Transform


class _Config(FamilyConfig):
    preprocessing: Preprocessing


def build(*steps: dict[str, object], shape: tuple[int, ...] = (3, 2, 2)) -> tuple[list, Facts]:
    return build_preprocessing(
        _Config.model_validate_json(json.dumps({"preprocessing": steps})).preprocessing, shape
    )


def pixels(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, generator=generator).double()


def test_standardise_acts_on_axis_1() -> None:
    transform = Standardise([1.0, 2.0, 3.0], [0.5, 1.0, 4.0]).double()
    x = torch.ones(2, 3, 2, 2).double()
    y, log_det = transform.encode(x)
    assert y[0, :, 0, 0].tolist() == [0.0, -1.0, -0.5]
    assert log_det.tolist() == pytest.approx([-4 * math.log(2)] * 2, abs=1e-12)


def test_standardise_takes_one_number_for_all() -> None:
    transform = Standardise([3.0], [2.0]).double()
    y, log_det = transform.encode(torch.full((1, 5), 7.0).double())
    assert y.tolist() == [[2.0] * 5]
    assert float(log_det) == pytest.approx(-5 * math.log(2), abs=1e-12)
    assert float(transform.decode(y)[1]) == pytest.approx(5 * math.log(2), abs=1e-12)


def test_standardise_keeps_its_statistics_in_the_checkpoint() -> None:
    assert set(Standardise([0.0], [1.0]).state_dict()) == {"mean", "std"}


def test_shift_scale() -> None:
    y, log_det = ShiftScale(shift=-0.5, scale=-2.0).encode(torch.tensor([[1.0, 3.0]]))
    assert y.tolist() == [[-2.5, -6.5]]
    assert float(log_det) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("width", [1.0, 8.0])
def test_dequantise_scores_midpoints_and_trains_on_noise(width: float) -> None:
    transform = Dequantise(width).eval()
    x = width * torch.arange(1000.0).double()[None]
    assert torch.equal(transform.encode(x)[0], x + width / 2)
    assert torch.equal(transform.decode(x + width / 2)[0], x)
    torch.manual_seed(0)
    noise = (transform.train().encode(x)[0] - x) / width
    assert 0 <= float(noise.min()) < 0.01
    assert 0.99 < float(noise.max()) < 1
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("bits", [1, 3, 5, 8])
def test_reduce_bits_floors_whole_pixels_only(bits: int) -> None:
    transform = ReduceBits(bits)
    x = torch.arange(256.0).double()[None]
    y, log_det = transform.encode(x)
    assert len(y.unique()) == 2**bits
    assert torch.equal(y, x // 2 ** (8 - bits) * 2 ** (8 - bits))
    assert torch.equal(log_det, torch.zeros(1).double())
    assert torch.equal(transform.encode(y)[0], y)
    between = x + 0.3
    assert torch.equal(transform.encode(transform.decode(between)[0])[0], between)


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.3])
def test_logit_is_the_logit_and_knows_its_slope(alpha: float) -> None:
    x = torch.linspace(0.001, 0.999, 7).double().requires_grad_()
    y, log_det = Logit(alpha).encode(x[None])
    assert torch.allclose(y, torch.logit(alpha + (1 - 2 * alpha) * x)[None], rtol=1e-13)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert float(log_det.detach()) == pytest.approx(float(slope.log().sum()), rel=1e-12)


def test_logit_keeps_its_digits_in_the_tails() -> None:
    y = torch.tensor([[-300.0], [0.0], [300.0]])
    x, log_det = Logit(0.0).decode(y)
    assert x.flatten().tolist() == [0.0, 0.5, 1.0]
    assert log_det.tolist() == pytest.approx([-300.0, -2 * math.log(2), -300.0])


@pytest.mark.parametrize("alpha", [0.0, 0.05])
def test_logit_gives_no_density_outside_its_support(alpha: float) -> None:
    logit = Logit(alpha)
    beyond = 1e-9
    x = torch.tensor(
        [
            [0.5, logit.low - beyond],
            [logit.high + beyond, 0.5],
            [logit.low + beyond, logit.high - beyond],
        ],
        dtype=torch.float64,
    )
    x.requires_grad_()
    y, log_det = logit.encode(x)
    assert log_det.isneginf().tolist() == [True, True, False]
    assert y.isfinite().all()
    log_det[2].backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_the_edges_of_the_unit_interval_have_no_density_at_alpha_zero() -> None:
    _, log_det = Logit(0.0).encode(torch.tensor([[0.0], [1.0]]))
    assert log_det.isneginf().all()


def test_the_pixel_pipeline() -> None:
    transforms, facts = build(
        {"kind": "reduce_bits", "bits": 5},
        {"kind": "dequantise"},
        {"kind": "shift_scale", "scale": 1 / 256},
        {"kind": "logit", "alpha": 0.05},
    )
    assert [type(transform) for transform in transforms] == [
        ReduceBits,
        Dequantise,
        ShiftScale,
        Logit,
    ]
    assert transforms[1].width == 8
    assert facts.num_levels == 256
    assert facts.notes == {
        "pixel_bits": 5,
        "dequantisation": "midpoints of bins of width 8",
    }
    edge = 256 * 0.05 / 0.9
    assert facts.support is not None
    assert facts.support.low == pytest.approx(-edge - 4, rel=1e-12)
    assert facts.support.high == pytest.approx(256 + edge - 4, rel=1e-12)


def test_pixels_may_have_fewer_levels() -> None:
    _, facts = build({"kind": "dequantise", "levels": 17})
    assert facts.num_levels == 17


def test_support_under_a_negative_scale_and_per_channel_statistics() -> None:
    _, facts = build(
        {"kind": "standardise", "mean": [0.0, 1.0, 2.0], "std": [1.0, 2.0, 3.0]},
        {"kind": "shift_scale", "scale": -1.0},
        {"kind": "logit", "alpha": 0.0},
    )
    assert facts.support == Support(-1.0, 2.0)
    assert facts.num_levels is None


def test_no_preprocessing_says_nothing() -> None:
    assert build() == ([], Facts())


def test_the_density_is_that_of_the_reduced_pixels() -> None:
    transforms, facts = build(
        {"kind": "reduce_bits", "bits": 4},
        {"kind": "dequantise"},
        {"kind": "shift_scale", "shift": -2.0, "scale": 1 / 64},
    )
    flow = Flow([*transforms, Flatten((3, 2, 2))], (3, 2, 2), facts=facts).eval()
    x = pixels(4, 3, 2, 2)
    middle = x // 16 * 16 + 8
    mean, std = torch.tensor([128.0, 64.0]).double()
    expected = torch.distributions.Normal(mean, std).log_prob(middle).flatten(1).sum(1)
    assert torch.allclose(flow.log_prob(x), expected, rtol=1e-13)


WRONG = {
    "unknown kind": ([{"kind": "whiten"}], "whiten"),
    "unknown argument": ([{"kind": "logit", "beta": 0.1}], "beta"),
    "alpha": ([{"kind": "logit", "alpha": 0.5}], "alpha"),
    "bits": ([{"kind": "reduce_bits", "bits": 9}], "bits"),
    "two logits": ([{"kind": "logit"}, {"kind": "logit"}], "logit: expected it once"),
    "late bits": ([{"kind": "dequantise"}, {"kind": "reduce_bits", "bits": 5}], "put it first"),
    "late noise": ([{"kind": "shift_scale"}, {"kind": "dequantise"}], "put it first"),
    "one level": ([{"kind": "dequantise", "levels": 1}], "levels"),
    "bits of few levels": (
        [{"kind": "reduce_bits", "bits": 4}, {"kind": "dequantise", "levels": 17}],
        "expected levels = 256 behind reduce_bits, got 17",
    ),
    "no scale": ([{"kind": "shift_scale", "scale": 0.0}], "scale: expected"),
    "lengths": ([{"kind": "standardise", "mean": [0.0], "std": [1.0, 1.0]}], "positive std"),
    "std": ([{"kind": "standardise", "mean": [0.0], "std": [0.0]}], "std"),
    "channels": ([{"kind": "standardise", "mean": [0.0] * 2, "std": [1.0] * 2}], "1 or 3 means"),
}


@pytest.mark.parametrize(("steps", "message"), WRONG.values(), ids=WRONG)
def test_wrong_steps_are_named(steps: list[dict[str, object]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(*steps)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Logit(0.5), "alpha: expected"),
        (lambda: ReduceBits(0), "bits: expected"),
        (lambda: ShiftScale(scale=0), "scale: expected"),
    ],
)
def test_wrong_constants_are_named(make: type[Transform], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
