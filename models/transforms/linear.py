"""Invertible linear maps over the features of a vector or the channels of an image."""

import math
from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.transforms.elementwise import MIN_SCALE
from models.transforms.permute import Permute
from models.transforms.softplus import softplus
from models.transforms.transform import Transform, constant_log_det, per_channel

Diagonal = Literal["exp", "softplus"]


class InvertibleLinear(Transform, ABC):
    """y = W x + b along axis 1: a linear layer for (B, C), a 1x1 convolution for (B, C, H, W).

    log_det = H W log|det W|. The subclasses differ in how W is parametrised.

    Cost: decode inverts W (C x C) on every call, in float64; `fold` does it once for serving.

    Reference: Kingma & Dhariwal 2018, section 3.2 (arXiv 1807.03039).
    """

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    @abstractmethod
    def matrix(self) -> Tensor:
        """W, shape (C, C)."""

    @abstractmethod
    def inverse_matrix(self) -> Tensor:
        """W^-1, shape (C, C): solved in float64, so that only its rounding is lost."""

    @abstractmethod
    def log_abs_det(self) -> Tensor:
        """log|det W|, a scalar."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = mix_channels(self.matrix(), x)
        if self.bias is not None:
            y = y + per_channel(self.bias, y)
        return y, self._log_det(x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = -self._log_det(y)
        if self.bias is not None:
            y = y - per_channel(self.bias, y)
        return mix_channels(self.inverse_matrix(), y), log_det

    def _log_det(self, like: Tensor) -> Tensor:
        return constant_log_det(self.log_abs_det() * math.prod(like.shape[2:]), like)


class PlainLinear(InvertibleLinear):
    """W is trained as it stands, from a random rotation."""

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__(channels, bias=bias)
        self.weight = nn.Parameter(_random_rotation(channels))

    def matrix(self) -> Tensor:
        return self.weight

    def inverse_matrix(self) -> Tensor:
        inverse: Tensor = torch.linalg.inv(self.weight.double())
        return inverse.to(self.weight.dtype)

    def log_abs_det(self) -> Tensor:
        log_abs_det: Tensor = torch.linalg.slogdet(self.weight.double()).logabsdet
        return log_abs_det.to(self.weight.dtype)


class LULinear(InvertibleLinear):
    """W = P L (U + diag(d)), with L unit lower and U strictly upper triangular.

    - diagonal="exp": d = sign exp(raw), P and sign kept from the LU decomposition of a random
      rotation, as buffers (Glow);
    - diagonal="softplus": d = softplus(raw) + 1e-3, P = 1, sign = 1, starting near the identity
      (nflows).

    `lower` and `upper` are full matrices of which the other triangle and the diagonal are ignored.
    P is held as indices: row i of W is row permutation.indices[i] of L (U + diag(d)).

    Reference: Kingma & Dhariwal 2018, eq. 10 (arXiv 1807.03039).
    """

    sign: Tensor

    def __init__(self, channels: int, diagonal: Diagonal = "exp", *, bias: bool = False) -> None:
        super().__init__(channels, bias=bias)
        self.diagonal = _checked(diagonal)
        if diagonal == "exp":
            permutation, lower, upper = torch.linalg.lu(_random_rotation(channels))
            raw, sign = upper.diagonal().abs().log(), upper.diagonal().sign()
            indices = permutation.argmax(1).tolist()
        else:
            lower, upper = torch.zeros(channels, channels), torch.zeros(channels, channels)
            raw = _raw_one(channels, diagonal)  # d = 1, as nflows starts
            sign, indices = torch.ones(channels), list(range(channels))
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.raw_diagonal = nn.Parameter(raw)
        self.register_buffer("sign", sign)
        self.permutation = Permute(indices)

    def matrix(self) -> Tensor:
        lower, upper = self._triangles()
        return (lower @ upper).index_select(0, self.permutation.indices)

    def inverse_matrix(self) -> Tensor:
        lower, upper = (triangle.double() for triangle in self._triangles())
        inverse: Tensor = torch.eye(self.channels, dtype=lower.dtype, device=lower.device)
        inverse = torch.linalg.solve_triangular(lower, inverse, upper=False, unitriangular=True)
        inverse = torch.linalg.solve_triangular(upper, inverse, upper=True)
        inverse = inverse.index_select(1, self.permutation.indices)
        return inverse.to(self.lower.dtype)

    def log_abs_det(self) -> Tensor:
        log_diagonal = self.raw_diagonal if self.diagonal == "exp" else self._diagonal().log()
        return log_diagonal.sum()

    def _triangles(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(
            self.channels, dtype=self.lower.dtype, device=self.lower.device
        )
        return lower, self.upper.triu(1) + self._diagonal().diag()

    def _diagonal(self) -> Tensor:
        return self.sign * _positive(self.raw_diagonal, self.diagonal)


class QRLinear(InvertibleLinear):
    """W = Q (R + diag(exp(log_diagonal))), with R strictly upper triangular.

    Q is a product of Householder reflections, see `householder_product`. It starts at a random
    rotation, R at 0.

    Reference: Hoogeboom et al. 2019, section 3.2.2 (arXiv 1901.11137); Tomczak & Welling 2016,
    eq. 8 (arXiv 1611.09630).
    """

    def __init__(
        self, channels: int, num_reflections: int | None = None, *, bias: bool = False
    ) -> None:
        super().__init__(channels, bias=bias)
        self.reflections = _random_reflections(channels, num_reflections)
        self.upper = nn.Parameter(torch.zeros(channels, channels))
        self.log_diagonal = nn.Parameter(torch.zeros(channels))

    def matrix(self) -> Tensor:
        return householder_product(self.reflections) @ self._triangle()

    def inverse_matrix(self) -> Tensor:
        transposed = householder_product(self.reflections.double()).T
        triangle = self._triangle().double()
        inverse: Tensor = torch.linalg.solve_triangular(triangle, transposed, upper=True)
        return inverse.to(self.upper.dtype)

    def log_abs_det(self) -> Tensor:
        return self.log_diagonal.sum()

    def _triangle(self) -> Tensor:
        return self.upper.triu(1) + self.log_diagonal.exp().diag()


class SVDLinear(InvertibleLinear):
    """W = Q diag(d) P, with Q and P products of Householder reflections; d is exp(raw) or softplus.

    It starts with Q = P^T a random rotation and d = 1: at the identity. Its condition is that of d,
    so it inverts well whatever Q and P have become.

    Reference: Zhang et al. 2018 (arXiv 1803.09327).
    """

    def __init__(
        self,
        channels: int,
        num_reflections: int | None = None,
        diagonal: Diagonal = "softplus",
        *,
        bias: bool = False,
    ) -> None:
        super().__init__(channels, bias=bias)
        self.diagonal = _checked(diagonal)
        self.reflections = _random_reflections(channels, num_reflections)
        self.right_reflections = nn.Parameter(self.reflections.detach().flip(0))
        self.raw_diagonal = nn.Parameter(_raw_one(channels, diagonal))

    def matrix(self) -> Tensor:
        right = householder_product(self.right_reflections)
        return householder_product(self.reflections) @ (self._diagonal()[:, None] * right)

    def inverse_matrix(self) -> Tensor:
        left = householder_product(self.reflections.double())
        right = householder_product(self.right_reflections.double())
        inverse = (right.T / self._diagonal().double()) @ left.T
        return inverse.to(self.reflections.dtype)

    def log_abs_det(self) -> Tensor:
        log_diagonal = self.raw_diagonal if self.diagonal == "exp" else self._diagonal().log()
        return log_diagonal.sum()

    def _diagonal(self) -> Tensor:
        return _positive(self.raw_diagonal, self.diagonal)


class HouseholderLinear(InvertibleLinear):
    """W = Q, a product of Householder reflections: it turns and mirrors, and keeps volume.

    Reference: Tomczak & Welling 2016 (arXiv 1611.09630).
    """

    def __init__(
        self, channels: int, num_reflections: int | None = None, *, bias: bool = False
    ) -> None:
        super().__init__(channels, bias=bias)
        self.reflections = _random_reflections(channels, num_reflections)

    def matrix(self) -> Tensor:
        return householder_product(self.reflections)

    def inverse_matrix(self) -> Tensor:
        return householder_product(self.reflections.double()).T.to(self.reflections.dtype)

    def log_abs_det(self) -> Tensor:
        return self.reflections.new_zeros(())


def householder_product(reflections: Tensor) -> Tensor:
    """H_1 H_2 ... H_K with H_i = 1 - 2 v_i v_i^T / |v_i|^2.   (K, C) -> (C, C).

    Orthogonal whatever the v_i: its determinant is (-1)^K, and its inverse the transpose. It is
    multiplied in float64, so that only its rounding is lost.
    """
    units = F.normalize(reflections.double(), dim=1)
    product = torch.eye(units.shape[1], dtype=units.dtype, device=units.device)
    for unit in units:
        product = product - 2 * torch.outer(product @ unit, unit)
    return product.to(reflections.dtype)


def mix_channels(matrix: Tensor, value: Tensor) -> Tensor:
    """Multiply axis 1 by a matrix.   matrix (C', C), value (B, C, ...) -> (B, C', ...)."""
    if value.dim() == 2:
        return F.linear(value, matrix)
    return F.conv2d(value, matrix[:, :, None, None])


def _random_rotation(channels: int) -> Tensor:
    rotation: Tensor = torch.linalg.qr(torch.randn(channels, channels)).Q
    return rotation.contiguous()


def _random_reflections(channels: int, count: int | None) -> nn.Parameter:
    """Vectors of K reflections, C where no count is given."""
    return nn.Parameter(torch.randn(channels if count is None else count, channels))


def _checked(diagonal: Diagonal) -> Diagonal:
    if diagonal not in get_args(Diagonal):
        raise ValueError(f"diagonal: expected one of {get_args(Diagonal)}, got {diagonal!r}")
    return diagonal


def _raw_one(channels: int, diagonal: Diagonal) -> Tensor:
    """What `_positive` makes ones of."""
    if diagonal == "exp":
        return torch.zeros(channels)
    return torch.full((channels,), 1 - MIN_SCALE).expm1().log()


def _positive(raw: Tensor, diagonal: Diagonal) -> Tensor:
    return raw.exp() if diagonal == "exp" else softplus(raw) + MIN_SCALE
