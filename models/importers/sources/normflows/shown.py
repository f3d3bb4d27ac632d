"""Arguments of normflows' constructors that the keys show: compared with what a user gives."""

import re
from collections.abc import Mapping
from itertools import combinations, permutations

from models.importers.source import Inference
from models.importers.sources.normflows import couplings as normflows_couplings
from models.importers.sources.normflows import described
from models.importers.sources.normflows.base import Base
from models.importers.sources.normflows.layers import NETS, SPLINES
from models.importers.weights import Weights

_CLASSES = {
    "masked": "MaskedAffineFlow",
    "coupling": "AffineCouplingBlock",
    "spline_coupling": "CoupledRationalQuadraticSpline",
    "spline_autoregressive": "AutoregressiveRationalQuadraticSpline",
    "autoregressive": "MaskedAffineAutoregressive",
    "lu": "LULinearPermute",
    "permutation": "Permute",
    "matrix": "InvertibleAffine",
    "actnorm": "ActNorm",
    "planar": "Planar",
    "radial": "Radial",
    "periodic": described.TURN,
}
_BLOCKS = ("masked", "coupling", "planar", "radial", *NETS)
_INNER = {"spline_coupling": "prqct.transform_net", "spline_autoregressive": "mprqat."}


def show(weights: Weights, seen: Inference, kinds: Mapping[int, str], base: Base) -> None:
    """Note what the keys show of the arguments that a conversion does without."""
    blocks = [place for place, kind in kinds.items() if kind in _BLOCKS]
    seen.show("K", len(blocks), reason=f"{len(blocks)} flows that are no mixing")
    _show_sizes(seen, kinds, seen.found["D"].value)
    _show_classes(seen, kinds)
    _show_lines(seen, kinds)
    _show_base(weights, seen, base)
    _show_permutes(seen, kinds)
    seen.show("actnorm", "actnorm" in kinds.values(), reason="ActNorm among the flows, or none")
    if "matrix" in kinds.values():
        has_lu = weights.has(r"flows\.\d+\.P")
        seen.show("use_lu", has_lu, reason="P, or W, of InvertibleAffine")
    names = [f"flows.{place}" for place, kind in kinds.items() if kind == "coupling"]
    if names:
        _show_scales(weights, seen, names)
    _show_mlps(weights, seen)
    if _is_circular(seen):
        _show_order(seen, kinds)
    _show_nets(weights, seen)
    _show_masks(weights, seen, kinds)


def _show_sizes(seen: Inference, kinds: Mapping[int, str], features: int) -> None:
    """What constructors call D, and arguments that say what the tensors say."""
    for name in ("features", "num_input_channels", "num_channels", "dim", "ndim"):
        seen.show(name, features, reason="D")
    seen.show("shape", features, [features], reason="D")
    for name in ("score_scale", "output_scale"):
        seen.show(name, None, reason="no networks with an output function can be imported")
    seen.mark_idle("permute_mask", "the masks in the file hold the order")
    seen.mark_idle("context_encoder", "its layers are in the file; see encoder_activation")
    for name in ("param_map", "transform_net", "b", "s", "t", "u", "w", "z_0", "loc", "log_scale"):
        seen.mark_idle(name, "what the constructor is given here is in the file")


def _show_classes(seen: Inference, kinds: Mapping[int, str]) -> None:
    """Classes of the flows, with a plus between; those without networks may be left out."""
    turns = "Circular" if _is_circular(seen) else ""
    main = list(
        dict.fromkeys(
            f"{turns if kind in SPLINES else ''}{_CLASSES[kind]}"
            for kind in kinds.values()
            if kind in _BLOCKS
        )
    )
    beside = {_CLASSES[kind] for kind in kinds.values() if kind not in _BLOCKS}
    if len(kinds) <= max(kinds):
        beside |= {"Permute", "Permute(swap)"}
    chosen = [names for count in range(3) for names in combinations(sorted(beside), count)]
    lines = ["+".join(order) for names in chosen for order in permutations([*main, *names])]
    seen.show("layer", *lines, reason="classes of the flows")


def _show_lines(seen: Inference, kinds: Mapping[int, str]) -> None:
    """What stands at every place: a swap where there are no tensors, and perhaps at the end."""
    words = {"coupling": described.BLOCK, "permutation": described.SHUFFLE}
    words |= {"actnorm": described.NORM}
    lines = [
        words.get(kinds[place], kinds[place]) if place in kinds else described.SWAP
        for place in range(max(kinds) + 1)
    ]
    seen.show(described.FIELD, lines, [*lines, described.SWAP], reason="keys of flows")


def _is_circular(seen: Inference) -> bool:
    return "ind_circ" in seen.asked or bool(seen.found["ind_circ"].value)


def _show_order(seen: Inference, kinds: Mapping[int, str]) -> None:
    """What stands at every place of a flow with circular parts, a comma between."""
    names = {**_CLASSES, **dict.fromkeys(SPLINES, "spline")}
    places = [names[kinds.get(place, "periodic")] for place in range(max(kinds) + 1)]
    line = ", ".join(places)
    seen.show(described.ORDER, line, f"{line}, {described.TURN}", reason="keys of flows")


def _show_base(weights: Weights, seen: Inference, base: Base) -> None:
    if base.is_uniform:
        names = ["UniformGaussian"]
    elif base.components is not None:
        names = ["GaussianMixture"]
        for name in ("n_modes", "components"):
            seen.show(name, base.components, reason="q0.weight_scores")
    elif base.num_classes is not None:
        names = ["ClassCondDiagGaussian", "AffineGaussian"]
    elif base.encoder:
        names = ["ConditionalDiagGaussian"]
    else:
        names = ["AffineGaussian" if "q0.transform.s" in weights else "DiagGaussian"]
    options = ("", "(trainable)", "(trainable=True)", "(trainable=False)")
    spelled = [f"{name}{option}" for name in names for option in options]
    seen.show("base", *spelled, reason="keys of q0")


def _show_permutes(seen: Inference, kinds: Mapping[int, str]) -> None:
    """Permute layers in order: those without tensors are swaps, and one may stand at the end."""
    places = range(max(kinds) + 1)
    modes = [
        "shuffle" if place in kinds else "swap"
        for place in places
        if kinds.get(place, "permutation") == "permutation"
    ]
    if modes:
        for name in ("permute_mode", "mode"):
            seen.show(name, modes, [*modes, "swap"], *set(modes), reason="places of flows")


def _show_scales(weights: Weights, seen: Inference, names: list[str]) -> None:
    features = seen.found["D"].value
    sizes = normflows_couplings.read_blocks(weights, names)
    scaled = [outputs > features - inputs for inputs, outputs in sizes.values()]
    alike = set(scaled) if len(set(scaled)) == 1 else ()
    seen.show("scale", scaled, *alike, reason="outputs of the blocks' networks")


def _show_mlps(weights: Weights, seen: Inference) -> None:
    """Sizes of the nets.MLP, where all have the same."""
    pattern = re.compile(r"(flows\.\d+\.(?:s|t|flows\.1\.param_map)\.net)\.(\d+)\.weight")
    names = dict.fromkeys(match[1] for key in weights if (match := pattern.fullmatch(key)))
    sizes = set()
    for name in names:
        places = weights.indices(rf"{re.escape(name)}\.(\d+)\.weight")
        shapes = [weights.shape(f"{name}.{place}.weight") for place in places]
        sizes.add((shapes[0][1], *(shape[0] for shape in shapes)))
    if len(sizes) == 1:
        (size,) = sizes
        for argument in ("mlp", "layers"):
            seen.show(argument, list(size), reason="sizes of the networks")
    else:
        for argument in ("mlp", "layers"):
            seen.mark_idle(argument, "each network has its own, as the weights say")


def _show_nets(weights: Weights, seen: Inference) -> None:
    """Blocks, widths and kinds of the residual networks and MADEs, where all have the same."""
    pattern = re.compile(r"(flows\.\d+\..*)\.initial_layer\.weight")
    names = [match[1] for key in weights if (match := pattern.fullmatch(key))]
    if not names:
        return
    widths = {weights.shape(f"{name}.initial_layer.weight")[0] for name in names}
    blocks = {weights.count(rf"{re.escape(name)}\.blocks\.(\d+)\.") for name in names}
    if len(widths) == 1:
        for argument in ("num_hidden_channels", "hidden_features"):
            seen.show(argument, *widths, reason="width of the networks")
    if len(blocks) == 1:
        seen.show("num_blocks", *blocks, reason="blocks of the networks")
    inner = r"flows\.\d+\..*\.blocks\.\d+"
    is_feedforward = weights.has(rf"{inner}\.linear\.weight")
    seen.show("use_residual_blocks", not is_feedforward, reason="blocks of the networks")
    norms = weights.has(rf"{inner}\.batch_norm.*")
    seen.show("use_batch_norm", norms, reason="batch norms in the networks, or none")
    context = seen.found["num_context_channels"].value
    seen.show("context_features", context, *([] if context else [None]), reason="inputs")


def _show_masks(weights: Weights, seen: Inference, kinds: Mapping[int, str]) -> None:
    """reverse_mask of spline couplings, and which of them alternate."""
    keys = [
        f"flows.{place}.prqct.transform_features"
        for place, kind in kinds.items()
        if kind == "spline_coupling"
    ]
    if keys:
        flags = [int(weights.peek(key)[0]) == 0 for key in keys]
        alternating = f"alternates {','.join(map(str, flags))}"
        alike = set(flags) if len(set(flags)) == 1 else ()
        seen.show("reverse_mask", flags, alternating, *alike, reason=keys[0])
