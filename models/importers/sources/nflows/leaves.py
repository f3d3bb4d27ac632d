"""The transforms of nflows, one by one, recognised by their tensors."""

from dataclasses import dataclass

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
