"""The transforms of zuko, one by one, recognised by their tensors."""

import re
from dataclasses import dataclass, replace

from models.importers.layouts.chain_layers import spline_bins
from models.importers.report import ImportRefused
from models.importers.weights import Weights

# What a transform is, by a pattern that a key of it matches.
_KINDS = {
    r"univariate\.network\..*": "network",
    r"univariate\.integrand\..*": "integral",
    r"loc": "affine",
    r"ode\.0\.weight": "cnf",
    r"hyper\.0\.mask": "autoregressive",
    r"mask": "coupling",
    r"hyper\.0\.weight": "conditional",
    r"phi\.0": "elementwise",
    r"A": "rotation",
    r"LU": "lu",
    r"order": "permutation",
}
_NETS = ("cnf", "autoregressive", "coupling", "conditional", "network", "integral")


# An element-wise transform with a table of shifts and one of log scales.
GAUSSIANIZATION = "gaussianization"
# A transform without tensors.
HOLE = "hole"


@dataclass(frozen=True, slots=True)
class Layer:
    """One transform.

    Attributes:
        name: the prefix of its keys.
        context: length of the context it takes.
        params: parameters of its univariate map; of all features together where it is
            conditional, whose tensors do not show how many features there are.
        has_table: whether its signals are a table: of one feature without a context.
    """

    name: str
    kind: str
    features: int = 0
    context: int = 0
    params: int = 0
    has_table: bool = False

    def per_feature(self, features: int) -> int:
        """Parameters of its univariate map a feature; 0 where it has none."""
        return self.params // features if self.kind == "conditional" else self.params

    @property
    def has_net(self) -> bool:
        """Whether it has a network, and so an activation."""
        return self.kind in _NETS and not self.has_table


def recognise(weights: Weights) -> list[Layer]:
    """All transforms, in the order in which data go through them.

    Raises:
        ImportRefused: if a transform has no tensors, or cannot be imported.
    """
    places = weights.indices(r"transform\.transforms\.(\d+)\.")
    if not places:
        return [_layer(weights, "transform.")]
    layers = [
        _layer(weights, f"transform.transforms.{place}.")
        if place in places
        else Layer(f"transform.transforms.{place}.", HOLE)
        for place in range(places[-1] + 1)
    ]
    others = layers[1:] if layers[0].kind == "affine" else layers
    _check_holes(others)
    if len({layer.kind == "cnf" for layer in others}) > 1:
        raise ImportRefused(
            "FFJTransform beside other transforms: such a mixture cannot be imported"
        )
    return layers


def _check_holes(layers: list[Layer]) -> None:
    """A transform without tensors may stand between two others, as SOSPF, NAF and UNAF have it.

    Raises:
        ImportRefused: if one stands elsewhere.
    """
    kinds = [layer.kind for layer in layers]
    expected = kinds[0::2] if HOLE in kinds else []
    if HOLE in kinds and (set(kinds[1::2]) != {HOLE} or HOLE in expected):
        name = layers[kinds.index(HOLE)].name.rstrip(".")
        raise ImportRefused(
            f"{name}: a transform without tensors: the checkpoint does not say which, and it "
            "cannot be imported; only between all transforms, where SOSPF, NAF and UNAF have a "
            "SoftclipTransform, it is known"
        )


def _layer(weights: Weights, name: str) -> Layer:
    prefix = re.escape(name)
    kind = next((kind for key, kind in _KINDS.items() if weights.has(f"{prefix}({key})")), "")
    match kind:
        case "autoregressive" | "network" | "integral":
            return replace(_autoregressive_layer(weights, name), kind=kind)
        case "coupling":
            kept = int(weights.peek(f"{name}mask").sum())
            features = weights.shape(f"{name}mask")[0]
            inputs, outputs = _ends(weights, f"{name}hyper")
            return Layer(name, kind, features, inputs - kept, outputs // (features - kept))
        case "conditional":
            return Layer(name, kind, 0, *_ends(weights, f"{name}hyper"))
        case "elementwise":
            shapes = phi_shapes(weights, name)
            params = _table_params(shapes)
            if [len(shape) for shape in shapes] == [2, 2]:
                kind = GAUSSIANIZATION
            return Layer(name, kind, shapes[0][0], 0, params)
        case "cnf":
            return Layer(name, kind, _ends(weights, f"{name}ode")[1])
        case "affine":
            # One number for all features, or one each.
            return Layer(name, kind, (*weights.shape(f"{name}loc"), 0)[0])
        case "rotation" | "lu" | "permutation":
            key = {"rotation": "A", "lu": "LU", "permutation": "order"}[kind]
            return Layer(name, kind, weights.shape(f"{name}{key}")[0])
    raise ImportRefused(f"{name.rstrip('.')}: a transform of unknown kind cannot be imported")


def _table_params(shapes: list[tuple[int, ...]]) -> int:
    return sum(shape[1] if len(shape) > 1 else 1 for shape in shapes)


def _autoregressive_layer(weights: Weights, name: str) -> Layer:
    if f"{name}phi.0" in weights:
        # One feature without a context: a table in place of a network.
        params = _table_params(phi_shapes(weights, name))
        return Layer(name, "autoregressive", 1, params=params, has_table=True)
    inputs, outputs = _ends(weights, f"{name}hyper")
    if not has_masks(weights, name):
        # One feature, which has a network of its own and sees the context alone.
        return Layer(name, "autoregressive", 1, inputs, outputs)
    if f"{name}order" in weights:
        features = weights.shape(f"{name}order")[0]
    else:
        # Made from an adjacency matrix, with no order to read D off; the base has it.
        features = base_features(weights)
    return Layer(name, "autoregressive", features, inputs - features, outputs // features)


def base_features(weights: Weights) -> int:
    """D, as the base has it."""
    return weights.shape("base.lower" if "base.lower" in weights else "base.loc")[0]


def has_masks(weights: Weights, name: str) -> bool:
    """Whether the network of a transform sees features, and so is masked."""
    return weights.has(rf"{re.escape(name)}hyper\.0\.mask")


def phi_shapes(weights: Weights, name: str) -> list[tuple[int, ...]]:
    """Shapes of an element-wise transform's own parameters."""
    count = weights.count(rf"{re.escape(name)}phi\.(\d+)")
    return [weights.shape(f"{name}phi.{index}") for index in range(count)]


def _ends(weights: Weights, name: str) -> tuple[int, int]:
    """Inputs and outputs of a network."""
    places = weights.indices(rf"{re.escape(name)}\.(\d+)\.weight")
    first = weights.shape(f"{name}.{places[0]}.weight")
    return first[1], weights.shape(f"{name}.{places[-1]}.weight")[0]


def num_bins(params: int) -> int:
    """K of the 3 K - 1 parameters of a spline.

    Raises:
        ImportRefused: if there is no such K.
    """
    bins = spline_bins(params)
    if bins is None:
        raise ImportRefused(
            f"{params} parameters a feature: expected 1 (AdditiveTransform), 2 "
            "(MonotonicAffineTransform) or 3 K - 1 (MonotonicRQSTransform of K bins); of "
            "polynomials say so: constructor=BPF or SOSPF"
        )
    return bins
