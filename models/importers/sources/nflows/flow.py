"""nflows: flows over vectors, composed of the library's transforms in any way.

A `Flow` maps data to noise. Its `_transform` is a `CompositeTransform`, a single transform or the
`InverseTransform` of one, and every transform is recognised by its tensors: permutations, ActNorm,
BatchNorm, LU, naive, QR, SVD and Householder linears, pointwise affine maps, affine, additive and
rational-quadratic couplings, and the same as autoregressive maps; inverses of all but splines and
BatchNorm. Not in a checkpoint: activations, the bound of splines, and transforms without tensors.

Conventions: couplings scale by sigmoid(u + 2) + 1e-3 with (shift, u) as halves; autoregressive maps
by softplus(u) + 1e-3 with (u, shift) side by side a feature (0.11 and later). Raw widths and
heights of spline couplings are divided by the root of the hidden width, those of autoregressive
ones are not.

Reference: github.com/bayesiains/nflows 0.14.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from models.importers.layouts import chain_layers, embedding
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.networks import ACTIVATIONS, ActivationName
from models.importers.layouts.nsf_parts import encoded_gaussian, num_bins
from models.importers.likelihood import Reported
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.sources.nflows import layers as nflows_layers
from models.importers.sources.nflows import mixture as nflows_mixture
from models.importers.sources.nflows import shown as nflows_shown
from models.importers.sources.nflows.leaves import Leaf, recognise
from models.importers.weights import Weights

EMBEDDING = "_embedding_net."
_TRANSFORMS = "_transforms."
_INVERSE = "_transform."
_Share = Annotated[float, Field(gt=0, lt=1)]


class Config(SourceConfig):
    """Arguments of the library's constructors that decide about the function."""

    features: Count
    context_features: Annotated[int, Field(ge=0)]
    hidden_features: Count | None
    num_bins: Count | None
    activation: ActivationName
    tail_bound: Annotated[float, Field(gt=0)]
    tails: str
    min_bin_width: _Share
    min_bin_height: _Share
    min_derivative: _Share
    encoder_activation: ActivationName = Field(
        description="of the context encoder of a ConditionalDiagonalNormal"
    )
    embedding_net: str | None


def infer(weights: Weights) -> Inference:
    """Read the sizes off the weights; ask for activation and bound where they are used."""
    found = leaves(weights)
    seen = Inference()
    seen.know("features", _features(weights, found), "the transforms, or the base")
    nets = [leaf for leaf in found if leaf.has_net]
    widths = {weights.shape(leaf.first_weight)[0] for leaf in nets}
    has_mixture = nflows_mixture.is_base(weights)
    if has_mixture:
        widths.add(weights.shape(f"{nflows_mixture.NET}.initial_layer.weight")[0])
        count = nflows_mixture.components(weights)
        seen.show("num_mixture_components", count, reason="outputs of the base's network")
    _know_the_one(seen, "hidden_features", widths, "width of the first layers")
    bins = {num_bins(count, leaf.name) for leaf in nets if (count := leaf.params) > 2}
    bins |= {
        weights.shape(f"{leaf.name}unnormalized_widths")[-1]
        for leaf in found
        if leaf.kind == "pointwise"
    }
    _know_the_one(seen, "num_bins", bins, "outputs of the networks")
    context = {leaf.context for leaf in nets} | {_base_context(weights)}
    _infer_context(weights, seen, max(context))
    if has_mixture or any(leaf.kind != "context_spline" for leaf in nets):
        seen.ask("activation", f"{ACTIVATIONS} (the library's default is relu)")
    else:
        seen.suppose("activation", "relu", "there is no network that needs it")
    names = [*(leaf.net for leaf in nets), nflows_mixture.NET]
    if not any(weights.has(rf"{re.escape(name)}\.blocks\..*") for name in names):
        seen.mark_idle("activation", "not used: no network has blocks")
    if bins:
        seen.ask("tail_bound", "a positive number (the library's default is 1)")
    else:
        seen.suppose("tail_bound", 1.0, "there are no splines")
    if len(_encoder(weights)) > 1:
        seen.ask("encoder_activation", f"{ACTIVATIONS}; of the base's context encoder")
    else:
        seen.suppose("encoder_activation", "relu", "there is no encoder with hidden layers")
    seen.suppose("tails", "linear", "the count of outputs of every spline")
    nflows_shown.show(weights, seen, found)
    for name in ("min_bin_width", "min_bin_height", "min_derivative"):
        seen.suppose(name, 1e-3, "the library's default")
    return seen


def _infer_context(weights: Weights, seen: Inference, embedded: int) -> None:
    """What the flow takes, and whether the network in front of its layers has to be described."""
    context = embedding.context_features(weights, EMBEDDING, embedded)
    seen.know("context_features", context, "inputs of the networks and of the base")
    if embedding.has_gaps(weights, EMBEDDING):
        seen.ask(embedding.FIELD, embedding.fitting(weights, EMBEDDING))
    else:
        seen.suppose(embedding.FIELD, None, "the keys below _embedding_net show all of it, or none")


def _know_the_one(seen: Inference, name: str, values: set[int], reason: str) -> None:
    """Note a value that all transforms share, or that they differ."""
    if len(values) > 1:
        seen.suppose(name, None, f"{reason}: {sorted(values)}, each transform its own")
    else:
        seen.know(name, next(iter(values), None), reason)


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain.

    Raises:
        ImportRefused: names what cannot be expressed.
    """
    weights.skip(r"(.*\.)?degrees", "the masks say the same")
    weights.skip(r"(.*\.)?initialized", "a flag of ActNorm: outside training it does nothing")
    weights.skip(r"_distribution\._log_z", "the constant of the normal density")
    parts: list[Part] = []
    for leaf in leaves(weights):
        parts += nflows_layers.convert(weights, leaf, config)
    parts += _base(weights, config)
    context = config.context_features
    embedded = embedding.convert(weights, EMBEDDING, config.embedding_net, context)
    described, layers = chain_layers.chain(
        parts, config.features, context_features=context, embedding=embedded.steps
    )
    return Conversion(
        family="chain",
        config=described,
        layers=layers,
        reported=Reported("log_prob of nflows' Flow: nats"),
        embedding=embedded.state,
        data="the inputs of the flow",
    )


def leaves(weights: Weights) -> list[Leaf]:
    """All transforms, in the order in which data go through them.

    Raises:
        ImportRefused: if a transform has no tensors, or is not known.
    """
    if nflows_mixture.is_base(weights) and not weights.has(r"_transforms?\..*"):
        return []
    return _leaves(weights, _root(weights))


def _root(weights: Weights) -> str:
    """What stands in front of the keys of the flow's transform."""
    return "" if weights.has(r"_transforms\..*") else _INVERSE


def _leaves(weights: Weights, prefix: str, *, inverted: bool = False) -> list[Leaf]:
    """All transforms below a prefix, in the order in which data go through them.

    Raises:
        ImportRefused: if a transform has no tensors, or is not known.
    """
    places = weights.indices(rf"{re.escape(prefix + _TRANSFORMS)}(\d+)\.")
    if places:
        missing = sorted(set(range(places[-1])) - set(places))
        if missing:
            raise ImportRefused(
                f"{prefix}{_TRANSFORMS}{missing[0]}: a transform without tensors (Tanh, LogTanh, "
                "Sigmoid, Logit, LeakyReLU, CauchyCDF, IdentityTransform, ...): the checkpoint "
                "does not say which, so it cannot be imported"
            )
        composed = [
            _leaves(weights, f"{prefix}{_TRANSFORMS}{place}.", inverted=inverted)
            for place in places
        ]
        # Inside an InverseTransform data reach the last one first.
        return [leaf for part in (composed[::-1] if inverted else composed) for leaf in part]
    inner = f"{prefix}{_INVERSE}"
    if weights.under(inner):
        return _leaves(weights, inner, inverted=not inverted)
    return [recognise(weights, prefix, inverted=inverted)]


def _features(weights: Weights, transforms: list[Leaf]) -> int:
    found = {leaf.features for leaf in transforms if leaf.features}
    if not found and nflows_mixture.is_base(weights):
        return nflows_mixture.inputs(weights)
    if len(found) != 1:
        raise ImportRefused(f"features: expected one number for all transforms, got {found}")
    return found.pop()


def _encoder(weights: Weights) -> list[str]:
    """The linear layers of a base's context encoder, in order."""
    prefix = "_distribution._context_encoder."
    if f"{prefix}weight" in weights:
        return [prefix.removesuffix(".")]
    places = weights.indices(r"_distribution\._context_encoder\.(\d+)\.weight")
    return [f"{prefix}{place}" for place in places]


def _base_context(weights: Weights) -> int:
    layers = _encoder(weights)
    if nflows_mixture.is_base(weights):
        return nflows_mixture.context(weights)
    return weights.shape(f"{layers[0]}.weight")[1] if layers else 0


def _base(weights: Weights, config: Config) -> list[Part]:
    """The base distribution as a layer, unless it is the standard normal."""
    features = config.features
    if "_distribution.mean_" in weights:
        mean = weights.take("_distribution.mean_", 1, features)[0]
        return [chain_layers.gaussian(mean, weights.take("_distribution.log_std_", 1, features)[0])]
    layers = _encoder(weights)
    if layers:
        return [encoded_gaussian(weights, layers, features, config.encoder_activation)]
    if nflows_mixture.is_base(weights):
        return [nflows_mixture.convert(weights, features, config.activation)]
    if weights.has(r"_distribution\..*"):
        raise ImportRefused(
            "_distribution: expected StandardNormal, DiagonalNormal, MADEMoG, or "
            "ConditionalDiagonalNormal with a linear layer or a Sequential of them as its encoder; "
            "other bases cannot be imported"
        )
    return []


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """No context is None in the library's constructors."""
    if settings.get("context_features", 0) is None:
        return {**settings, "context_features": 0}
    return settings


SOURCE = Source(
    name="nflows",
    short_names=("bayesiains/nflows",),
    signature=(
        r"(_transform\.)*(_transforms\.\d+\.)*(_transform\.)?(_transforms\.\d+\.)*"
        r"(identity_features|autoregressive_net\.initial_layer\.mask|_permutation|lower_entries|"
        r"(orthogonal(_1)?\.)?q_vectors|_weight|unconstrained_weight|initialized|_scale)$|"
        r"_distribution\._made\.initial_layer\.mask$",
        r"_transform|_distribution",
    ),
    config=Config,
    infer=infer,
    convert=convert,
    since=(0, 11),
    unfold=_unfold,
    training_only=frozenset(
        {
            *("dropout_probability", "using_cache", "identity_init", "orthogonal_initialization"),
            *("zero_initialization", "momentum"),
        }
    ),
)
