"""What sources of transformers share: the state of our `Transformer`."""

from typing import NamedTuple

from torch import Tensor

from models.importers.source import Fragment
from models.importers.weights import Weights


class Names(NamedTuple):
    """What the modules of a block are called."""

    attention_norm: str
    project: str
    mlp_norm: str
    expand: str
    contract: str


def linear(weights: Weights, name: str, outputs: int, inputs: int) -> Fragment:
    """A linear layer with a bias."""
    return {
        "weight": weights.take(f"{name}.weight", outputs, inputs),
        "bias": weights.take(f"{name}.bias", outputs),
    }


def norm(weights: Weights, name: str, width: int) -> Fragment:
    """A layer norm with weight and bias."""
    parts = ("weight", "bias")
    return {part: weights.take(f"{name}.{part}", width) for part in parts}


def block(weights: Weights, names: Names, qkv: Fragment, width: int) -> Fragment:
    """One pre-norm block, four times as wide inside, whose queries, keys and values are taken."""
    parts = {
        "attention_norm": norm(weights, names.attention_norm, width),
        "qkv": qkv,
        "project": linear(weights, names.project, width, width),
        "mlp_norm": norm(weights, names.mlp_norm, width),
        "expand": linear(weights, names.expand, 4 * width, width),
        "contract": linear(weights, names.contract, width, 4 * width),
    }
    return {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}


def swap_halves(layer: Fragment) -> Fragment:
    """A linear layer whose two halves of outputs come in the other order."""
    return {key: _swapped(value) for key, value in layer.items()}


def _swapped(value: Tensor) -> Tensor:
    return value.roll(len(value) // 2, 0)
