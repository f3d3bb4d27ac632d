"""Arguments of zuko's constructors that the keys show: compared with what a user gives."""

import re
from itertools import pairwise

from models.importers.source import Inference
from models.importers.sources.zuko.layers import GAUSSIANIZATION, HOLE, Layer
from models.importers.weights import Weights

_AUTOREGRESSIVE = ("MAF", "NSF", "NCSF", "BPF", "SOSPF")
# Constructors whose flows have transforms of a kind, the usual one first.
_CONSTRUCTORS = {
    "autoregressive": _AUTOREGRESSIVE,
    GAUSSIANIZATION: ("GF",),
    # GF with a context, or a flow of one feature, which sees no other.
    "conditional": ("Flow", "GF", *_AUTOREGRESSIVE, "NICE", "RealNVP"),
    "elementwise": ("Flow", *_AUTOREGRESSIVE, "NICE", "RealNVP"),
    "network": ("NAF",),
    "integral": ("UNAF",),
    "coupling": ("NICE", "RealNVP"),
    "cnf": ("CNF",),
}


def constructors(layers: list[Layer]) -> tuple[str, ...]:
    """What a flow of such transforms can have been made by; Flow is for any, by hand."""
    # An affine map with constants is put in front by hand, as sbi does, whatever made the others.
    kinds = {layer.kind for layer in layers} - {"affine", HOLE}
    if kinds & {GAUSSIANIZATION, "conditional"}:
        kinds -= {"rotation"}  # stands between the transforms of GF
    own = _CONSTRUCTORS.get(kinds.pop(), ()) if len(kinds) == 1 else ()
    return own if "Flow" in own else (*own, "Flow")


def has_hidden_layers(weights: Weights) -> bool:
    """Whether any network has more than one linear layer."""
    return weights.has(r".*(hyper|ode)\.[1-9]\d*\..*")


def show(weights: Weights, seen: Inference, layers: list[Layer]) -> None:
    """Note what the keys show of the arguments that a conversion does without."""
    _show_components(seen, layers)
    nets = [layer for layer in layers if layer.has_net]
    if not nets:
        _show_tables(seen, layers)
        return
    seen.show("transforms", len(nets), reason=f"{len(nets)} transforms with networks")
    _show_widths(weights, seen, nets)
    kinds = {layer.kind for layer in nets}
    if kinds in ({"autoregressive"}, {"network"}, {"integral"}):
        _show_orders(weights, seen, nets)
        residual = weights.has(r".*hyper\.\d+\.0\.weight")
        seen.show("residual", residual, reason="blocks in the networks, or none")
    if kinds == {"coupling"}:
        _show_masks(weights, seen, nets)


def _show_components(seen: Inference, layers: list[Layer]) -> None:
    """What GF has: with a context its networks show it."""
    maps = [layer for layer in layers if layer.kind in (GAUSSIANIZATION, "conditional")]
    counts = {layer.per_feature(seen.found["features"].value) // 2 for layer in maps}
    if len(counts) == 1:
        seen.show("components", *counts, reason="parameters a feature")
    if maps and not any(layer.has_net for layer in layers):
        seen.show("transforms", len(maps), reason="element-wise transforms")


def _show_tables(seen: Inference, layers: list[Layer]) -> None:
    """What a flow of one feature without a context has, whatever its networks were to be."""
    tables = [layer for layer in layers if layer.has_table or layer.kind == "elementwise"]
    if not tables:
        return
    seen.show("transforms", len(tables), reason=f"{len(tables)} transforms with tables")
    for name in ("hidden_features", "normalize", "residual", "passes", "randperm"):
        seen.mark_idle(name, "there is no network")


def _show_widths(weights: Weights, seen: Inference, nets: list[Layer]) -> None:
    """Widths and normalisation of plain networks, where all have the same."""
    found, strides = set(), set()
    for layer in nets:
        name = f"{layer.name}{'ode' if layer.kind == 'cnf' else 'hyper'}"
        places = weights.indices(rf"{re.escape(name)}\.(\d+)\.weight")
        if weights.has(rf"{re.escape(name)}\.\d+\.0\.weight"):
            return
        found.add(tuple(weights.shape(f"{name}.{place}.weight")[0] for place in places[:-1]))
        strides |= {after - before for before, after in pairwise(places)}
    if len(found) == 1:
        seen.show("hidden_features", list(found.pop()), reason="outputs of the layers")
    if len(strides) == 1:
        seen.show("normalize", strides == {3}, reason="places of the layers")


def _show_orders(weights: Weights, seen: Inference, nets: list[Layer]) -> None:
    keys = [f"{layer.name}order" for layer in nets]
    if not all(key in weights for key in keys):
        return
    orders = [weights.peek(key).long().tolist() for key in keys]
    passes = {max(order) + 1 for order in orders}
    seen.show("passes", *[*passes, *([None] if passes == {len(orders[0])} else [])], reason=keys[0])
    ascending = sorted(orders[0])
    is_plain = all(
        order == (ascending if index % 2 == 0 else ascending[::-1])
        for index, order in enumerate(orders)
    )
    # A random permutation may be any of them, the plain ones too.
    seen.show("randperm", *((False, True) if is_plain else (True,)), reason=keys[0])


def _show_masks(weights: Weights, seen: Inference, nets: list[Layer]) -> None:
    masks = [weights.peek(f"{layer.name}mask").long().tolist() for layer in nets]
    is_plain = all(
        mask == [int(feature % 2 == index % 2) for feature in range(len(mask))]
        for index, mask in enumerate(masks)
    )
    seen.show("randmask", *((False, True) if is_plain else (True,)), reason="the masks")
