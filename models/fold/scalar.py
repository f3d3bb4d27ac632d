"""Scalar maps as inference wants them: parameters are read from the network's output as it lies."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.transforms.elementwise import (
    LOG_SCALES,
    MIN_SCALE,
    SIGMOID_OFFSET,
    Affine,
    Elementwise,
    centre,
    unpack_params,
)

# What a folded network gives: one tensor, or one tensor a block of parameters.
Raw = tuple[Tensor, ...]
Slopes = Tensor | None

# As LOG_SCALES of `models.transforms.elementwise`, with the offset of the sigmoids left out.
_LOG_SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    **LOG_SCALES,
    "sigmoid": F.logsigmoid,
    "floored_sigmoid": lambda raw: torch.log(torch.sigmoid(raw) + MIN_SCALE),
}


class Scalar(nn.Module, ABC):
    """A monotone scalar map of values (B, C, ...) with parameters from the output of a network.

    `encode` and `decode` return the log-slope of the call just made, in the shape of the value, or
    None where it is zero.

    Attributes:
        num_params: numbers an element, each a block of C outputs of the original network.
        offsets: what still has to be added to the outputs, one number a block.
    """

    num_params: int
    offsets: tuple[float, ...] = ()

    @abstractmethod
    def encode(self, x: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        """x (B, C, ...) -> y and log|dy/dx|."""

    @abstractmethod
    def decode(self, y: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        """y (B, C, ...) -> x and log|dx/dy|."""

    def rows(self, features: Sequence[int], total: int) -> list[int]:
        """Which outputs of the network, in which order, the map of `features` out of `total` reads.

        Output block * total + feature holds parameter `block` of `feature`.
        """
        return [block * total + feature for block in range(self.num_params) for feature in features]

    def only(self, features: Sequence[int]) -> "Scalar":
        """The map of some of the features alone."""
        return self


class FoldedAdditive(Scalar):
    """y = x + t."""

    num_params = 1

    def encode(self, x: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        return x + raw[0], None

    def decode(self, y: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        return y - raw[0], None


class FoldedAffine(Scalar):
    """`Affine`, with the blocks t and a side by side along axis 1 or as two tensors.

    `offsets` = (0, 2) for the sigmoids until the network's last bias takes them over.
    """

    num_params = 2
    weight: Tensor | None

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.scale = affine.scale
        self.form = affine.form
        self.centred = affine.centred
        self.log_factor = affine.log_factor
        if self.scale in ("sigmoid", "floored_sigmoid"):
            self.offsets = (0.0, SIGMOID_OFFSET)
        weight = affine.scale_weight
        self.register_buffer("weight", None if weight is None else weight.detach().clone())

    def encode(self, x: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        shift, log_scale = self._shift_and_log_scale(raw)
        if self.form == "scale_then_shift":
            return x * log_scale.exp() + shift, log_scale
        if self.form == "shift_then_scale":
            return (x + shift) * log_scale.exp(), log_scale
        log_scale = -log_scale
        return (x - shift) * log_scale.exp(), log_scale

    def decode(self, y: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        shift, log_scale = self._shift_and_log_scale(raw)
        if self.form == "unshift_then_unscale":
            return y * log_scale.exp() + shift, log_scale
        log_scale = -log_scale
        if self.form == "scale_then_shift":
            return (y - shift) * log_scale.exp(), log_scale
        return y * log_scale.exp() - shift, log_scale

    def only(self, features: Sequence[int]) -> Scalar:
        if self.weight is None or list(features) == list(range(len(self.weight))):
            return self
        part = copy.deepcopy(self)
        part.weight = self.weight[list(features)]
        return part

    def _shift_and_log_scale(self, raw: Raw) -> tuple[Tensor, Tensor]:
        shift, value = raw if len(raw) == 2 else raw[0].chunk(2, 1)
        if self.offsets:
            value = value + self.offsets[1]
        log_scale: Tensor = _LOG_SCALES[self.scale](value)
        if self.weight is not None:
            log_scale = log_scale * self.weight
        if self.log_factor:
            log_scale = log_scale + self.log_factor
        return shift, centre(log_scale) if self.centred else log_scale


class Trailing(Scalar):
    """A map whose parameters lie next to each other: output feature * num_params + parameter."""

    def __init__(self, elementwise: Elementwise) -> None:
        super().__init__()
        self.elementwise = elementwise
        self.num_params = elementwise.num_params

    def encode(self, x: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        y, slopes = self.elementwise.encode(x.double(), self._params(raw).double())
        return y.to(x.dtype), slopes

    def decode(self, y: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        x, slopes = self.elementwise.decode(y.double(), self._params(raw).double())
        return x.to(y.dtype), slopes

    def rows(self, features: Sequence[int], total: int) -> list[int]:
        return [block * total + feature for feature in features for block in range(self.num_params)]

    def only(self, features: Sequence[int]) -> Scalar:
        elementwise = self.elementwise.only(features)
        return self if elementwise is self.elementwise else Trailing(elementwise)

    def _params(self, raw: Raw) -> Tensor:
        params: Tensor = raw[0].unflatten(1, (-1, self.num_params))
        return params


class Unchanged(Scalar):
    """A map that reads its parameters as it always did."""

    def __init__(self, elementwise: Elementwise) -> None:
        super().__init__()
        self.elementwise = elementwise
        self.num_params = elementwise.num_params

    def encode(self, x: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        return self.elementwise.encode(x, self._params(raw))

    def decode(self, y: Tensor, raw: Raw) -> tuple[Tensor, Slopes]:
        return self.elementwise.decode(y, self._params(raw))

    def only(self, features: Sequence[int]) -> Scalar:
        elementwise = self.elementwise.only(features)
        return self if elementwise is self.elementwise else Unchanged(elementwise)

    def _params(self, raw: Raw) -> Tensor:
        return unpack_params(torch.cat(raw, 1), self.num_params)
