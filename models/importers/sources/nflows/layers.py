"""The transforms of nflows, one by one: recognised by their tensors, as layers of a `chain`.

`inverted` transforms stand inside an `InverseTransform`: data go through them backwards.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import parameter_rows
from models.importers.layouts.nsf_parts import (
    MADE,
    Spline,
    check_net,
    made,
    num_bins,
    residual_net,
    unconditional,
)
from models.importers.report import ImportRefused
from models.importers.source import Fragment
from models.importers.sources.nflows import linear as nflows_linear
from models.importers.weights import Weights

_BATCH_NORM_EPS = 1e-5
_MADE = MADE(enters_active=True, gates=False)

# What a transform is, by a key that it has and those further down have not.
_KINDS = {
    "identity_features": "coupling",
    "autoregressive_net.initial_layer.weight": "autoregressive",
    "permutation._permutation": "one_by_one",
    "_permutation": "permutation",
    "lower_entries": "lu",
    "orthogonal_1.q_vectors": "svd",
    "orthogonal.q_vectors": "qr",
    "q_vectors": "householder",
    "_weight": "naive",
    "unconstrained_weight": "batch_norm",
    "log_scale": "actnorm",
    "_scale": "affine",
    "unnormalized_widths": "pointwise",
}


class Settings(Protocol):
    """What the transforms need to know beside their tensors, read where it is used."""

    @property
    def features(self) -> int:
        """D."""

    @property
    def activation(self) -> str:
        """Of the networks."""

    @property
    def tails(self) -> str:
        """Of splines."""

    @property
    def tail_bound(self) -> float:
        """Where splines end."""

    @property
    def min_bin_width(self) -> float:
        """Of splines."""

    @property
    def min_bin_height(self) -> float:
        """Of splines."""

    @property
    def min_derivative(self) -> float:
        """Of splines."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One transform.

    Attributes:
        name: the prefix of its keys.
        features: D where its tensors show it, else 0.
        context: length of the context its network takes.
        params: outputs of its network for every feature that moves.
    """

    name: str
    kind: str
    inverted: bool
    features: int = 0
    context: int = 0
    params: int = 0

    @property
    def net(self) -> str:
        """The name of its network."""
        own = "transform_net" if self.kind == "coupling" else "autoregressive_net"
        return f"{self.name}{own}"


def recognise(weights: Weights, name: str, *, inverted: bool) -> Leaf:
    """Find out which transform the keys below a prefix belong to.

    Raises:
        ImportRefused: if it is none that can be imported.
    """
    kind = next((kind for key, kind in _KINDS.items() if f"{name}{key}" in weights), "")
    if kind == "coupling":
        kept = weights.shape(f"{name}identity_features")[0]
        moved = weights.shape(f"{name}transform_features")[0]
        net = f"{name}transform_net"
        check_net(weights, net)
        inputs = weights.shape(f"{net}.initial_layer.weight")[1]
        outputs = weights.shape(f"{net}.final_layer.weight")[0]
        return Leaf(name, kind, inverted, kept + moved, inputs - kept, outputs // moved)
    if kind == "autoregressive":
        net = f"{name}autoregressive_net"
        features = weights.shape(f"{net}.initial_layer.weight")[1]
        outputs = weights.shape(f"{net}.final_layer.weight")[0]
        told = f"{net}.context_layer.weight"
        context = weights.shape(told)[1] if told in weights else 0
        return Leaf(name, kind, inverted, features, context, outputs // features)
    if kind == "one_by_one" or not kind:
        keys = weights.under(name)
        raise ImportRefused(
            f"{name.rstrip('.') or 'transform'}: with keys such as {', '.join(keys[:3]) or 'none'} "
            "not a transform of nflows over vectors that can be imported"
        )
    return Leaf(name, kind, inverted, _features(weights, name, kind))


def _features(weights: Weights, name: str, kind: str) -> int:
    """D as the tensors of a transform without a network show it; 0 where they do not."""
    key = next(key for key, known in _KINDS.items() if known == kind)
    shape = weights.shape(f"{name}{'bias' if kind == 'lu' else key}")
    if kind == "pointwise":
        return shape[0]
    return shape[-1] if shape else 0


def convert(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    """Turn a transform into layers."""
    makers: dict[str, Callable[[Weights, Leaf, Settings], list[Part]]] = {
        "coupling": _coupling,
        "autoregressive": _autoregressive,
        "permutation": _permutation,
        "lu": _linear,
        "svd": _linear,
        "qr": _linear,
        "naive": _linear,
        "householder": _linear,
        "batch_norm": _batch_norm,
        "actnorm": _actnorm,
        "affine": _affine,
        "pointwise": _pointwise,
    }
    return makers[leaf.kind](weights, leaf, settings)


def _coupling(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    kept, moved = (
        weights.take_integers(key, *weights.shape(key)).tolist()
        for key in (f"{leaf.name}identity_features", f"{leaf.name}transform_features")
    )
    if leaf.params > 2:
        return _spline_coupling(weights, leaf, settings, kept, len(moved))
    net = residual_net(weights, leaf.net, settings.activation, rows=None)
    if leaf.params == 1:
        elementwise: dict[str, Any] = {"kind": "additive"}
        if leaf.inverted:
            raise _no_inverse(leaf)
    else:
        elementwise = {
            "kind": "affine",
            "scale": "floored_sigmoid",
            "form": "unshift_then_unscale" if leaf.inverted else "scale_then_shift",
        }
    return [chain_layers.coupling(kept, settings.features, elementwise, net)]


def _spline_coupling(
    weights: Weights, leaf: Leaf, settings: Settings, kept: list[int], moved: int
) -> list[Part]:
    if leaf.inverted:
        raise _no_inverse(leaf)
    bins = num_bins(leaf.params, leaf.name)
    rows = parameter_rows(moved, range(leaf.params))
    net = residual_net(weights, leaf.net, settings.activation, rows=rows)
    width = weights.shape(f"{leaf.net}.initial_layer.weight")[0]
    elementwise = _spline(settings).describe(bins, divisor=math.sqrt(width))
    parts = [chain_layers.coupling(kept, settings.features, elementwise, net)]
    name = f"{leaf.name}unconditional_transform"
    if f"{name}.unnormalized_widths" in weights:
        parts.append(unconditional(weights, name, kept, _spline(settings)))
    return parts


def _autoregressive(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    features = settings.features
    if leaf.params == 2:
        # (scale, shift) side by side a feature.
        rows = parameter_rows(features, [1, 0])
        elementwise: dict[str, Any] = {
            "kind": "affine",
            "scale": "floored_softplus",
            "form": "scale_then_shift",
        }
    else:
        rows = parameter_rows(features, range(leaf.params))
        elementwise = _spline(settings).describe(num_bins(leaf.params, leaf.name))
    net = made(weights, leaf.net, settings.activation, _MADE, rows=rows)
    one_pass = "decode" if leaf.inverted else "encode"
    return [chain_layers.autoregressive(features, elementwise, net, one_pass)]


def _permutation(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    indices = weights.take_integers(f"{leaf.name}_permutation", settings.features)
    return [chain_layers.permute((indices.argsort() if leaf.inverted else indices).tolist())]


def _linear(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    size = settings.features
    return [nflows_linear.convert(weights, leaf.kind, leaf.name, size, inverted=leaf.inverted)]


def _batch_norm(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    if leaf.inverted:
        raise _no_inverse(leaf)
    names = {
        "weight": "unconstrained_weight",
        "bias": "bias",
        "running_mean": "running_mean",
        "running_var": "running_var",
    }
    state: Fragment = {
        ours: weights.take(f"{leaf.name}{theirs}", settings.features)
        for ours, theirs in names.items()
    }
    return [Part({"kind": "batch_norm", "scale": "softplus", "eps": _BATCH_NORM_EPS}, state)]


def _actnorm(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    log_scale = weights.take(f"{leaf.name}log_scale", settings.features)
    shift = weights.take(f"{leaf.name}shift", settings.features)
    return [_scaling(log_scale, shift, inverted=leaf.inverted)]


def _affine(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    """A PointwiseAffineTransform, whose constants may be numbers for all features."""
    scale, shift = (
        weights.take(key, *weights.shape(key)).expand(settings.features)
        for key in (f"{leaf.name}_scale", f"{leaf.name}_shift")
    )
    return [_scaling(scale.log(), shift, inverted=leaf.inverted)]


def _scaling(log_scale: Tensor, shift: Tensor, *, inverted: bool) -> Part:
    form = "unshift_then_unscale" if inverted else "scale_then_shift"
    return Part(
        {"kind": "actnorm", "form": form, "storage": "log"},
        {"log_scale": log_scale, "shift": shift},
    )


def _pointwise(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    if leaf.inverted:
        raise _no_inverse(leaf)
    name = leaf.name.rstrip(".")
    return [unconditional(weights, name, list(range(settings.features)), _spline(settings))]


def _spline(settings: Settings) -> Spline:
    """What the constructors of splines were told.

    Raises:
        ImportRefused: for tails and minima that cannot be expressed.
    """
    if settings.tails != "linear":
        raise ImportRefused(
            f"tails {settings.tails!r}: of nflows' splines the rational-quadratic ones with linear "
            "tails can be imported"
        )
    if settings.min_bin_width != settings.min_bin_height:
        raise ImportRefused(
            f"min_bin_width {settings.min_bin_width} and min_bin_height "
            f"{settings.min_bin_height}: expected the same for both"
        )
    return Spline(settings.tail_bound, settings.min_bin_width, settings.min_derivative)


def _no_inverse(leaf: Leaf) -> ImportRefused:
    return ImportRefused(
        f"{leaf.name.rstrip('.')}: an InverseTransform of a {leaf.kind} cannot be imported; of "
        "affine couplings, autoregressive maps, linears, permutations and ActNorm it can"
    )
