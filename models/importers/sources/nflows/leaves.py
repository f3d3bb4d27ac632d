"""The transforms of nflows, one by one, recognised by their tensors."""

import re
from dataclasses import dataclass, replace

from models.importers.layouts.nsf_parts import check_net
from models.importers.report import ImportRefused
from models.importers.weights import Weights

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


# Where a spline of one feature, as sbi builds it, has its network over the context.
SPLINE_PREDICTOR = "transform_net.spline_predictor"


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
    def has_net(self) -> bool:
        """Whether it has a network."""
        return self.kind in ("coupling", "autoregressive", "context_spline")

    @property
    def net(self) -> str:
        """The name of its network."""
        own = {"autoregressive": "autoregressive_net", "context_spline": SPLINE_PREDICTOR}
        return f"{self.name}{own.get(self.kind, 'transform_net')}"

    @property
    def first_weight(self) -> str:
        """The key of the first matrix of its network."""
        first = "0" if self.kind == "context_spline" else "initial_layer"
        return f"{self.net}.{first}.weight"

    def linears(self, weights: Weights) -> list[str]:
        """Names of the linear layers of a network over the context alone, in order."""
        places = weights.indices(rf"{re.escape(self.net)}\.(\d+)\.weight")
        return [f"{self.net}.{place}" for place in places]


def recognise(weights: Weights, name: str, *, inverted: bool) -> Leaf:
    """Find out which transform the keys below a prefix belong to.

    Raises:
        ImportRefused: if it is none that can be imported.
    """
    kind = next((kind for key, kind in _KINDS.items() if f"{name}{key}" in weights), "")
    if kind == "coupling":
        kept = weights.shape(f"{name}identity_features")[0]
        moved = weights.shape(f"{name}transform_features")[0]
        if not kept and f"{name}{SPLINE_PREDICTOR}.0.weight" in weights:
            spline = Leaf(name, "context_spline", inverted, moved)
            context = weights.shape(spline.first_weight)[1]
            outputs = weights.shape(f"{spline.linears(weights)[-1]}.weight")[0]
            return replace(spline, context=context, params=outputs // moved)
        net = f"{name}transform_net"
        check_net(weights, net)
        inputs = weights.shape(f"{net}.initial_layer.weight")[1]
        outputs = weights.shape(f"{net}.final_layer.weight")[0]
        return Leaf(name, kind, inverted, kept + moved, inputs - kept, outputs // moved)
    if kind == "autoregressive":
        net = f"{name}autoregressive_net"
        features = weights.shape(f"{net}.initial_layer.weight")[1]
        outputs = weights.shape(f"{net}.final_layer.weight")[0]
        key = f"{net}.context_layer.weight"
        context = weights.shape(key)[1] if key in weights else 0
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
