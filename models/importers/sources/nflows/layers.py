"""The transforms of nflows, one by one, as layers of a `chain`.

`inverted` transforms stand inside an `InverseTransform`: data go through them backwards.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import parameter_rows
from models.importers.layouts.nsf_parts import (
    MADE,
    Spline,
    dense,
    made,
    num_bins,
    residual_net,
    unconditional,
)
from models.importers.report import ImportRefused
from models.importers.source import Fragment
from models.importers.sources.nflows import linear as nflows_linear
from models.importers.sources.nflows.leaves import Leaf
from models.importers.weights import Weights

_BATCH_NORM_EPS = 1e-5
_MADE = MADE(enters_active=True, gates=False)


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


def convert(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    """Turn a transform into layers."""
    makers: dict[str, Callable[[Weights, Leaf, Settings], list[Part]]] = {
        "coupling": _coupling,
        "autoregressive": _autoregressive,
        "context_spline": _context_spline,
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
        return _spline_coupling(weights, leaf, settings, kept, num_moved=len(moved))
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
    weights: Weights, leaf: Leaf, settings: Settings, kept: list[int], *, num_moved: int
) -> list[Part]:
    if leaf.inverted:
        raise _no_inverse(leaf)
    bins = num_bins(leaf.params, leaf.name)
    rows = parameter_rows(num_moved, range(leaf.params))
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


def _context_spline(weights: Weights, leaf: Leaf, settings: Settings) -> list[Part]:
    """A spline of one feature, whose parameters a network makes of the context alone."""
    if leaf.inverted:
        raise _no_inverse(leaf)
    weights.take_integers(f"{leaf.name}identity_features", 0)
    weights.take_integers(f"{leaf.name}transform_features", leaf.features)
    linears = [dense(weights, name) for name in leaf.linears(weights)]
    linears[-1] = linears[-1].rows(parameter_rows(leaf.features, range(leaf.params)))
    net = networks.mlp(networks.of_context_alone(linears, leaf.features), "relu")
    width = weights.shape(leaf.first_weight)[0]
    bins = num_bins(leaf.params, leaf.name)
    elementwise = _spline(settings).describe(bins, divisor=math.sqrt(width))
    return [chain_layers.autoregressive(leaf.features, elementwise, net)]


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
    """Arguments of the constructors of splines.

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
