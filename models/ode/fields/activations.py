"""Pointwise nonlinearities that give their slope beside their value."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Nonlinearity = Literal["tanh", "relu", "softplus", "elu", "selu", "swish", "square", "identity"]

# Klambauer et al. 2017 (arXiv 1706.02515), appendix A.1: the constants torch uses.
_SELU_ALPHA = 1.6732632423543772
_SELU_SCALE = 1.0507009873554805


def _selu_slope(x: Tensor, y: Tensor) -> Tensor:
    # For x <= 0, y = s a (e^x - 1), so s a e^x = y + s a.
    return torch.where(x > 0, _SELU_SCALE, y + _SELU_SCALE * _SELU_ALPHA)


# name -> (value y(x), slope dy/dx from x and y). At a kink the slope is the one autograd takes.
_POINTWISE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "tanh": (torch.tanh, lambda x, y: 1 - y * y),
    "relu": (torch.relu, lambda x, y: (x > 0).to(x.dtype)),
    "softplus": (F.softplus, lambda x, y: torch.sigmoid(x)),
    "elu": (F.elu, lambda x, y: y.clamp(max=0) + 1),
    "selu": (F.selu, _selu_slope),
    "square": (torch.square, lambda x, y: 2 * x),
    "identity": (lambda x: x, lambda x, y: torch.ones_like(x)),
}


class Activation(nn.Module, ABC):
    """y = sigma(x) element by element, and sigma'(x) where it is asked for."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Y = sigma(x), any shape."""

    @abstractmethod
    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Sigma'(x) from x and y = sigma(x)."""

    def with_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both sigma(x) and sigma'(x), each of the shape of x."""
        y = self(x)
        return y, self.slope(x, y)


class Fixed(Activation):
    """A nonlinearity without parameters, by name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._value, self._slope = _POINTWISE[name]

    def forward(self, x: Tensor) -> Tensor:
        """Y = sigma(x), any shape."""
        return self._value(x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Sigma'(x) from x and y = sigma(x)."""
        return self._slope(x, y)


class Swish(Activation):
    """y = x sigmoid(beta x) with a learned scalar beta.

    Reference: Ramachandran et al. 2017 (arXiv 1710.05941).
    """

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Y = x sigmoid(beta x), any shape."""
        return x * torch.sigmoid(self.beta * x)

    def slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Sigma'(x) from x and y = sigma(x)."""
        gate = torch.sigmoid(self.beta * x)
        return gate + self.beta * y * (1 - gate)


def activation(name: str) -> Activation:
    """Make the named nonlinearity.

    Raises:
        ValueError: if the name is none of `Nonlinearity`.
    """
    if name not in get_args(Nonlinearity):
        known = ", ".join(get_args(Nonlinearity))
        raise ValueError(f"nonlinearity: expected one of {known}; got {name!r}")
    return Swish() if name == "swish" else Fixed(name)
