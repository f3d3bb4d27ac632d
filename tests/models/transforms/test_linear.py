from collections.abc import Callable

import pytest
import torch

from models.transforms.linear import (
    HouseholderLinear,
    InvertibleLinear,
    LULinear,
    PlainLinear,
    QRLinear,
    SVDLinear,
    householder_product,
)

KINDS: dict[str, Callable[[int], InvertibleLinear]] = {
    "plain": PlainLinear,
    "lu_exp": LULinear,
    "lu_softplus": lambda channels: LULinear(channels, "softplus"),
    "qr": QRLinear,
    "svd_exp": lambda channels: SVDLinear(channels, diagonal="exp"),
    "svd_softplus": lambda channels: SVDLinear(channels, 3),
    "householder": lambda channels: HouseholderLinear(channels, 2),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, channels: int = 5, scale: float = 0.3) -> InvertibleLinear:
    torch.manual_seed(0)
    layer = KINDS[kind](channels).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += scale * torch.randn_like(parameter)
    return layer


@kinds
def test_inverse_and_determinant_are_those_of_the_matrix(kind: str) -> None:
    layer = make(kind)
    matrix = layer.matrix()
    assert torch.allclose(layer.inverse_matrix() @ matrix, torch.eye(5).double(), atol=1e-12)
    assert torch.allclose(layer.log_abs_det(), torch.linalg.slogdet(matrix)[1], rtol=1e-12)


@kinds
def test_an_image_is_mixed_pixel_by_pixel(kind: str) -> None:
    layer = make(kind)
    image = torch.randn(2, 5, 3, 4).double()
    mixed, log_det = layer.encode(image)
    vectors, one = layer.encode(image.permute(0, 2, 3, 1).reshape(-1, 5))
    assert torch.allclose(mixed.permute(0, 2, 3, 1).reshape(-1, 5), vectors, atol=1e-13)
    assert torch.allclose(log_det, 12 * one[:2])


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 2, 2)], ids=["vector", "image"])
def test_bias(shape: tuple[int, ...]) -> None:
    layer = LULinear(5, "softplus", bias=True).double()
    assert layer.bias is not None
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(shape).double()
    y, log_det = layer.encode(x)
    assert torch.allclose(y - layer.bias.view(-1, *[1] * (len(shape) - 2)), x)
    back, back_log_det = layer.decode(y)
    assert torch.allclose(back, x)
    assert torch.equal(log_det, -back_log_det)


@kinds
def test_decode_in_float32_loses_rounding_only(kind: str) -> None:
    layer = make(kind, channels=48, scale=0.05).float()
    x = torch.randn(8, 48, 4, 4)
    with torch.no_grad():
        back, _ = layer.decode(layer.encode(x)[0])
        condition = float(torch.linalg.cond(layer.matrix().double()))
    error = float((back - x).norm() / x.norm())
    assert error <= 3 * condition * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("kind", ["plain", "lu_exp", "qr", "householder"])
def test_a_new_layer_is_a_rotation(kind: str) -> None:
    matrix = make(kind, scale=0.0).matrix()
    assert torch.allclose(matrix @ matrix.T, torch.eye(5).double(), atol=1e-5)
    assert not torch.allclose(matrix, torch.eye(5).double(), atol=0.1)


@pytest.mark.parametrize("kind", ["lu_softplus", "svd_softplus", "svd_exp"])
def test_a_new_layer_is_the_identity(kind: str) -> None:
    matrix = make(kind, scale=0.0).matrix()
    assert torch.allclose(matrix, torch.eye(5).double(), atol=1e-6)


def test_lu_is_glows_formula() -> None:
    layer = make("lu_exp")
    assert isinstance(layer, LULinear)
    indices = layer.permutation.indices
    permutation = torch.zeros(5, 5).double()
    permutation[torch.arange(5), indices] = 1
    lower = layer.lower.tril(-1) + torch.eye(5)
    upper = layer.upper.triu(1) + torch.diag(layer.sign * layer.raw_diagonal.exp())
    assert torch.allclose(layer.matrix(), permutation @ lower @ upper, atol=1e-14)
    assert sorted(indices.tolist()) == list(range(5))
    assert set(layer.sign.tolist()) <= {-1.0, 1.0}


def test_lu_ignores_the_other_triangles() -> None:
    layer = make("lu_exp")
    assert isinstance(layer, LULinear)
    before = layer.matrix().detach()
    with torch.no_grad():
        layer.lower += torch.ones(5, 5).triu()
        layer.upper += torch.ones(5, 5).tril()
    assert torch.equal(layer.matrix(), before)


def test_lu_saves_its_permutation_and_signs() -> None:
    saved = set(LULinear(3).state_dict())
    assert saved == {"lower", "upper", "raw_diagonal", "sign", "permutation.indices"}
    torch.manual_seed(1)
    source = LULinear(16)
    target = LULinear(16)
    assert not torch.allclose(source.matrix(), target.matrix())
    target.load_state_dict(source.state_dict())
    assert torch.equal(source.matrix(), target.matrix())
    assert torch.equal(source.inverse_matrix(), target.inverse_matrix())


def test_qr_is_a_rotation_times_a_triangle() -> None:
    layer = make("qr")
    assert isinstance(layer, QRLinear)
    rotation = layer.matrix() @ torch.linalg.inv(
        layer.upper.triu(1) + layer.log_diagonal.exp().diag()
    )
    assert torch.allclose(rotation @ rotation.T, torch.eye(5).double(), atol=1e-13)


def test_an_unknown_diagonal_is_named() -> None:
    with pytest.raises(ValueError, match="diagonal: expected one of"):
        LULinear(3, "tanh")


def test_reflections_are_multiplied_in_order() -> None:
    vectors = torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    mirrored, exchanged = torch.tensor([[-1.0, 0], [0, 1]]), torch.tensor([[0.0, -1], [-1, 0]])
    assert torch.allclose(householder_product(vectors), mirrored @ exchanged, atol=1e-6)


def test_the_singular_values_of_an_svd_are_its_diagonal() -> None:
    layer = SVDLinear(4).double()
    with torch.no_grad():
        layer.reflections.normal_()
        layer.raw_diagonal.copy_(torch.tensor([3.0, 1.0, -1.0, -4.0]))
    expected = torch.nn.functional.softplus(layer.raw_diagonal) + 1e-3
    assert torch.allclose(torch.linalg.svdvals(layer.matrix()), expected, rtol=1e-12)
