"""What sources of transformers share: the state of our `Transformer`."""

from torch import Tensor

from models.importers.source import Fragment
from models.importers.weights import Weights


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


def swap_halves(layer: Fragment) -> Fragment:
    """A linear layer whose two halves of outputs come in the other order."""
    return {key: _swapped(value) for key, value in layer.items()}


def _swapped(value: Tensor) -> Tensor:
    return value.roll(len(value) // 2, 0)
