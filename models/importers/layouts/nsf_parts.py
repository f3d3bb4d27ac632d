"""What nflows and normflows share, both having it from bayesiains/nsf: networks, splines, LU.

Their networks end in all the parameters of the first feature, then those of the second, and so on
(affine couplings in one block a parameter). A residual block is h + W_2 a(W_1 a(h) + b_1) + b_2,
with batch norms of eps 1e-3 in front of the activations where asked for.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import Block, Linear, Net
from models.importers.report import ImportRefused
from models.importers.source import Fragment
from models.importers.weights import Weights

_BATCH_NORM_EPS = 1e-3


@dataclass(frozen=True, slots=True)
class Spline:
    """Arguments of the constructors of splines that no tensor shows."""

    tail_bound: float
    min_bin: float
    min_derivative: float

    def describe(self, num_bins: int, divisor: float = 1.0) -> dict[str, Any]:
        """As an elementwise map of a layer."""
        return {
            "kind": "spline",
            "num_bins": num_bins,
            "bound": self.tail_bound,
            "bounds": "floor",
            "min_bin": self.min_bin,
            "min_slope": self.min_derivative,
            "divisor": divisor,
        }


def num_bins(outputs: int, name: str) -> int:
    """K from the 3 K - 1 parameters a feature of a rational-quadratic spline with linear tails.

    Raises:
        ImportRefused: if there is no such K.
    """
    bins = chain_layers.spline_bins(outputs)
    if bins is None:
        raise ImportRefused(
            f"{name}: {outputs} parameters a feature; expected 1 (additive), 2 (affine) or "
            "3 K - 1 (a rational-quadratic spline of K bins with linear tails). Splines without "
            "tails or with circular ones, and linear, quadratic and cubic splines, cannot be "
            "imported"
        )
    return bins


def dense(weights: Weights, name: str) -> Linear:
    """A linear layer of whatever shape it has."""
    outputs, inputs = _matrix(weights, f"{name}.weight")
    return networks.linear(weights, name, outputs, inputs)


def masked(weights: Weights, name: str) -> Linear:
    """A masked linear layer of whatever shape it has."""
    outputs, inputs = _matrix(weights, f"{name}.weight")
    return networks.linear(weights, name, outputs, inputs, mask=f"{name}.mask")


def residual_net(
    weights: Weights, name: str, activation: str, *, rows: list[int] | None, unused_context: int = 0
) -> Net:
    """A `ResidualNet`; with a context it sees it at the entry, and every block is gated by it.

    Args:
        rows: the order of the outputs.
        unused_context: length of a context that the flow has and this network does not take.

    Raises:
        ImportRefused: if it is another network, or convolutional.
    """
    check_net(weights, name)
    count = weights.count(rf"{name}\.blocks\.(\d+)\.")
    blocks = [_residual_block(weights, f"{name}.blocks.{index}", dense) for index in range(count)]
    last = dense(weights, f"{name}.final_layer")
    return networks.resnet(
        dense(weights, f"{name}.initial_layer").with_unused_context(unused_context),
        blocks,
        last if rows is None else last.rows(rows),
        activation,
        context_mode="gate" if blocks and blocks[0].context else "concatenate",
    )


def check_net(weights: Weights, name: str) -> None:
    """Refuse what is not a `ResidualNet` over vectors.

    Raises:
        ImportRefused: if it is not.
    """
    if not all(f"{name}.{part}_layer.weight" in weights for part in ("initial", "final")):
        raise ImportRefused(
            f"{name}: expected a ResidualNet of the library (initial_layer, blocks, final_layer); "
            "networks of users' own cannot be imported, their code is not in the checkpoint"
        )
    _matrix(weights, f"{name}.initial_layer.weight")


def _matrix(weights: Weights, key: str) -> tuple[int, int]:
    shape = weights.shape(key)
    if len(shape) != 2:
        raise ImportRefused(
            f"{key}: shape {shape}, a convolution; of this library flows over vectors can be "
            "imported"
        )
    return shape[0], shape[1]


def _residual_block(weights: Weights, name: str, read: Any) -> Block:
    context = f"{name}.context_layer"
    return Block(
        first=read(weights, f"{name}.linear_layers.0"),
        second=read(weights, f"{name}.linear_layers.1"),
        context=dense(weights, context) if f"{context}.weight" in weights else None,
        norms=_norms(weights, name),
    )


def _norms(weights: Weights, name: str) -> tuple[Fragment, ...]:
    if f"{name}.batch_norm_layers.0.weight" not in weights:
        return ()
    return tuple(_norm(weights, f"{name}.batch_norm_layers.{index}") for index in range(2))


def _norm(weights: Weights, name: str) -> Fragment:
    width = weights.shape(f"{name}.weight")[0]
    state = {
        key: weights.take(f"{name}.{key}", width)
        for key in ("weight", "bias", "running_mean", "running_var")
    }
    state["num_batches_tracked"] = weights.take_integers(f"{name}.num_batches_tracked")
    return state


@dataclass(frozen=True, slots=True)
class MADE:
    """How a library's MADE differs from the other's.

    Attributes:
        enters_active: whether a feed-forward MADE applies its activation behind the first layer.
        gates: whether the context gates the residual blocks, as in `ResidualNet`; else it is added.
        enters_straight: whether the context is added to the first layer as it is, in front of the
            activation.
    """

    enters_active: bool
    gates: bool
    enters_straight: bool = False


def made(
    weights: Weights,
    name: str,
    activation: str,
    style: MADE,
    *,
    rows: list[int],
    unused_context: int = 0,
    zero_inputs: int = 0,
) -> Net:
    """A `MADE` with residual or feed-forward blocks; its masks are stored.

    Args:
        rows: the order of the outputs.
        unused_context: length of a context that the flow has and this network does not take.
        zero_inputs: how many inputs in front of the features are always zero.
    """
    entry = masked(weights, f"{name}.initial_layer").with_unused_context(unused_context)
    if zero_inputs:
        entry = entry.columns(range(zero_inputs, entry.weight.shape[1]))
    key = f"{name}.context_layer"
    context = dense(weights, key) if f"{key}.weight" in weights else None
    if context is not None and (style.gates or style.enters_straight):
        entry, context = entry.with_context(context.weight, context.bias), None
    count = weights.count(rf"{name}\.blocks\.(\d+)\.")
    last = masked(weights, f"{name}.final_layer").rows(rows)
    if weights.has(rf"{name}\.blocks\.0\.linear\.weight"):
        hidden = [_feedforward(weights, f"{name}.blocks.{index}") for index in range(count)]
        first = activation if style.enters_active else "identity"
        acts = [first, *[activation] * count]
        return networks.mlp([entry, *hidden, last], acts, context=context)
    blocks = [_residual_block(weights, f"{name}.blocks.{index}", masked) for index in range(count)]
    mode = "gate" if style.gates else "concatenate_and_add" if style.enters_straight else "add"
    if not (blocks and blocks[0].context):
        mode = "concatenate" if context is None else "add"
    return networks.resnet(entry, blocks, last, activation, context=context, context_mode=mode)


def _feedforward(weights: Weights, name: str) -> Linear:
    linear = masked(weights, f"{name}.linear")
    if f"{name}.batch_norm.weight" not in weights:
        return linear
    norm = _norm(weights, f"{name}.batch_norm")
    scale = norm["weight"] / (norm["running_var"] + _BATCH_NORM_EPS).sqrt()
    return linear.behind(scale, norm["bias"] - norm["running_mean"] * scale)


def unconditional(weights: Weights, name: str, chosen: list[int], spline: Spline) -> Part:
    """Splines of their own for some features: `PiecewiseRationalQuadraticCDF`."""
    raw = []
    bins = weights.shape(f"{name}.unnormalized_widths")[-1]
    derivatives = weights.shape(f"{name}.unnormalized_derivatives")[-1]
    if derivatives != bins - 1:
        raise ImportRefused(
            f"{name}: {derivatives} derivatives for {bins} bins; expected {bins - 1}, as with "
            "linear tails; other tails cannot be imported"
        )
    for key, count in (("widths", bins), ("heights", bins), ("derivatives", derivatives)):
        raw.append(weights.take(f"{name}.unnormalized_{key}", len(chosen), count))
    layer = {"kind": "pointwise", "chosen": chosen, "elementwise": spline.describe(bins)}
    return Part(layer, {"params": torch.cat(raw, 1).T})


def lu_linear(weights: Weights, name: str) -> Part:
    """y = L U x + b; the entries of both are stored row by row, U's diagonal as softplus + 1e-3."""
    size = weights.shape(f"{name}bias")[0]
    lower = _triangle(weights.take(f"{name}lower_entries", size * (size - 1) // 2), size, -1)
    upper = _triangle(weights.take(f"{name}upper_entries", size * (size - 1) // 2), size, 1)
    state = {
        "lower": lower,
        "upper": upper,
        "raw_diagonal": weights.take(f"{name}unconstrained_upper_diag", size),
        "sign": torch.ones(size, dtype=torch.float64),
        "permutation.indices": torch.arange(size),
        "bias": weights.take(f"{name}bias", size),
    }
    return Part({"kind": "linear", "matrix": "lu", "diagonal": "softplus", "bias": True}, state)


def _triangle(entries: Tensor, size: int, diagonal: int) -> Tensor:
    matrix = entries.new_zeros(size, size)
    find = torch.tril_indices if diagonal < 0 else torch.triu_indices
    rows, columns = find(size, size, diagonal)
    matrix[rows, columns] = entries
    return matrix


def encoded_gaussian(
    weights: Weights, layers: list[str], features: int, activation: str, **options: Any
) -> Part:
    """A Gaussian base whose mean and log deviation, as halves, an encoder makes of the context.

    With hidden layers it is an affine map in which no feature sees another.

    Args:
        layers: names of the encoder's linear layers.
        activation: between them.
        options: further fields of `MLPConfig`.

    Raises:
        ImportRefused: if its last layer has another number of outputs.
    """
    linears = [dense(weights, name) for name in layers]
    if len(linears[-1].bias) != 2 * features:
        raise ImportRefused(
            f"{layers[-1]}: expected {2 * features} outputs, a mean and a log deviation for each "
            f"feature, got {len(linears[-1].bias)}"
        )
    if len(linears) == 1:
        mean, log_std = linears[0].bias.chunk(2)
        of_mean, of_log_std = linears[0].weight.T.chunk(2, 1)
        return chain_layers.gaussian(mean, log_std, (of_mean, of_log_std))
    elementwise = {"kind": "affine", "scale": "exp", "form": "unshift_then_unscale"}
    net = networks.mlp(networks.of_context_alone(linears, features), activation, **options)
    return chain_layers.autoregressive(features, elementwise, net)
