"""Maps that are the same for every row: runs of them become one map, inverse and log-det ready."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.transforms.squeeze import SqueezeOrder
from models.transforms.transform import Transform, constant_log_det


class ConstantMap(Transform):
    """An affine map along axis 1 with constant coefficients, in both directions.

    Attributes:
        log_abs_det: log|det J| of encode, summed over the event, in nats: a float64 number that
            keeps its digits when the module is cast.
    """

    def __init__(self, log_abs_det: float) -> None:
        super().__init__()
        self.log_abs_det = log_abs_det


class Monomial(ConstantMap):
    """y_i = scale_i x_{indices[i]} + shift_i: a permutation and a diagonal, each left out if idle.

    Args:
        indices: (C,) a permutation of features or channels.
        scale, shift: (C, 1, ...) or (C, H, W): broadcast against one event of x.
    """

    indices: Tensor | None
    back: Tensor | None
    scale: Tensor | None
    shift: Tensor | None
    unscale: Tensor | None
    unshift: Tensor | None

    def __init__(
        self,
        indices: Tensor | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        *,
        log_abs_det: float = 0.0,
    ) -> None:
        super().__init__(log_abs_det)
        if indices is not None and torch.equal(indices, torch.arange(len(indices))):
            indices = None
        if scale is not None and bool((scale == 1).all()):
            scale = None
        if shift is not None and not bool(shift.any()):
            shift = None
        unshift = None if shift is None else -shift if scale is None else -shift / scale
        self.register_buffer("indices", indices)
        self.register_buffer("back", None if indices is None else indices.argsort())
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.register_buffer("unscale", None if scale is None else 1 / scale)
        self.register_buffer("unshift", unshift)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is left to do."""
        return self.indices is None and self.scale is None and self.shift is None

    @property
    def is_channelwise(self) -> bool:
        """Whether all pixels of a channel are treated alike."""
        return all(part is None or part[0].numel() == 1 for part in (self.scale, self.shift))

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.indices is not None:
            x = x.index_select(1, self.indices)
        return _scaled(x, self.scale, self.shift), constant_log_det(self.log_abs_det, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = _scaled(y, self.unscale, self.unshift)
        if self.back is not None:
            y = y.index_select(1, self.back)
        return y, constant_log_det(-self.log_abs_det, y)

    def swapped(self) -> "Monomial":
        """The same map with encode and decode exchanged."""
        return Monomial(
            self.back,
            _take(self.unscale, self.back),
            _take(self.unshift, self.back),
            log_abs_det=-self.log_abs_det,
        )

    def diagonal_in_front(self) -> "Monomial":
        """The diagonal g with f(x) = g(x)[indices]."""
        return Monomial(
            None,
            _take(self.scale, self.back),
            _take(self.shift, self.back),
            log_abs_det=self.log_abs_det,
        )

    def after_squeeze(self, order: SqueezeOrder) -> "Monomial":
        """What does behind a `Squeeze` the same as this, a channelwise map, in front of it."""

        def fourfold(values: Tensor) -> Tensor:
            repeats = [4, *[1] * (values.dim() - 1)]
            return values.repeat_interleave(4, 0) if order == "channel" else values.repeat(repeats)

        parts, indices = torch.arange(4), self.indices
        if indices is not None and order == "channel":
            indices = (4 * indices[:, None] + parts).flatten()
        elif indices is not None:
            indices = (len(indices) * parts[:, None] + indices).flatten()
        return Monomial(
            indices,
            None if self.scale is None else fourfold(self.scale),
            None if self.shift is None else fourfold(self.shift),
            log_abs_det=self.log_abs_det,
        )


class Dense(ConstantMap):
    """y = W x + b along axis 1: a linear layer for (B, C), a 1x1 convolution for (B, C, H, W).

    Args:
        matrix, inverse: W and W^-1, (C, C), or (C, C, 1, 1) for images.
        shift: b, (C,).
    """

    matrix: Tensor
    inverse: Tensor
    shift: Tensor
    unshift: Tensor

    def __init__(
        self, matrix: Tensor, inverse: Tensor, shift: Tensor, *, log_abs_det: float
    ) -> None:
        super().__init__(log_abs_det)
        self.register_buffer("matrix", matrix.contiguous())
        self.register_buffer("inverse", inverse.contiguous())
        self.register_buffer("shift", shift)
        self.register_buffer("unshift", -inverse.flatten(1) @ shift)

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mix = F.linear if x.dim() == 2 else F.conv2d
        return mix(x, self.matrix, self.shift), constant_log_det(self.log_abs_det, x)

    def decode(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mix = F.linear if y.dim() == 2 else F.conv2d
        return mix(y, self.inverse, self.unshift), constant_log_det(-self.log_abs_det, y)

    def swapped(self) -> "Dense":
        """The same map with encode and decode exchanged."""
        return Dense(self.inverse, self.matrix, self.unshift, log_abs_det=-self.log_abs_det)


def compose(first: ConstantMap, second: ConstantMap) -> ConstantMap | None:
    """The one map that does `first` and then `second`; None where there is no such map here."""
    match first, second:
        case Monomial(), Monomial():
            return _monomial_then_monomial(first, second)
        case Monomial(), Dense() if first.is_channelwise:
            return _monomial_then_dense(first, second)
        case Dense(), Monomial() if second.is_channelwise:
            return _dense_then_monomial(first, second)
        case Dense(), Dense():
            return Dense(
                _product(second.matrix, first.matrix),
                _product(first.inverse, second.inverse),
                second.matrix.flatten(1) @ first.shift + second.shift,
                log_abs_det=first.log_abs_det + second.log_abs_det,
            )
        case _:
            return None


def _monomial_then_monomial(first: Monomial, second: Monomial) -> Monomial:
    indices = second.indices if first.indices is None else _take(first.indices, second.indices)
    scale, shift = _take(first.scale, second.indices), _take(first.shift, second.indices)
    if second.scale is not None:
        scale = second.scale if scale is None else second.scale * scale
        shift = None if shift is None else second.scale * shift
    if second.shift is not None:
        shift = second.shift if shift is None else shift + second.shift
    log_abs_det = first.log_abs_det + second.log_abs_det
    return Monomial(indices, scale, shift, log_abs_det=log_abs_det)


def _monomial_then_dense(first: Monomial, second: Dense) -> Dense:
    matrix, inverse, shift = second.matrix.flatten(1), second.inverse.flatten(1), second.shift
    if first.shift is not None:
        shift = shift + matrix @ first.shift.flatten()
    if first.scale is not None:
        matrix, inverse = matrix * first.scale.flatten(), inverse / first.scale.flatten()[:, None]
    if first.back is not None:
        matrix, inverse = matrix[:, first.back], inverse[first.back]
    return _like(second, matrix, inverse, shift, first.log_abs_det + second.log_abs_det)


def _dense_then_monomial(first: Dense, second: Monomial) -> Dense:
    matrix, inverse, shift = first.matrix.flatten(1), first.inverse.flatten(1), first.shift
    if second.indices is not None:
        matrix, shift = matrix[second.indices], shift[second.indices]
        inverse = inverse[:, second.indices]
    if second.scale is not None:
        scale = second.scale.flatten()
        matrix, inverse, shift = matrix * scale[:, None], inverse / scale, shift * scale
    if second.shift is not None:
        shift = shift + second.shift.flatten()
    return _like(first, matrix, inverse, shift, first.log_abs_det + second.log_abs_det)


def _like(dense: Dense, matrix: Tensor, inverse: Tensor, shift: Tensor, log_det: float) -> Dense:
    shape = dense.matrix.shape
    return Dense(matrix.view(shape), inverse.view(shape), shift, log_abs_det=log_det)


def _product(left: Tensor, right: Tensor) -> Tensor:
    return (left.flatten(1) @ right.flatten(1)).view(left.shape)


def _take(values: Tensor | None, indices: Tensor | None) -> Tensor | None:
    return values if values is None or indices is None else values[indices]


def _scaled(value: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    if scale is not None:
        value = value * scale
    return value if shift is None else value + shift
