"""The transforms of zuko as layers of the `chain` family."""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.glow import check_invertible
from models.importers.layouts.networks import Block, Linear, Net, parameter_rows
from models.importers.report import ImportRefused
from models.importers.sources.zuko import monotone as zuko_monotone
from models.importers.sources.zuko.layers import (
    GAUSSIANIZATION,
    HOLE,
    Layer,
    has_masks,
    num_bins,
    phi_shapes,
)
from models.importers.weights import Weights

# The least slope that soft_clamp leaves, e^(log 1e-3).
_AFFINE_SLOPE = 1e-3
_AFFINE = {"kind": "affine", "scale": "soft_clamp", "form": "scale_then_shift"}
# With normalize=True every activation is followed by a layer of its own: three places a layer.
_PLAIN_STRIDE, _NORMALISED_STRIDE = 2, 3


class Settings(Protocol):
    """What the transforms need to know beside their tensors, read where it is used."""

    @property
    def features(self) -> int:
        """D."""

    @property
    def activation(self) -> str:
        """Of the networks."""

    @property
    def constructor(self) -> str:
        """Which class of the library made the flow."""

    @property
    def degree(self) -> int | None:
        """Of polynomials."""

    @property
    def polynomials(self) -> int | None:
        """How many squares SOSPF adds."""

    @property
    def network(self) -> Mapping[str, Any] | None:
        """Arguments of the features' networks of NAF and UNAF."""

    @property
    def slope(self) -> float:
        """The least slope of a univariate map."""

    @property
    def bound(self) -> float:
        """Where splines end."""


def convert(weights: Weights, layer: Layer, settings: Settings) -> Part:
    """Turn a transform into a layer."""
    makers: dict[str, Callable[[Weights, Layer, Settings], Part]] = {
        "autoregressive": _autoregressive,
        "coupling": _coupling,
        "conditional": _conditional,
        "elementwise": _elementwise,
        GAUSSIANIZATION: _gaussianization,
        "affine": _affine,
        "network": _neural,
        "integral": _neural,
        HOLE: lambda weights, layer, settings: zuko_monotone.softclip(),
        "rotation": _rotation,
        "lu": _lu,
        "permutation": _permutation,
    }
    return makers[layer.kind](weights, layer, settings)


def _univariate(params: int, settings: Settings) -> dict[str, Any]:
    if settings.constructor == "GF":
        return zuko_monotone.gaussianization(params)
    if params == 1:
        return {"kind": "additive"}
    if params == 2:
        if settings.slope != _AFFINE_SLOPE:
            raise ImportRefused(
                f"slope {settings.slope:g}: expected {_AFFINE_SLOPE:g} for affine maps, the "
                "library's default; another one cannot be expressed"
            )
        return dict(_AFFINE)
    if settings.constructor == "BPF":
        return zuko_monotone.bernstein(params, settings.degree, settings.bound)
    if settings.constructor == "SOSPF":
        degree, polynomials = settings.degree, settings.polynomials
        if degree is None or polynomials is None:
            raise ImportRefused(
                f"SOSPF: give degree and polynomials: {zuko_monotone.splits(params)}"
            )
        return zuko_monotone.sum_of_squares(params, degree, polynomials, settings.slope)
    spline = {
        "num_bins": num_bins(params),
        "bounds": "soft_clamp",
        "min_bin": settings.slope,
        "min_slope": settings.slope,
    }
    if settings.constructor == "NCSF":
        return {**spline, "kind": "circular_spline", "ends": "unit", "half_turn": True}
    return {**spline, "kind": "spline", "bound": settings.bound}


def _autoregressive(weights: Weights, layer: Layer, settings: Settings) -> Part:
    net = _hyper(weights, layer, settings)
    return chain_layers.autoregressive(layer.features, _univariate(layer.params, settings), net)


def _neural(weights: Weights, layer: Layer, settings: Settings) -> Part:
    if has_masks(weights, layer.name):
        net = _hyper(weights, layer, settings)
    elif layer.has_table:
        net = _of_nothing(_table(weights, layer))
    else:
        net = _of_context(weights, layer, settings, features=1)
    return zuko_monotone.neural(weights, layer, net, settings.network)


def _hyper(weights: Weights, layer: Layer, settings: Settings) -> Net:
    """The masked network of an autoregressive transform."""
    weights.skip(re.escape(f"{layer.name}order"), "the masks say the same")
    rows = parameter_rows(layer.features, range(layer.params))
    name = f"{layer.name}hyper"
    if weights.has(rf"{re.escape(name)}\.\d+\.0\.weight"):
        return _residual(weights, name, rows, settings.activation)
    linears = [_masked(weights, inner) for inner in _linears(weights, name)[0]]
    linears[-1] = linears[-1].rows(rows)
    return networks.mlp(linears, settings.activation)


def _residual(weights: Weights, name: str, rows: list[int], activation: str) -> Net:
    """Linear layers where the width changes, and a residual block behind each of them."""
    places = weights.indices(rf"{re.escape(name)}\.(\d+)\.")
    blocks: list[Block] = []
    bridge: Linear | None = None
    for place in places[1:-1]:
        inner = f"{name}.{place}"
        if f"{inner}.weight" in weights:
            bridge = _masked(weights, inner)
            continue
        first, second = (_masked(weights, f"{inner}.{index}") for index in (0, 2))
        blocks.append(Block(first, second, bridge=bridge))
        bridge = None
    entry = _masked(weights, f"{name}.{places[0]}")
    last = _masked(weights, f"{name}.{places[-1]}").rows(rows)
    return networks.resnet(
        entry, blocks, last, activation, pre_activation=False, context_mode="concatenate"
    )


def _coupling(weights: Weights, layer: Layer, settings: Settings) -> Part:
    mask = weights.take_integers(f"{layer.name}mask", layer.features)
    kept = mask.nonzero().flatten().tolist()
    net = _mlp(weights, layer, layer.features - len(kept), settings)
    return chain_layers.coupling(kept, layer.features, _univariate(layer.params, settings), net)


def _conditional(weights: Weights, layer: Layer, settings: Settings) -> Part:
    """An element-wise map with parameters from the context alone: no feature sees another."""
    features = settings.features
    net = _of_context(weights, layer, settings, features)
    elementwise = _univariate(layer.params // features, settings)
    return chain_layers.autoregressive(features, elementwise, net)


def _of_context(weights: Weights, layer: Layer, settings: Settings, features: int) -> Net:
    linears, options = mlp_layers(weights, f"{layer.name}hyper")
    linears[-1] = linears[-1].rows(parameter_rows(features, range(layer.params // features)))
    if len(linears) == 1:
        raise ImportRefused(f"{layer.name}hyper: expected hidden layers, got none")
    masked = networks.of_context_alone(linears, features)
    return networks.mlp(masked, settings.activation, **options)


def _mlp(weights: Weights, layer: Layer, moved: int, settings: Settings) -> Net:
    names, options = _linears(weights, f"{layer.name}hyper")
    linears = [_dense(weights, name) for name in names]
    linears[-1] = linears[-1].rows(parameter_rows(moved, range(layer.params)))
    return networks.mlp(linears, settings.activation, **options)


def mlp_layers(weights: Weights, name: str) -> tuple[list[Linear], dict[str, Any]]:
    """The layers of a zuko.nn.MLP, and further fields of `MLPConfig`."""
    names, options = _linears(weights, name)
    return [_dense(weights, inner) for inner in names], options


def _linears(weights: Weights, name: str) -> tuple[list[str], dict[str, Any]]:
    """The linear layers of a network, and whether its hidden units are normalised."""
    places = weights.indices(rf"{re.escape(name)}\.(\d+)\.weight")
    strides = {after - before for before, after in pairwise(places)}
    if strides - {_PLAIN_STRIDE} and strides != {_NORMALISED_STRIDE}:
        raise ImportRefused(f"{name}: expected a zuko.nn.MLP, got layers at {places}")
    options = {"normalise": True} if strides == {_NORMALISED_STRIDE} else {}
    return [f"{name}.{place}" for place in places], options


def _dense(weights: Weights, name: str) -> Linear:
    """A linear layer; with bias=False no layer of its network has a bias."""
    outputs, inputs = weights.shape(f"{name}.weight")
    weight = weights.take(f"{name}.weight", outputs, inputs)
    network = re.sub(r"(\.\d+)+$", "", name)
    if not weights.has(rf"{re.escape(network)}(\.\d+)+\.bias"):
        return Linear(weight, weight.new_zeros(outputs))
    return Linear(weight, weights.take(f"{name}.bias", outputs))


def _masked(weights: Weights, name: str) -> Linear:
    plain = _dense(weights, name)
    mask = weights.take_integers(f"{name}.mask", *plain.weight.shape).bool()
    return Linear(plain.weight, plain.bias, mask)


def _elementwise(weights: Weights, layer: Layer, settings: Settings) -> Part:
    return _pointwise(weights, layer, _univariate(layer.params, settings))


def _gaussianization(weights: Weights, layer: Layer, settings: Settings) -> Part:
    return _pointwise(weights, layer, zuko_monotone.gaussianization(layer.params))


def _table(weights: Weights, layer: Layer) -> Tensor:
    """Parameters of the features themselves, (D, parameters)."""
    phi = [
        weights.take(f"{layer.name}phi.{index}", *shape).view(layer.features, -1)
        for index, shape in enumerate(phi_shapes(weights, layer.name))
    ]
    return torch.cat(phi, 1)


def _of_nothing(table: Tensor) -> Net:
    """A network of one feature that sees nothing: its outputs are the numbers of a table."""
    entry = Linear(table.new_zeros(1, 0), table.new_zeros(1))
    last = Linear(table.new_zeros(table.shape[1], 1), table[0])
    return networks.mlp(networks.of_context_alone([entry, last], 1), "identity")


def _pointwise(weights: Weights, layer: Layer, elementwise: dict[str, Any]) -> Part:
    return Part(
        {
            "kind": "pointwise",
            "chosen": list(range(layer.features)),
            "elementwise": elementwise,
        },
        {"params": _table(weights, layer).T},
    )


def _affine(weights: Weights, layer: Layer, settings: Settings) -> Part:
    """y = loc + scale x, an UnconditionalTransform around an AffineTransform."""
    loc, scale = affine_constants(weights, layer, settings.features)
    return Part(
        {"kind": "actnorm", "form": "scale_then_shift", "storage": "direct"},
        {"scale": scale, "shift": loc},
    )


def affine_constants(weights: Weights, layer: Layer, features: int) -> tuple[Tensor, Tensor]:
    """Loc and scale (D,), where the source may have one number for all features."""
    loc, scale = (
        weights.take(f"{layer.name}{key}", *weights.shape(f"{layer.name}{key}")).expand(features)
        for key in ("loc", "scale")
    )
    return loc, scale


def _rotation(weights: Weights, layer: Layer, settings: Settings) -> Part:
    raw = weights.take(f"{layer.name}A", layer.features, layer.features)
    rotation: Tensor = torch.linalg.matrix_exp(raw - raw.T)
    return chain_layers.linear(rotation)


def _lu(weights: Weights, layer: Layer, settings: Settings) -> Part:
    both = weights.take(f"{layer.name}LU", layer.features, layer.features)
    unit = both.triu(1) + torch.eye(layer.features, dtype=both.dtype)
    matrix = both.tril() @ unit
    check_invertible(weights, f"{layer.name}LU", matrix)
    return chain_layers.linear(matrix)


def _permutation(weights: Weights, layer: Layer, settings: Settings) -> Part:
    return chain_layers.permute(
        weights.take_integers(f"{layer.name}order", layer.features).tolist()
    )
