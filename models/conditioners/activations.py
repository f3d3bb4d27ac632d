"""Pointwise nonlinearities by name."""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Literal[
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "sigmoid",
    "tanh",
    "identity",
]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


def pointwise(name: Activation, negative_slope: float = 0.01) -> Callable[[Tensor], Tensor]:
    """The named activation.

    Raises:
        ValueError: if there is none of this name.
    """
    if name not in get_args(Activation):
        raise ValueError(f"activation: expected one of {get_args(Activation)}, got {name!r}")
    if name == "leaky_relu":
        return partial(F.leaky_relu, negative_slope=negative_slope)
    return _ACTIVATIONS[name]
