"""Arguments of nflows' constructors that the keys show: compared with what a user gives."""

import re
from itertools import cycle, islice
from typing import Any

from models.importers.source import Inference
from models.importers.sources.nflows.leaves import Leaf
from models.importers.weights import Weights

# The library's class names, by the kind of transform that their tensors make.
_CLASSES = {
    "permutation": ("RandomPermutation", "ReversePermutation", "Permutation"),
    "lu": ("LULinear",),
    "qr": ("QRLinear",),
    "svd": ("SVDLinear",),
    "householder": ("HouseholderSequence",),
    "naive": ("NaiveLinear",),
    "batch_norm": ("BatchNorm",),
    "actnorm": ("ActNorm",),
    "affine": ("PointwiseAffineTransform", "AffineTransform"),
    "pointwise": ("PiecewiseRationalQuadraticCDF",),
    "coupling 1": ("AdditiveCouplingTransform",),
    "coupling 2": ("AffineCouplingTransform",),
    "coupling 3": ("PiecewiseRationalQuadraticCouplingTransform",),
    "autoregressive 2": ("MaskedAffineAutoregressiveTransform",),
    "autoregressive 3": ("MaskedPiecewiseRationalQuadraticAutoregressiveTransform",),
}
_BASES = {
    "mean_": "DiagonalNormal",
    r"_context_encoder\..*": "ConditionalDiagonalNormal",
}


def show(weights: Weights, seen: Inference, leaves: list[Leaf]) -> None:
    """Note what the keys show of the arguments that a conversion does without."""
    _show_steps(seen, leaves)
    _show_constants(seen, {leaf.kind for leaf in leaves})
    base = next(
        (name for key, name in _BASES.items() if weights.has(rf"_distribution\.{key}")),
        "StandardNormal",
    )
    for name in ("base", "distribution"):
        seen.show(name, base, reason="keys of _distribution")
    norms = any(leaf.kind == "batch_norm" for leaf in leaves)
    seen.show(
        "batch_norm_between_layers", norms, reason="a BatchNorm among the transforms, or none"
    )
    _show_permutations(weights, seen, leaves)
    vectors = [leaf for leaf in leaves if leaf.kind in ("householder", "qr", "svd")]
    for leaf in vectors[:1]:
        key = next(key for key in weights.under(leaf.name) if key.endswith("q_vectors"))
        seen.show("num_householder", weights.shape(key)[0], reason=key)
    nets = [leaf for leaf in leaves if leaf.kind in ("coupling", "autoregressive")]
    if nets:
        _show_nets(weights, seen, nets)


def _show_constants(seen: Inference, kinds: set[str]) -> None:
    """Arguments that are in no file, and of which the library's defaults can be imported."""
    defaults = {"batch_norm": 1e-5, "lu": 1e-3, "svd": 1e-3}
    found = dict.fromkeys(value for kind, value in defaults.items() if kind in kinds)
    if found:
        seen.show("eps", *found, reason="the defaults of its layers, the only ones known here")
    if "batch_norm" in kinds:
        seen.show("affine", True, reason="unconstrained_weight of BatchNorm")
    if "permutation" in kinds:
        seen.show("dim", 1, reason="permutations of features")
    seen.show("img_shape", None, reason="networks over vectors")
    seen.show("unconditional_transform", None, reason="no such transform in the file")
    for name in ("mask", "transform_net_create_fn", "in_features", "out_features"):
        seen.mark_idle(name, "what the constructor is given here is in the file")


def _show_steps(seen: Inference, leaves: list[Leaf]) -> None:
    """The constructor, how many layers there are, and what one step is made of."""
    classes = [_classes(leaf) for leaf in leaves]
    nets = [leaf for leaf in leaves if leaf.kind in ("coupling", "autoregressive")]
    count = len(nets)
    for name in ("num_layers", "num_transforms"):
        seen.show(name, count, reason=f"{count} transforms with networks")
    constructors = {
        "coupling": "SimpleRealNVP",
        "autoregressive": "MaskedAutoregressiveFlow",
    }
    kinds = {leaf.kind for leaf in nets if leaf.params < 3}
    if len(kinds) == 1 and len(nets) == sum(leaf.params < 3 for leaf in nets):
        seen.show("constructor", constructors[kinds.pop()], "Flow", reason="the transforms")
    else:
        seen.show("constructor", "Flow", reason="the transforms")
    # What repeats: any whole number of steps that makes the same transforms.
    sizes = [size for size in range(1, len(classes) + 1) if _repeats(classes, size)]
    seen.show("num_steps", *[len(classes) // size for size in sizes], reason="the transforms")
    seen.show("layers_per_step", *_spellings(classes, sizes), reason="the transforms")


def _classes(leaf: Leaf) -> tuple[str, ...]:
    kind = leaf.kind
    if kind in ("coupling", "autoregressive"):
        kind = f"{kind} {min(leaf.params, 3)}"
    return _CLASSES.get(kind, (leaf.kind,))


def _repeats(classes: list[tuple[str, ...]], size: int) -> bool:
    whole = len(classes) % size == 0
    return whole and classes == list(islice(cycle(classes[:size]), len(classes)))


def _spellings(classes: list[tuple[str, ...]], sizes: list[int]) -> list[list[str]]:
    """Every list of class names that describes a step, permutations by any of their names."""
    found: list[list[str]] = []
    for size in sizes:
        for permutation in range(len(_CLASSES["permutation"])):
            step = [names[permutation % len(names)] for names in classes[:size]]
            if step not in found:
                found.append(step)
    return found


def _show_permutations(weights: Weights, seen: Inference, leaves: list[Leaf]) -> None:
    keys = [f"{leaf.name}_permutation" for leaf in leaves if leaf.kind == "permutation"]
    orders = [weights.peek(key).long().tolist() for key in keys]
    if orders:
        reversals = all(order == list(range(len(order)))[::-1] for order in orders)
        # A random permutation may be a reversal too.
        fitting = (False, True) if reversals else (True,)
        seen.show("use_random_permutations", *fitting, reason=keys[0])


def _show_nets(weights: Weights, seen: Inference, nets: list[Leaf]) -> None:
    blocks = {weights.count(rf"{re.escape(leaf.net)}\.blocks\.(\d+)\.") for leaf in nets}
    if len(blocks) == 1:
        for name in ("num_blocks", "num_blocks_per_layer"):
            seen.show(name, *blocks, reason="blocks of the networks")
    _show_flags(weights, seen, nets)
    made = [leaf for leaf in nets if leaf.kind == "autoregressive"]
    for name in ("use_random_masks", "random_mask"):
        if made:
            fitting: tuple[Any, ...] = (any(_is_random(weights, leaf) for leaf in made),)
            seen.show(name, *fitting, reason="degrees of the hidden units")


def _show_flags(weights: Weights, seen: Inference, nets: list[Leaf]) -> None:
    inner = "|".join(re.escape(leaf.net) for leaf in nets)
    is_feedforward = weights.has(rf"({inner})\.blocks\.0\.linear\.weight")
    seen.show("use_residual_blocks", not is_feedforward, reason="blocks of the networks")
    norms = weights.has(rf"({inner})\.blocks\.\d+\.batch_norm.*")
    for name in ("use_batch_norm", "batch_norm_within_layers"):
        seen.show(name, norms, reason="batch norms in the networks, or none")
    couplings = [leaf for leaf in nets if leaf.kind == "coupling"]
    if couplings:
        additive = {leaf.params == 1 for leaf in couplings}
        seen.show("use_volume_preserving", *additive, reason="outputs of the networks")
        own = weights.has(r".*unconditional_transform\..*")
        seen.show("apply_unconditional_transform", own, reason="unconditional_transform, or none")


def _is_random(weights: Weights, leaf: Leaf) -> bool:
    """Whether a MADE's hidden units have other degrees than the library gives them in turn."""
    key = f"{leaf.net}.initial_layer.degrees"
    if key not in weights:
        return False
    degrees = weights.peek(key).long().tolist()
    largest, least = max(1, leaf.features - 1), min(1, leaf.features - 1)
    return bool(degrees != [unit % largest + least for unit in range(len(degrees))])
