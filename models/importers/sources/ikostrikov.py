"""ikostrikov/pytorch-flows: MAF, its split form, and RealNVP over tabular data.

A model is a sequence of layers, and keys begin with a layer's place in it. From data to latents:
MADE u = (x - m) exp(-a), always in ascending order, with (m, a) the halves of the output; MADESplit
the same with two networks, of which `s_` gives m and `t_` gives a; couplings y = x exp(s) + t;
batch norm divides by sqrt(running_var), which has its eps inside already.

Not in a checkpoint: the layers that reverse the features (their places stay empty, and main.py puts
one behind every block of a MAF), the masks of couplings (0, 1, 0, 1, ... and its complement by
turns), and, beyond recovery, the permutation and the signs of `LUInvertibleMM`.

Reference: github.com/ikostrikov/pytorch-flows, flows.py and main.py.
"""

from collections.abc import Sequence
from typing import Literal

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.glow import check_invertible
from models.importers.layouts.networks import Linear, Net
from models.importers.likelihood import Reported
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.weights import Weights

Act = Literal["relu", "sigmoid", "tanh"]

_MADE = {"kind": "affine", "scale": "exp", "form": "unshift_then_unscale"}
_COUPLING = {"kind": "affine", "scale": "exp", "form": "scale_then_shift"}
# What a layer is, by a key that it has and no other layer has.
_LAYERS = {
    "joiner.mask": "made",
    "s_joiner.mask": "split",
    "scale_net.0.weight": "coupling",
    "log_gamma": "batch_norm",
    "W": "matrix",
    "perm": "shuffle",
    "log_S": "lu",
    "weight": "actnorm",
}


class Config(SourceConfig):
    """Arguments of main.py and of the layers in flows.py."""

    flow: Literal["maf", "maf-split", "maf-split-glow", "realnvp"]
    num_inputs: Count
    num_hidden: Count
    num_blocks: Count
    num_cond_inputs: Count | None
    act: Act
    s_act: Act
    t_act: Act
    pre_exp_tanh: bool


def infer(weights: Weights) -> Inference:
    """Read the layers off the keys; the activation of MADE must be given.

    Raises:
        ImportRefused: for models with `LUInvertibleMM`, and for other sequences of layers.
    """
    kinds = _kinds(weights)
    if "lu" in kinds:
        raise ImportRefused(
            "flow glow: its LUInvertibleMM layers keep their permutation P and the signs of S "
            "outside the state dict, so the checkpoint does not contain the model and cannot be "
            "imported; save the product P @ L @ U of every such layer while the model is in memory"
        )
    seen = Inference()
    blocks = [place for place, kind in enumerate(kinds) if kind in ("made", "split", "coupling")]
    if not blocks:
        raise ImportRefused(f"expected MADE, MADESplit or CouplingLayer, got {', '.join(kinds)}")
    first = kinds[blocks[0]]
    seen.know("flow", _flow(first, kinds), f"its first block is a {first}")
    seen.know("num_blocks", len(blocks), f"{len(blocks)} of {first}")
    _infer_sizes(weights, seen, blocks[0], first)
    if first == "made":
        seen.ask("act", "relu (main.py, as a rule), tanh (main.py for GAS) or sigmoid")
    else:
        seen.suppose("act", "relu", "of MADE, which is not used here")
        seen.mark_idle("act", "not used: main.py has it for MADE alone, which is not here")
    seen.suppose("s_act", "tanh", "of flows.py")
    seen.suppose("t_act", "relu", "of flows.py")
    seen.suppose("pre_exp_tanh", False, "of flows.py")
    return seen


def _kinds(weights: Weights) -> list[str]:
    """The kind of every layer; places without tensors are reversals."""
    places = weights.indices(r"(\d+)\.")
    found = {
        place: next((kind for key, kind in _LAYERS.items() if f"{place}.{key}" in weights), "none")
        for place in places
    }
    return [found.get(place, "reverse") for place in range(places[-1] + 1)]


def _flow(first: str, kinds: Sequence[str]) -> str:
    if first == "split":
        return "maf-split-glow" if "matrix" in kinds else "maf-split"
    return {"made": "maf", "coupling": "realnvp"}[first]


def _infer_sizes(weights: Weights, seen: Inference, place: int, kind: str) -> None:
    if kind == "coupling":
        hidden, inputs = weights.shape(f"{place}.scale_net.0.weight")
        features = weights.shape(f"{place}.scale_net.4.weight")[0]
        conditions, key = inputs - features, f"{place}.scale_net"
    else:
        key = f"{place}.joiner" if kind == "made" else f"{place}.s_joiner"
        hidden, features = weights.shape(f"{key}.linear.weight")
        condition = f"{key}.cond_linear.weight"
        conditions = weights.shape(condition)[1] if condition in weights else 0
    seen.know("num_inputs", features, key)
    seen.know("num_hidden", hidden, key)
    seen.know("num_cond_inputs", conditions or None, key)


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain."""
    kinds = _kinds(weights)
    if config.flow in ("maf", "maf-split") and (config.num_blocks == 1 or "reverse" in kinds):
        kinds.append("reverse")
    parts: list[Part] = []
    couplings = 0
    for place, kind in enumerate(kinds):
        if kind == "coupling":
            parts.append(_coupling(weights, f"{place}", couplings % 2, config))
            couplings += 1
        else:
            parts.append(_layer(weights, f"{place}", kind, config))
    if "reverse" in kinds:
        weights.report.recognised(
            "Reverse", f"layers without tensors, at {_places(kinds)}: the features are reversed"
        )
    described, layers = chain_layers.chain(
        parts, config.num_inputs, context_features=config.num_cond_inputs or 0
    )
    return Conversion(
        family="chain",
        config=described,
        layers=layers,
        reported=Reported("log_probs of flows.py, which main.py averages: nats"),
        data="the table as the source normalises it",
    )


def _places(kinds: Sequence[str]) -> str:
    return ", ".join(str(place) for place, kind in enumerate(kinds) if kind == "reverse")


def _layer(weights: Weights, place: str, kind: str, config: Config) -> Part:
    features = config.num_inputs
    match kind:
        case "made":
            net = _masked_net(weights, (f"{place}.joiner", f"{place}.trunk"), 2, config.act, config)
            return chain_layers.autoregressive(features, _MADE, net)
        case "split":
            return _split(weights, place, config)
        case "batch_norm":
            return chain_layers.exp_batch_norm(weights, place, features, eps=0.0)
        case "matrix":
            matrix = weights.take(f"{place}.W", features, features)
            check_invertible(weights, f"{place}.W", matrix)
            return chain_layers.linear(matrix.T)
        case "shuffle":
            weights.skip(rf"{place}\.inv_perm", "the inverse of perm")
            return chain_layers.permute(weights.take_integers(f"{place}.perm", features).tolist())
        case "actnorm":
            return _actnorm(weights, place, features)
        case "reverse":
            return chain_layers.permute(range(features)[::-1])
    raise ImportRefused(f"layer {place}: not a layer of flows.py that can be imported")


def _split(weights: Weights, place: str, config: Config) -> Part:
    shift = _masked_net(weights, (f"{place}.s_joiner", f"{place}.s_trunk"), 1, config.s_act, config)
    outer = "tanh" if config.pre_exp_tanh else "identity"
    scale = _masked_net(
        weights, (f"{place}.t_joiner", f"{place}.t_trunk"), 1, config.t_act, config, outer
    )
    return chain_layers.autoregressive(config.num_inputs, _MADE, networks.pair(shift, scale))


def _masked_net(
    weights: Weights,
    names: tuple[str, str],
    blocks: int,
    act: str,
    config: Config,
    outer: str = "identity",
) -> Net:
    joiner, trunk = names
    width, features = config.num_hidden, config.num_inputs
    entry = _masked(weights, joiner, width, features)
    if config.num_cond_inputs:
        key = f"{joiner}.cond_linear.weight"
        entry = entry.with_context(weights.take(key, width, config.num_cond_inputs))
    inner = _masked(weights, f"{trunk}.1", width, width)
    last = _masked(weights, f"{trunk}.3", blocks * features, width)
    return networks.mlp([entry, inner, last], [act, act, outer])


def _masked(weights: Weights, name: str, outputs: int, inputs: int) -> Linear:
    return networks.linear(weights, f"{name}.linear", outputs, inputs, mask=f"{name}.mask")


def _coupling(weights: Weights, place: str, parity: int, config: Config) -> Part:
    features = config.num_inputs
    kept = [index for index in range(features) if index % 2 != parity]
    moved = [index for index in range(features) if index % 2 == parity]
    shift = _net(weights, f"{place}.translate_net", config.t_act, (kept, moved), config)
    scale = _net(weights, f"{place}.scale_net", config.s_act, (kept, moved), config)
    return chain_layers.coupling(kept, features, _COUPLING, networks.pair(shift, scale))


def _net(
    weights: Weights,
    name: str,
    act: str,
    parts: tuple[Sequence[int], Sequence[int]],
    config: Config,
) -> Net:
    kept, moved = parts
    features, conditions = config.num_inputs, config.num_cond_inputs or 0
    widths = [features + conditions, config.num_hidden, config.num_hidden, features]
    linears = networks.sequential(weights, name, widths)
    # Of the masked features only the kept ones are not zero.
    linears[0] = linears[0].columns([*kept, *range(features, features + conditions)])
    linears[-1] = linears[-1].rows(moved)
    return networks.mlp(linears, act)


def _actnorm(weights: Weights, place: str, features: int) -> Part:
    """y = (x - bias) exp(weight)."""
    state = {
        "shift": -weights.take(f"{place}.bias", features),
        "log_scale": weights.take(f"{place}.weight", features),
    }
    return Part({"kind": "actnorm", "form": "shift_then_scale", "storage": "log"}, state)


SOURCE = Source(
    name="ikostrikov/pytorch-flows",
    short_names=("ikostrikov", "pytorch-flows", "ikostrikov/pytorch-normalizing-flows"),
    signature=(r"\d+\.((s_)?joiner\.mask|scale_net\.0\.weight|log_S)$",),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset(
        {
            *("dataset", "batch_size", "test_batch_size", "epochs", "lr", "no_cuda", "cuda"),
            *("seed", "log_interval", "cond"),
        }
    ),
)
