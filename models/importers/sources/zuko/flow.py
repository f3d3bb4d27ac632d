"""zuko: flows composed of its lazy transforms, from data to latents in the order of their places.

Masked autoregressive transforms (MAF, NSF), couplings (NICE, RealNVP), element-wise transforms,
rotations, permutations and LU matrices, with affine maps (log scale a / (1 + |a / log 1e-3|), shift
before scale), shifts alone, or rational-quadratic splines, whose parameters stand side by side a
feature; and CNF, which `zuko_cnf` converts. Masks and orders are stored; a coupling's mask is true
where features are kept. Not in a checkpoint: activations, the bound and slope of splines, and which
univariate map parameters belong to; a Bernstein polynomial (BPF) can have as many as a spline.

Reference: github.com/probabilists/zuko 1.6.0, flows/, transforms.py, nn.py, lazy.py.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from models.importers.layouts import chain_layers
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import ACTIVATIONS, ActivationName
from models.importers.likelihood import Reported
from models.importers.report import HyperParametersMissing, ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.sources.zuko import cnf as zuko_cnf
from models.importers.sources.zuko import gmm as zuko_gmm
from models.importers.sources.zuko import layers as zuko_layers
from models.importers.sources.zuko import monotone as zuko_monotone
from models.importers.sources.zuko import parts as zuko_parts
from models.importers.sources.zuko import shown as zuko_shown
from models.importers.sources.zuko.layers import Layer
from models.importers.weights import Weights

_REFUSED = ("GMM",)
# Constructors whose transforms have more than two parameters a feature.
_CURVED = ("NSF", "NCSF", "BPF", "SOSPF")
_Slope = Annotated[float, Field(gt=0, lt=1)]


class Config(SourceConfig):
    """Arguments of the library's constructors that decide about the function."""

    constructor: str
    features: Count
    context: Annotated[int, Field(ge=0)]
    bins: Count | None
    freqs: Annotated[int, Field(ge=0)]
    activation: ActivationName
    univariate: str | None
    slope: _Slope
    bound: Annotated[float, Field(gt=0)]
    degree: Count | None
    polynomials: Count | None
    signal: Count | None
    network: Mapping[str, Any] | None


def infer(weights: Weights) -> Inference:
    """Read the sizes off the weights; ask for the activation, and for the kind of a spline flow.

    Raises:
        ImportRefused: names the first transform that cannot be imported.
    """
    layers = zuko_layers.recognise(weights)
    seen = Inference()
    for name in ("degree", "polynomials", "signal", "network"):
        seen.suppose(name, None, "no transform has it")
    equations = [layer for layer in layers if layer.kind == "cnf"]
    if equations:
        zuko_cnf.infer(weights, seen, equations)
    else:
        _infer_layers(weights, seen, layers)
    if any(layer.has_net for layer in layers):
        seen.ask("activation", f"{ACTIVATIONS} (zuko's default is ReLU, for CNF ELU)")
    else:
        seen.suppose("activation", "relu", "there is no network that needs it")
    zuko_shown.show(weights, seen, layers)
    if not zuko_shown.has_hidden_layers(weights):
        seen.mark_idle("activation", "not used: no network has hidden layers")
    seen.suppose("slope", 1e-3, "the library's default")
    seen.suppose("bound", 5.0, "the library's default")
    return seen


def _infer_layers(weights: Weights, seen: Inference, layers: list[Layer]) -> None:
    features = {layer.features for layer in layers if layer.features}
    if not features:  # every transform sees the context alone
        features = {zuko_layers.base_features(weights)}
    if len(features) != 1:
        raise ImportRefused(f"features: expected one number for all transforms, got {features}")
    seen.know("features", features.pop(), "networks, masks and constants")
    seen.know("context", max(layer.context for layer in layers), "inputs of the networks")
    seen.know("freqs", 0, "there is no differential equation")
    if _infer_neural(weights, seen, layers) or _infer_gaussianization(seen, layers):
        return
    counts = sorted({layer.per_feature(seen.found["features"].value) for layer in layers})
    splines = [count for count in counts if count > 2]
    bins = [bins for count in splines if (bins := chain_layers.spline_bins(count))]
    if any(layer.kind == zuko_layers.HOLE for layer in layers):
        _ask_about_squares(seen, splines)
        return
    if len(bins) > 1:
        seen.suppose("bins", None, f"the transforms have {bins}")
    else:
        seen.know("bins", bins[0] if bins else None, "parameters a feature")
    if splines and "base.lower" in weights:
        seen.suppose("constructor", "NCSF", "the base is uniform")
        seen.suppose("univariate", None, "that of the constructor")
    elif splines:
        has_tables = any(layer.kind == "conditional" for layer in layers)
        _ask_about_splines(seen, splines, ", or GF of shifts and log scales" * has_tables)
    else:
        seen.suppose("constructor", zuko_shown.constructors(layers)[0], "its transforms")
        univariates = [_UNIVARIATE[count] for count in counts if count]
        if len(univariates) == 1:
            seen.know("univariate", univariates[0], "parameters a feature")
        else:
            seen.suppose("univariate", None, "parameters a feature, each transform its own")


def _infer_neural(weights: Weights, seen: Inference, layers: list[Layer]) -> bool:
    """Note what NAF and UNAF show, if it is one of them."""
    found = [layer for layer in layers if layer.kind in zuko_monotone.NETWORKS]
    if not found:
        return False
    seen.know("constructor", zuko_monotone.NETWORKS[found[0].kind], "keys of univariate")
    signals = {layer.params - (layer.kind == "integral") for layer in found}
    seen.know("signal", signals.pop() if len(signals) == 1 else None, "outputs of the networks")
    for name in ("bins", "univariate"):
        seen.suppose(name, None, "that of the constructor")
    return True


def _infer_gaussianization(seen: Inference, layers: list[Layer]) -> bool:
    """Note what GF shows, if it is one: without a context, its tables."""
    if not any(layer.kind == zuko_layers.GAUSSIANIZATION for layer in layers):
        return False
    seen.suppose("constructor", zuko_shown.constructors(layers)[0], "shifts and log scales")
    for name in ("bins", "univariate"):
        seen.suppose(name, None, "that of the constructor")
    return True


def _ask_about_squares(seen: Inference, counts: list[int]) -> None:
    """A transform without tensors between all others: of those without networks SOSPF has it."""
    seen.ask("constructor", "SOSPF, whose transforms have a SoftclipTransform between them")
    fitting = " or ".join(zuko_monotone.splits(count) for count in counts)
    seen.ask("degree", f"that of the polynomials that are squared: {fitting}")
    seen.ask("polynomials", f"how many are added: {fitting}")
    for name in ("bins", "univariate"):
        seen.suppose(name, None, "that of the constructor")


def _ask_about_splines(seen: Inference, counts: list[int], also: str = "") -> None:
    others = " or ".join(f"{count} parameters a feature" for count in counts)
    degrees = " or ".join(str(count - 1) for count in counts)
    seen.ask(
        "constructor",
        f"NSF, or another with rational-quadratic splines, or BPF: {others} could also be a "
        f"Bernstein polynomial of degree {degrees}{also}",
    )
    seen.suppose("univariate", None, "that of the constructor")


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain, or a continuous flow.

    Raises:
        ImportRefused: names what cannot be expressed.
    """
    layers = zuko_layers.recognise(weights)
    _check(config, layers)
    base = _base(weights, config.features)
    if layers[-1].kind == "cnf":
        if base:
            raise ImportRefused("base: expected N(0, I) for a CNF, got other means and deviations")
        return _continuous(config, weights, layers)
    _warn_of_polynomials(config, weights, layers)
    if config.constructor == "UNAF":
        zuko_monotone.warn_of_activation(weights, config.network)
    if config.constructor == "NCSF":
        weights.report.warning(
            "base",
            "angles outside [-pi, pi) are turned into it, as the library does; but the networks "
            "see them as they come, so give angles inside",
        )
    parts = [zuko_parts.convert(weights, layer, config) for layer in layers] + base
    described, states = chain_layers.chain(parts, config.features, context_features=config.context)
    return Conversion(
        family="chain",
        config=described,
        layers=states,
        reported=Reported("log_prob of zuko's Flow: nats"),
        data="the inputs of the flow",
    )


def _continuous(config: Config, weights: Weights, layers: list[Layer]) -> Conversion:
    """A continuous flow; an affine map in front of it becomes a step of its preprocessing."""
    equations = [layer for layer in layers if layer.kind == "cnf"]
    converted = zuko_cnf.convert(weights, equations, config.context, config.activation)
    if len(equations) == len(layers):
        return converted
    loc, scale = zuko_parts.affine_constants(weights, layers[0], config.features)
    step = {
        "kind": "standardise",
        "mean": (-loc / scale).tolist(),
        "std": scale.reciprocal().tolist(),
    }
    return dataclasses.replace(converted, inputs=(step,))


def _check(config: Config, layers: list[Layer]) -> None:
    """Compare the constructor's arguments with the transforms that there are."""
    allowed = zuko_shown.constructors(layers)
    if config.constructor not in allowed:
        kinds = sorted({layer.kind for layer in layers})
        raise ImportRefused(
            f"constructor {config.constructor}: expected {' or '.join(allowed)}: its transforms "
            f"are {', '.join(kinds)}"
        )
    found = {layer.per_feature(config.features) for layer in layers} - {0}
    if config.constructor in (*zuko_monotone.NETWORKS.values(), "GF"):
        return
    has_splines = any(count > 2 for count in found)
    if config.constructor in _CURVED and not has_splines:
        raise ImportRefused(
            f"constructor {config.constructor}: expected three or more parameters a feature, got "
            f"{found}"
        )
    has_holes = any(layer.kind == zuko_layers.HOLE for layer in layers)
    if has_holes and config.constructor != "SOSPF":
        raise ImportRefused(
            f"constructor {config.constructor}: between the transforms stand others without "
            "tensors, as in SOSPF; what they are is not known"
        )
    if has_splines and config.constructor not in _CURVED and config.univariate is None:
        raise HyperParametersMissing(
            f"zuko: univariate is not in the checkpoint; give it: with the constructor "
            f"{config.constructor} alone, {max(found)} parameters a feature could be "
            "MonotonicRQSTransform, which can be imported, or another, which cannot"
        )
    if config.univariate is not None:
        _check_univariate(config.univariate.rpartition(".")[2], found)


def _check_univariate(name: str, found: set[int]) -> None:
    if name not in _UNIVARIATE.values():
        raise ImportRefused(
            f"univariate {name}: expected one of {', '.join(_UNIVARIATE.values())}; others cannot "
            "be imported"
        )
    shown = sorted({_UNIVARIATE[min(count, 3)] for count in found})
    if shown != [name]:
        raise ImportRefused(
            f"univariate {name}: the transforms have {', '.join(map(str, sorted(found)))} "
            f"parameters a feature, as {' and '.join(shown) or 'none'} has"
        )


def _warn_of_polynomials(config: Config, weights: Weights, layers: list[Layer]) -> None:
    """Say what a user's word decides: that many parameters fit splines and polynomials alike."""
    if config.constructor in (*zuko_monotone.NETWORKS.values(), "SOSPF", "GF"):
        return
    for count in sorted({layer.per_feature(config.features) for layer in layers}):
        bins = chain_layers.spline_bins(count)
        if count < 3 or bins is None:
            continue
        names = [
            f"{'circular ' * (config.constructor == 'NCSF')}splines of {bins} bins",
            f"Bernstein polynomials of degree {count - 1} (BPF)",
        ]
        taken, other = names[::-1] if config.constructor == "BPF" else names
        weights.report.warning(
            "constructor",
            f"{config.constructor} was given, so {count} parameters a feature are {taken}; {other} "
            "have as many, and their numbers would be wrong",
        )


def _base(weights: Weights, features: int) -> list[Part]:
    """The base distribution as a layer, unless it is the standard normal."""
    names = next((names for names in _BASES if f"base.{names[0]}" in weights), None)
    if zuko_gmm.is_base(weights):
        zuko_gmm.warn_of_epsilon(weights)
        return [zuko_gmm.constant(weights, "base.", zuko_gmm.EPSILON)]
    if "base.lower" in weights:
        ends = (weights.take(f"base.{end}", features) for end in ("lower", "upper"))
        return [chain_layers.uniform(range(features), *ends)]
    if names is None:
        if weights.has(r"base\..*"):
            raise ImportRefused(
                "base: expected a DiagNormal (loc, scale), a BoxUniform (lower, upper) or a GMM "
                "without a context; other bases cannot be imported"
            )
        return []
    mean, std = (weights.take(f"base.{name}", features) for name in names)
    if chain_layers.is_standard(mean, std.log()):
        return []
    return [chain_layers.gaussian(mean, std.log())]


# The univariate map by its number of parameters; a spline has 3 or more.
_UNIVARIATE = {
    1: "AdditiveTransform",
    2: "MonotonicAffineTransform",
    3: "MonotonicRQSTransform",
}
# As keywords, and by position in versions before 1.0.
_BASES = (("loc", "scale"), ("_0", "_1"))


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a class of splines for what the constructor would say.

    Raises:
        ImportRefused: for a constructor whose flows cannot be imported, whatever else is given.
    """
    if settings.get("constructor") in _REFUSED:
        raise ImportRefused(
            f"{settings['constructor']}: of zuko's flows MAF, NSF, NICE, RealNVP, CNF, NAF, "
            "UNAF, SOSPF, BPF, GF and NCSF can be imported"
        )
    if "constructor" not in settings and "RQS" in str(settings.get("univariate", "")):
        return {**settings, "constructor": "NSF"}
    return settings


SOURCE = Source(
    name="zuko",
    short_names=("probabilists/zuko",),
    signature=(
        r"transform\.(transforms\.\d+\.)?(hyper\.\d+\.(\d\.)?weight|phi\.0|ode\.0\.weight|A|LU)$",
        r"(base|transform)\.",
    ),
    config=Config,
    infer=infer,
    convert=convert,
    training_only=frozenset({"atol", "rtol", "exact"}),
    unfold=_unfold,
)
