"""Dense layers that depend on the time: frozen at a time, each is an affine map."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

DenseLayerType = Literal["ignore", "concat", "squash", "concatsquash", "blend", "hyper"]

# Width of the hidden layer of a hypernetwork, and the spread of its first biases: FFJORD's code.
_HYPERNET_WIDTH = 8
_HYPERNET_STD = 0.01


class Affine(NamedTuple):
    """A dense layer frozen at a time: h -> gate * (W h) + bias.

    Shape: weight (out, in), or (B, out, in) where it depends on time and there is no gate;
    bias (out,) or (B, out); gate (B, out) or None for 1.
    """

    weight: Tensor
    bias: Tensor
    gate: Tensor | None = None

    def __call__(self, h: Tensor) -> Tensor:
        """h (B, in) -> (B, out)."""
        if self.weight.dim() == 3:
            return self.bias + (self.weight @ h.unsqueeze(2)).squeeze(2)
        if self.gate is None:
            return torch.addmm(self.bias, h, self.weight.T)
        return torch.addcmul(self.bias, self.gate, h @ self.weight.T)


class DenseLayer(nn.Module, ABC):
    """A layer whose weights may depend on the time."""

    @abstractmethod
    def at(self, t: Tensor) -> Affine:
        """Freeze the layer at the times t (B, 1) of the rows."""


class Modulated(DenseLayer):
    """sigmoid(a t + c) * (W [t; h] + b) + d t, with the parts that are switched on.

    With `time_column` the time is the first input; `gated` adds the sigmoid, `shifted` the d t.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        time_column: bool = False,
        gated: bool = False,
        shifted: bool = False,
    ) -> None:
        super().__init__()
        self.time_column = time_column
        self.linear = nn.Linear(in_features + time_column, out_features)
        self.gate = nn.Linear(1, out_features) if gated else None
        self.shift = nn.Linear(1, out_features, bias=False) if shifted else None

    def at(self, t: Tensor) -> Affine:
        """Freeze the layer at the times t (B, 1) of the rows."""
        weight: Tensor = self.linear.weight
        bias: Tensor = self.linear.bias
        if self.time_column:
            bias = torch.addcmul(bias, t, weight[:, 0])
            weight = weight[:, 1:]
        gate = None
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(t))
            bias = gate * bias
        if self.shift is not None:
            bias = torch.addcmul(bias, t, self.shift.weight[:, 0])
        return Affine(weight, bias, gate)


class Blend(DenseLayer):
    """(1 - t) (W0 h + b0) + t (W1 h + b1)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.start = nn.Linear(in_features, out_features)
        self.end = nn.Linear(in_features, out_features)

    def at(self, t: Tensor) -> Affine:
        """Freeze the layer at the times t (B, 1) of the rows."""
        start, end = self.start, self.end
        weight = torch.addcmul(start.weight, t.unsqueeze(2), end.weight - start.weight)
        return Affine(weight, torch.addcmul(start.bias, t, end.bias - start.bias))


class Hyper(DenseLayer):
    """W(t) h + b(t), with [b; W] (W in rows) the output of a network of t."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        numbers = (in_features + 1) * out_features
        self.hypernet = nn.Sequential(
            nn.Linear(1, _HYPERNET_WIDTH), nn.Tanh(), nn.Linear(_HYPERNET_WIDTH, numbers)
        )
        for index in (0, 2):
            layer = cast(nn.Linear, self.hypernet[index])
            nn.init.zeros_(layer.weight)
            nn.init.normal_(layer.bias, std=_HYPERNET_STD)

    def at(self, t: Tensor) -> Affine:
        """Freeze the layer at the times t (B, 1) of the rows."""
        numbers: Tensor = self.hypernet(t)
        weight = numbers[:, self.out_features :]
        return Affine(
            weight.unflatten(1, (self.out_features, self.in_features)),
            numbers[:, : self.out_features],
        )


_LAYERS: dict[DenseLayerType, Callable[[int, int], DenseLayer]] = {
    "ignore": Modulated,
    "concat": partial(Modulated, time_column=True),
    "squash": partial(Modulated, gated=True),
    "concatsquash": partial(Modulated, gated=True, shifted=True),
    "blend": Blend,
    "hyper": Hyper,
}


def dense_layer(kind: DenseLayerType, in_features: int, out_features: int) -> DenseLayer:
    """Make a layer of the named type; `DenseDynamics` says what each is."""
    return _LAYERS[kind](in_features, out_features)
