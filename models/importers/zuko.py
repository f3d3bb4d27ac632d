"""zuko: flows composed of its lazy transforms, from data to latents in the order of their places.

Masked autoregressive transforms (MAF, NSF), couplings (NICE, RealNVP), element-wise transforms,
rotations, permutations and LU matrices, with affine maps (log scale a / (1 + |a / log 1e-3|), shift
before scale), shifts alone, or rational-quadratic splines, whose parameters stand side by side a
feature; and CNF, which `zuko_cnf` converts. Masks and orders are stored; a coupling's mask is true
where features are kept. Not in a checkpoint: activations, the bound and slope of splines, and which
univariate map parameters belong to; a Bernstein polynomial (BPF) can have as many as a spline.

Reference: github.com/probabilists/zuko 1.6.0, flows/, transforms.py, nn.py, lazy.py.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from models.importers import tables, zuko_cnf, zuko_layers, zuko_parts
from models.importers.findings import ImportRefused
from models.importers.likelihood import Reported
from models.importers.networks import ACTIVATIONS, ActivationName
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.tables import Part
from models.importers.weights import Weights
from models.importers.zuko_layers import Layer
from models.importers.zuko_parts import Settings

_REFUSED = ("NAF", "UNAF", "SOSPF", "BPF", "NCSF", "GF", "GMM")
_UNIVARIATE = ("MonotonicAffineTransform", "AdditiveTransform", "MonotonicRQSTransform")
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


def infer(weights: Weights) -> Inference:
    """Read the sizes off the weights; ask for the activation, and for the kind of a spline flow.

    Raises:
        ImportRefused: names the first transform that cannot be imported.
    """
    layers = zuko_layers.recognise(weights)
    seen = Inference()
    if layers[0].kind == "cnf":
        zuko_cnf.infer(weights, seen, layers)
    else:
        _infer_layers(weights, seen, layers)
    if any(layer.has_net for layer in layers):
        seen.ask("activation", f"{ACTIVATIONS} (zuko's default is ReLU, for CNF ELU)")
    else:
        seen.suppose("activation", "relu", "there is no network")
    seen.suppose("univariate", None, "the count of parameters a feature")
    seen.suppose("slope", 1e-3, "the library's default")
    seen.suppose("bound", 5.0, "the library's default")
    return seen


def _infer_layers(weights: Weights, seen: Inference, layers: list[Layer]) -> None:
    features = {layer.features for layer in layers if layer.features}
    if not features:  # every transform sees the context alone
        features = {weights.shape("base.loc")[0]}
    if len(features) != 1:
        raise ImportRefused(f"features: expected one number for all transforms, got {features}")
    seen.know("features", features.pop(), "networks, masks and constants")
    seen.know("context", max(layer.context for layer in layers), "inputs of the networks")
    seen.know("freqs", 0, "there is no differential equation")
    counts = sorted({layer.params for layer in layers if layer.params > 2})
    seen.suppose("bins", zuko_layers.num_bins(counts[0]) if counts else None, "the networks")
    if counts:
        seen.ask(
            "constructor",
            f"NSF, or another with rational-quadratic splines: {counts[0]} parameters a feature "
            f"could also be a Bernstein polynomial of degree {counts[0] - 1} (BPF, which cannot "
            "be imported)",
        )
    else:
        kind = "NICE" if any(layer.kind == "coupling" for layer in layers) else "MAF"
        seen.suppose("constructor", kind, "its transforms")


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain, or a continuous flow.

    Raises:
        ImportRefused: names what cannot be expressed.
    """
    _check(config)
    layers = zuko_layers.recognise(weights)
    base = _base(weights, config.features)
    if layers[0].kind == "cnf":
        if base:
            raise ImportRefused("base: expected N(0, I) for a CNF, got other means and deviations")
        return zuko_cnf.convert(weights, layers, config.context, config.activation)
    settings = Settings(config.features, config.activation, config.slope, config.bound)
    parts = [zuko_parts.convert(weights, layer, settings) for layer in layers] + base
    described, states = tables.chain(parts, config.features, context_features=config.context)
    return Conversion(
        family="chain",
        config=described,
        layers=states,
        reported=Reported("log_prob of zuko's Flow: nats"),
        data="the inputs of the flow",
    )


def _check(config: Config) -> None:
    if config.constructor in _REFUSED:
        raise ImportRefused(
            f"{config.constructor}: of zuko's flows MAF, NSF, NICE, RealNVP and CNF can be imported"
        )
    univariate = (config.univariate or _UNIVARIATE[0]).rpartition(".")[2]
    if univariate not in _UNIVARIATE:
        raise ImportRefused(
            f"univariate {univariate}: expected one of {', '.join(_UNIVARIATE)}; others cannot be "
            "imported"
        )


def _base(weights: Weights, features: int) -> list[Part]:
    """The base distribution as a layer, unless it is the standard normal."""
    names = next((names for names in _BASES if f"base.{names[0]}" in weights), None)
    if names is None:
        if weights.has(r"base\..*"):
            raise ImportRefused(
                "base: expected a DiagNormal (loc, scale); uniform (NCSF), mixture and other bases "
                "cannot be imported"
            )
        return []
    mean, std = (weights.take(f"base.{name}", features) for name in names)
    if tables.is_standard(mean, std.log()):
        return []
    return [tables.gaussian(mean, std.log())]


# As keywords, and by position in versions before 1.0.
_BASES = (("loc", "scale"), ("_0", "_1"))


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a class of splines for what the constructor would tell."""
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
    read_off_keys=frozenset(
        {
            *("transforms", "hidden_features", "randperm", "randmask", "passes", "residual"),
            *("order", "adjacency", "mask", "normalize", "shapes", "components", "degree"),
            *("polynomials", "signal", "network", "base"),
        }
    ),
    unfold=_unfold,
)
