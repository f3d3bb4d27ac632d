"""zuko's GMM: a mixture of Gaussians, by itself or as the base of a flow.

Its numbers are logits (K), loc (K, D), diag and, of full covariances, the entries below the
diagonals of their Cholesky factors, whose diagonals are exp(diag) + epsilon. Without a context they
are the parameters `phi`, with one the outputs of the network `hyper`, one behind the other: then
nothing shows D, K, or what components share.

Reference: github.com/probabilists/zuko 1.6.0, mixtures.py.
"""

from typing import Annotated, Literal

from pydantic import Field

from models.importers.layouts import chain_layers, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.mixtures import Mixture, shared_rows
from models.importers.layouts.networks import ACTIVATIONS, ActivationName
from models.importers.likelihood import Reported
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.sources.zuko import parts as zuko_parts
from models.importers.weights import Weights

CovarianceType = Literal["full", "diagonal", "spherical"]
EPSILON = 1e-6


class Config(SourceConfig):
    """Arguments of the constructor that decide about the function."""

    features: Count
    context: Annotated[int, Field(ge=0)]
    components: Count
    covariance_type: CovarianceType
    tied: bool
    epsilon: Annotated[float, Field(ge=0)]
    activation: ActivationName


def infer(weights: Weights) -> Inference:
    """Read the sizes off the parameters; of a network ask for them."""
    seen = Inference()
    seen.show("constructor", "GMM", reason="keys of phi or hyper alone")
    if "phi.0" in weights:
        _infer_constant(weights, seen)
    else:
        places = weights.indices(r"hyper\.(\d+)\.weight")
        outputs = weights.shape(f"hyper.{places[-1]}.weight")[0]
        fitting = (
            f"with the {outputs} outputs of the network: K (1 + D), and for every component D + "
            "D (D - 1) / 2 (full), D (diagonal) or 1 (spherical), once where tied"
        )
        seen.ask("features", f"D, {fitting}")
        seen.ask("components", f"K, {fitting}")
        seen.know("context", weights.shape("hyper.0.weight")[1], "hyper.0.weight")
        seen.suppose("covariance_type", "full", "the library's default")
        seen.suppose("tied", False, "the library's default")
        if len(places) > 1:
            seen.ask("activation", f"{ACTIVATIONS} (zuko's default is ReLU)")
        else:
            seen.suppose("activation", "relu", "the network has no hidden layers")
        widths = [weights.shape(f"hyper.{place}.weight")[0] for place in places[:-1]]
        seen.show("hidden_features", widths, reason="outputs of the layers")
        is_normalised = places[1:2] == [3]
        seen.show("normalize", is_normalised, reason="places of the layers")
    seen.suppose("epsilon", EPSILON, "the library's default")
    return seen


def _infer_constant(weights: Weights, seen: Inference) -> None:
    mixture, tied = recognise(weights, "", EPSILON)
    seen.know("features", mixture.features, "phi.1")
    seen.know("components", mixture.components, "phi.1")
    seen.know("context", 0, "there is no network")
    is_spherical = weights.shape("phi.2")[1] < mixture.features
    kind = "full" if mixture.is_full else "spherical" if is_spherical else "diagonal"
    note = seen.suppose if mixture.features == 1 else seen.know
    note("covariance_type", kind, "shapes of phi")
    (seen.suppose if mixture.components == 1 else seen.know)("tied", tied, "phi.2")
    seen.suppose("activation", "relu", "there is no network that needs it")


def recognise(weights: Weights, prefix: str, epsilon: float) -> tuple[Mixture, bool]:
    """Read a mixture without a context off the shapes of its parameters.

    Returns:
        The mixture, and whether its components share a covariance.

    Raises:
        ImportRefused: if the shapes do not fit each other.
    """
    shapes = [weights.shape(f"{prefix}phi.{index}") for index in range(3)]
    if [len(shape) for shape in shapes] != [1, 2, 2] or shapes[1][0] != shapes[0][0]:
        raise ImportRefused(
            f"{prefix}phi: expected logits (K), loc (K, D) and diag of a GMM, got {shapes}"
        )
    components, features = shapes[1]
    is_full = f"{prefix}phi.3" in weights
    mixture = Mixture(features, components, is_full, {"offset": epsilon})
    return mixture, shapes[2][0] < components


def constant(weights: Weights, prefix: str, epsilon: float) -> Part:
    """Turn a mixture without a context into a layer."""
    mixture, _ = recognise(weights, prefix, epsilon)
    shapes = [weights.shape(f"{prefix}phi.{index}") for index in range(3)]
    if mixture.is_full:
        shapes.append((shapes[2][0], mixture.entries))
    logits, means, raw, *below = (
        weights.take(f"{prefix}phi.{index}", *shape) for index, shape in enumerate(shapes)
    )
    return mixture.constant(logits, means, raw, below[0] if below else None)


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain of one layer.

    Raises:
        ImportRefused: if the network has other outputs than the arguments say.
    """
    if "phi.0" in weights:
        part = constant(weights, "", config.epsilon)
    else:
        part = _of_context(config, weights)
    warn_of_epsilon(weights)
    described, states = chain_layers.chain([part], config.features, context_features=config.context)
    return Conversion(
        family="chain",
        config=described,
        layers=states,
        reported=Reported("log_prob of zuko's GMM: nats"),
        data="the inputs of the mixture",
    )


def _of_context(config: Config, weights: Weights) -> Part:
    is_full, features = config.covariance_type == "full", config.features
    mixture = Mixture(features, config.components, is_full, {"offset": config.epsilon})
    rows = shared_rows(
        config.components,
        features,
        tied=config.tied,
        spherical=config.covariance_type == "spherical",
        entries=mixture.entries,
    )
    linears, options = zuko_parts.mlp_layers(weights, "hyper")
    outputs = len(linears[-1].bias)
    if outputs != max(rows) + 1:
        raise ImportRefused(
            f"features {features}, components {config.components}, covariance_type "
            f"{config.covariance_type}, tied {config.tied}: these are {max(rows) + 1} numbers, but "
            f"the network has {outputs} outputs"
        )
    linears[-1] = linears[-1].rows(rows)
    return mixture.of_context(networks.mlp(linears, config.activation, **options))


def warn_of_epsilon(weights: Weights) -> None:
    """Say which number was taken on trust, where it was not given."""
    if any(item.name == "epsilon" and item.origin == "given" for item in weights.report.settings):
        return
    weights.report.warning(
        "epsilon",
        f"{EPSILON:g} was taken, the library's default: it is in no weight, and with another one "
        "given to GMM the numbers are wrong",
    )


def is_base(weights: Weights) -> bool:
    """Whether a flow's base is a mixture without a context."""
    return "base.phi.0" in weights


SOURCE = Source(
    name="zuko",
    short_names=("probabilists/zuko",),
    signature=(r"(phi\.2|hyper\.0\.weight)$",),
    config=Config,
    infer=infer,
    convert=convert,
)
