import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.transforms.batchnorm import BatchNorm, NormScale


def draw(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(shape, generator=generator, dtype=torch.float64) + 1


def perturbed(scale: NormScale = "exp", **options: object) -> BatchNorm:
    norm = BatchNorm(3, scale, **options).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor += torch.randn(3, dtype=torch.float64)
        norm.running_var *= torch.tensor([0.5, 2.0, 3.0])
    return norm


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 5)], ids=["vectors", "images"])
@pytest.mark.parametrize("scale", ["exp", "softplus"])
def test_evaluation_form(scale: NormScale, shape: tuple[int, ...]) -> None:
    norm = perturbed(scale, eps=1e-3).eval()
    x = draw(*shape)
    y, log_det = norm.encode(x)
    weight = norm.weight.exp() if scale == "exp" else F.softplus(norm.weight) + 1e-3
    expected = F.batch_norm(
        x, norm.running_mean, norm.running_var, weight, norm.bias, training=False, eps=1e-3
    )
    torch.testing.assert_close(y, expected)
    jacobian = torch.autograd.functional.jacobian(lambda v: norm.encode(v)[0], x[:1])
    size = x[0].numel()
    volume = torch.linalg.slogdet(jacobian.reshape(size, size))[1]
    torch.testing.assert_close(log_det, volume.expand(4))
    back, minus = norm.decode(y)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(minus, -log_det)


@pytest.mark.parametrize("scale", ["exp", "softplus"])
def test_starts_as_the_identity(scale: NormScale) -> None:
    x = draw(4, 3)
    y, log_det = BatchNorm(3, scale, eps=1e-12).double().eval().encode(x)
    torch.testing.assert_close(y, x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_det, torch.zeros(4).double(), rtol=0, atol=1e-6)


def test_batch_statistics_normalise_the_batch() -> None:
    norm = BatchNorm(3, eps=0.0, momentum=0.25).double().train()
    x = draw(50, 3)
    y, log_det = norm.encode(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3).double())
    torch.testing.assert_close(y.var(0), torch.ones(3).double())
    torch.testing.assert_close(log_det, -0.5 * x.var(0).log().sum().expand(50))
    torch.testing.assert_close(norm.running_mean, 0.25 * x.mean(0))
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * x.var(0))


def test_running_statistics_are_used_before_they_move() -> None:
    """FFJORD's moving batch norm: rows of a training batch do not touch each other."""
    norm = perturbed(statistics="running")
    x = draw(50, 3, 2, 2)
    expected, expected_log_det = norm.eval().encode(x)
    y, log_det = norm.train().encode(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(log_det, expected_log_det)
    after, _ = norm.eval().encode(x)
    assert not torch.allclose(after, expected)


def test_decode_uses_running_statistics_in_both_modes() -> None:
    norm = perturbed()
    y = draw(4, 3)
    for served, training in zip(norm.eval().decode(y), norm.train().decode(y), strict=True):
        assert torch.equal(served, training)


def test_training_needs_two_values_a_channel() -> None:
    norm = BatchNorm(3).train()
    with pytest.raises(ValueError, match="expected 2 or more values a channel to train on, got 1"):
        norm.encode(torch.zeros(1, 3))
    norm.encode(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize("options", [{"scale": "square"}, {"statistics": "moving"}])
def test_refusals(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}: expected one of"):
        BatchNorm(3, **options)
