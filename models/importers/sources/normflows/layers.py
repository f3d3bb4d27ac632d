"""The flows of normflows over vectors, one by one, as layers of the `chain` family."""

import math
import re
from collections.abc import Callable, Mapping

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.glow import check_flag, check_invertible
from models.importers.layouts.networks import Net, parameter_rows
from models.importers.layouts.nsf_parts import (
    MADE,
    check_net,
    lu_linear,
    made,
    residual_net,
)
from models.importers.report import ImportRefused
from models.importers.source import prefixed
from models.importers.sources.normflows import circular as normflows_circular
from models.importers.sources.normflows import couplings as normflows_couplings
from models.importers.sources.normflows.couplings import Settings
from models.importers.weights import Weights

# Unlike nflows' MADE: no activation behind the first layer of a feed-forward one, and gates.
_MADE = MADE(enters_active=False, gates=True)

# What a flow is, by a pattern that a key of it matches.
_KINDS = {
    r"u": "planar",
    r"z_0": "radial",
    r"b": "masked",
    r"flows\.1\.param_map\..*": "coupling",
    r"prqct\.transform_net\..*": "spline_coupling",
    r"mprqat\.autoregressive_net\..*": "spline_autoregressive",
    r"autoregressive_net\..*": "autoregressive",
    r"linear\.lower_entries": "lu",
    r"perm": "permutation",
    r"[WP]": "matrix",
    r"s": "actnorm",
    normflows_circular.KEYS: "periodic",
}
_REFUSED = {
    r"iresblock\..*": "Residual: there is no layer for x + g(x) here, and of more than two "
    "features the library's own log-determinant is an estimate that draws noise (of two it is "
    "exact in evaluation mode); train another flow, such as nsf or naf, on samples of it",
    r"eps": "BatchNorm: it normalises with the statistics of the batch it sees",
    r"s_cc": "CCAffineConst: it takes classes, which the layers of a flow are not given",
}
# Of a Planar with act="leaky_relu".
_PLANAR_SLOPE = 0.2
NETS = ("spline_coupling", "spline_autoregressive", "autoregressive")
SPLINES = ("spline_coupling", "spline_autoregressive")


def kind_of(weights: Weights, name: str) -> str:
    """Which flow the keys below a name belong to.

    Raises:
        ImportRefused: if it is none that can be imported.
    """
    prefix = re.escape(f"{name}.")
    for pattern, reason in _REFUSED.items():
        if weights.has(f"{prefix}({pattern})"):
            raise ImportRefused(f"{name}, {reason}; it cannot be imported")
    for pattern, kind in _KINDS.items():
        if weights.has(f"{prefix}({pattern})"):
            return kind
    keys = weights.under(f"{name}.")
    raise ImportRefused(
        f"{name}: with keys such as {', '.join(keys[:3])} not a flow of normflows over vectors "
        "that can be imported"
    )


def features(weights: Weights, kinds: Mapping[int, str]) -> int:
    """D, as the first flow has it."""
    place, kind = next(iter(kinds.items()))
    name = f"flows.{place}"
    match kind:
        case "coupling":
            inputs = normflows_couplings.block_inputs(weights, name)
            return inputs + normflows_couplings.block_outputs(weights, name) // 2
        case "spline_coupling":
            parts = ("identity_features", "transform_features")
            return sum(weights.shape(f"{name}.prqct.{part}")[0] for part in parts)
        case "spline_autoregressive" | "autoregressive":
            return weights.shape(f"{_net(name, kind)}.initial_layer.weight")[1]
    keys = {"masked": "b", "actnorm": "s", "lu": "linear.bias", "permutation": "perm"}
    keys |= {"planar": "u", "radial": "z_0"}
    if kind == "periodic":  # whose tensors have one number a circular feature
        return features(weights, dict(list(kinds.items())[1:]))
    if kind == "matrix":
        return weights.shape(f"{name}.{'W' if f'{name}.W' in weights else 'P'}")[0]
    return weights.shape(f"{name}.{keys[kind]}")[-1]


def context(weights: Weights, name: str, kind: str) -> int:
    """Length of the context that a flow's network takes."""
    net = _net(name, kind)
    if kind == "spline_coupling":
        check_net(weights, net)
        kept = weights.shape(f"{name}.prqct.identity_features")[0]
        return weights.shape(f"{net}.initial_layer.weight")[1] - kept
    key = f"{net}.context_layer.weight"
    return weights.shape(key)[1] if key in weights else 0


def outputs(weights: Weights, name: str, kind: str) -> int:
    """How many parameters a spline flow has a feature."""
    net = _net(name, kind)
    moved = (
        weights.shape(f"{name}.prqct.transform_features")[0]
        if kind == "spline_coupling"
        else weights.shape(f"{net}.initial_layer.weight")[1]
    )
    return weights.shape(f"{net}.final_layer.weight")[0] // moved


def convert(weights: Weights, name: str, settings: Settings) -> list[Part]:
    """Turn a flow into layers, from data to latents; one without tensors is a swap, or a turn."""
    if not weights.under(f"{name}."):
        if settings.turns:
            return normflows_circular.shift(weights, name, settings)
        half = (settings.features + 1) // 2
        return [chain_layers.permute([*range(half, settings.features), *range(half)])]
    makers: dict[str, Callable[[Weights, str, Settings], list[Part]]] = {
        "masked": normflows_couplings.masked,
        "coupling": normflows_couplings.block,
        "spline_coupling": _spline_coupling,
        "spline_autoregressive": _spline_autoregressive,
        "autoregressive": _autoregressive,
        "lu": _lu,
        "permutation": _permutation,
        "matrix": _matrix,
        "actnorm": _actnorm,
        "planar": _planar,
        "radial": _radial,
        "periodic": normflows_circular.shift,
    }
    return makers[kind_of(weights, name)](weights, name, settings)


def _net(name: str, kind: str) -> str:
    inner = {
        "spline_coupling": "prqct.transform_net",
        "spline_autoregressive": "mprqat.autoregressive_net",
    }.get(kind, "autoregressive_net")
    return f"{name}.{inner}"


def _spline_coupling(weights: Weights, name: str, settings: Settings) -> list[Part]:
    inner = f"{name}.prqct"
    kept, moved = (
        weights.take_integers(key, *weights.shape(key)).tolist()
        for key in (f"{inner}.identity_features", f"{inner}.transform_features")
    )
    net = f"{inner}.transform_net"
    count = outputs(weights, name, "spline_coupling")
    tails = normflows_circular.read_tails(count, name)
    rows = normflows_circular.parameter_rows(len(moved), count, tails)
    width = weights.shape(f"{net}.initial_layer.weight")[0]
    elementwise = normflows_circular.describe(
        weights, f"{inner}.tail_bound", moved, tails, settings, divisor=math.sqrt(width)
    )
    conditioner = residual_net(
        weights, net, settings.activation, rows=rows, unused_context=settings.unused_context
    )
    conditioner = normflows_circular.with_angles(weights, net, conditioner, settings)
    parts = [chain_layers.coupling(kept, settings.features, elementwise, conditioner)]
    own = f"{inner}.unconditional_transform"
    if f"{own}.unnormalized_widths" in weights:
        parts.append(normflows_circular.own_splines(weights, own, kept, settings))
    return parts


def _spline_autoregressive(weights: Weights, name: str, settings: Settings) -> list[Part]:
    inner, chosen = f"{name}.mprqat", range(settings.features)
    count = outputs(weights, name, "spline_autoregressive")
    tails = normflows_circular.read_tails(count, name)
    elementwise = normflows_circular.describe(
        weights, f"{inner}.tail_bound", chosen, tails, settings
    )
    rows = normflows_circular.parameter_rows(settings.features, count, tails)
    net = _made(weights, f"{inner}.autoregressive_net", rows, settings)
    net = normflows_circular.with_angles(weights, f"{inner}.autoregressive_net", net, settings)
    return [chain_layers.autoregressive(settings.features, elementwise, net)]


def _autoregressive(weights: Weights, name: str, settings: Settings) -> list[Part]:
    # (scale, shift) side by side a feature; the map goes from latents to data.
    elementwise = {"kind": "affine", "scale": "floored_sigmoid", "form": "scale_then_shift"}
    rows = parameter_rows(settings.features, [1, 0])
    net = _made(weights, f"{name}.autoregressive_net", rows, settings)
    return [chain_layers.autoregressive(settings.features, elementwise, net, one_pass="decode")]


def _made(weights: Weights, name: str, rows: list[int], settings: Settings) -> Net:
    return made(
        weights, name, settings.activation, _MADE, rows=rows, unused_context=settings.unused_context
    )


def _lu(weights: Weights, name: str, settings: Settings) -> list[Part]:
    key = f"{name}.permutation._permutation"
    indices = weights.take_integers(key, settings.features).tolist()
    return [chain_layers.permute(indices), lu_linear(weights, f"{name}.linear.")]


def _permutation(weights: Weights, name: str, settings: Settings) -> list[Part]:
    indices = weights.take_integers(f"{name}.perm", settings.features)
    return [chain_layers.permute(indices.argsort().tolist())]


def _matrix(weights: Weights, name: str, settings: Settings) -> list[Part]:
    """x W, that is W^T in front of columns."""
    size = settings.features
    if f"{name}.W" in weights:
        matrix = weights.take(f"{name}.W", size, size)
        check_invertible(weights, f"{name}.W", matrix)
        return [chain_layers.linear(matrix.T)]
    permutation, lower, upper = (weights.take(f"{name}.{key}", size, size) for key in "PLU")
    diagonal = weights.take(f"{name}.sign_S", size) * weights.take(f"{name}.log_S", size).exp()
    unit = lower.tril(-1) + lower.new_ones(size).diag()
    return [chain_layers.linear((permutation @ unit @ (upper.triu(1) + diagonal.diag())).T)]


def _actnorm(weights: Weights, name: str, settings: Settings) -> list[Part]:
    flag = f"{name}.data_dep_init_done"
    if flag in weights:
        check_flag(weights, flag)
    state = {
        "log_scale": weights.take(f"{name}.s", 1, settings.features)[0],
        "shift": weights.take(f"{name}.t", 1, settings.features)[0],
    }
    return [Part({"kind": "actnorm", "form": "unshift_then_unscale", "storage": "log"}, state)]


def _planar(weights: Weights, name: str, settings: Settings) -> list[Part]:
    size = settings.features
    state = {
        "w": weights.take(f"{name}.w", 1, size)[0],
        "v": weights.take(f"{name}.u", 1, size)[0],
        "b": weights.take(f"{name}.b", 1),
    }
    activation = settings.act(name)
    options = {"negative_slope": _PLANAR_SLOPE} if activation == "leaky_relu" else {}
    layer = {"kind": "planar", "activation": activation, "formula": "decode", **options}
    return [Part(layer, prefixed("transform.", state))]


def _radial(weights: Weights, name: str, settings: Settings) -> list[Part]:
    size = settings.features
    dimension = int(weights.take_integers(f"{name}.d"))
    if dimension != size:
        weights.problem(f"{name}.d", f"expected {size}, the length of z_0, got {dimension}")
    state = {
        "point": weights.take(f"{name}.z_0", 1, size)[0],
        "alpha": weights.take(f"{name}.alpha", 1),
        "beta": weights.take(f"{name}.beta", 1),
    }
    return [Part({"kind": "radial", "formula": "decode"}, prefixed("transform.", state))]
