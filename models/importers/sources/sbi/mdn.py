"""sbi's `mdn`: mixtures of Gaussians whose numbers a network makes of the context.

Component k has precision A^T A, A upper triangular with diagonal softplus(u). So feature i given
those behind it is what a component knows, and the layer takes the features from the last to the
first. sbi samples from this mixture. Its log_prob is another number: it adds 1e-4 to the diagonal
of A^T A and not to the determinant, and what comes out does not integrate to one.

Reference: github.com/sbi-dev/sbi 0.27.0, neural_nets/estimators/mixture_density_estimator.py.
"""

import dataclasses
import re
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from models.importers.layouts import chain_layers, embedding, networks
from models.importers.layouts.chain_layers import Part
from models.importers.layouts.mixtures import Mixture
from models.importers.layouts.networks import Linear
from models.importers.layouts.nsf_parts import dense
from models.importers.likelihood import Term
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Count, Inference, Source, SourceConfig
from models.importers.sources.nflows.flow import EMBEDDING
from models.importers.sources.sbi import common
from models.importers.weights import Weights

_SHIFT, _SCALE = "_transform_shift", "_transform_scale"
_HIDDEN = "_hidden_net"
_LOGITS, _MEANS = "_logits_layer", "_means_layer"
_DIAGONAL, _UPPER = "_unconstrained_diagonal_layer", "_upper_layer"
_EPSILON_TERM = Term(
    "epsilon",
    0.0,
    "sbi's log_prob adds 1e-4 to the diagonal of every precision and not to its determinant, so it "
    "lies lower, by up to 5e-5 times the squared distance from a mean in standardised features, "
    "and does not integrate to one; ours is the density of sbi's samples",
)
_STRUCTURED_NOTE = (
    "sbi's log_prob counts the one deviation of all features once, and not once a feature"
)


class Config(SourceConfig):
    """Arguments of the builder that decide about the function."""

    features: Count
    context_features: Annotated[int, Field(gt=0)]
    num_components: Count
    embedding_net: str | None


def infer(weights: Weights) -> Inference:
    """Read the sizes off the layers."""
    seen = Inference()
    components = weights.shape(f"{_LOGITS}.bias")[0]
    seen.know("num_components", components, _LOGITS)
    seen.know("features", weights.shape(f"{_MEANS}.bias")[0] // components, _MEANS)
    hidden = _hidden(weights)
    if not hidden:
        raise ImportRefused(f"{_HIDDEN}: expected the Sequential that sbi makes, got another one")
    seen.show("hidden_features", weights.shape(f"{hidden[-1]}.bias")[0], reason=_HIDDEN)
    embedded = weights.shape(f"{hidden[0]}.weight")[1]
    context = embedding.context_features(weights, EMBEDDING, embedded)
    seen.know("context_features", context, "inputs of the network")
    if embedding.has_gaps(weights, EMBEDDING):
        seen.ask(embedding.FIELD, embedding.fitting(weights, EMBEDDING))
    else:
        seen.suppose(embedding.FIELD, None, "the keys below _embedding_net show all of it, or none")
    common.show_builder(seen, "mdn", reason=f"keys of {_LOGITS}")
    common.show_standardising(weights, seen, _SCALE if _SCALE in weights else None)
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into a chain that ends in a mixture.

    Raises:
        ImportRefused: names what cannot be expressed.
    """
    parts: list[Part] = []
    terms = [_EPSILON_TERM]
    if _SCALE in weights:
        shift, scale = (
            weights.take(key, *weights.shape(key)).expand(config.features)
            for key in (_SHIFT, _SCALE)
        )
        state = {"log_scale": scale.log(), "shift": shift}
        layer = {"kind": "actnorm", "form": "unshift_then_unscale", "storage": "log"}
        parts.append(Part(layer, state))
        if weights.shape(_SCALE) != (config.features,):
            counted_once = float(scale[0].log()) * (config.features - 1)
            terms.append(Term("z_score_x structured", counted_once, _STRUCTURED_NOTE))
    else:
        weights.report.warning(
            "z_score_x",
            "taken as none, since there is no mean and deviation in the file; if it was "
            "transform_to_unconstrained, which leaves no trace there, the numbers are wrong",
        )
    parts.append(chain_layers.permute(list(range(config.features))[::-1]))
    parts.append(_mixture(config, weights))
    context = config.context_features
    embedded = embedding.convert(weights, EMBEDDING, config.embedding_net, context)
    described, states = chain_layers.chain(
        parts, config.features, context_features=context, embedding=embedded.steps
    )
    weights.report.warning("log_prob", _EPSILON_TERM.note)
    return Conversion(
        family="chain",
        config=described,
        layers=states,
        reported=dataclasses.replace(common.REPORTED, terms=tuple(terms)),
        embedding=embedded.state,
        data="the modelled variable",
    )


def _mixture(config: Config, weights: Weights) -> Part:
    features, components = config.features, config.num_components
    options = {"factor": "precision", "deviation": "inverse_softplus", "offset": 0.0}
    mixture = Mixture(features, components, features > 1, options)
    names = [_LOGITS, _MEANS, _DIAGONAL, *([_UPPER] if features > 1 else [])]
    linears = [dense(weights, name) for name in (*_hidden(weights), *names)]
    hidden, heads = linears[: -len(names)], linears[-len(names) :]
    last = Linear(
        torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
    )
    rows = _rows(features, components)
    if len(rows) != len(last.bias):
        raise ImportRefused(f"expected {len(rows)} outputs of the layers, got {len(last.bias)}")
    return mixture.of_context(networks.mlp([*hidden, last.rows(rows)], "relu"))


def _rows(features: int, components: int) -> list[int]:
    """Outputs as the layer has them, whose features are those of sbi from the last to the first."""
    numbers = torch.arange(components * (1 + 2 * features + features * (features - 1) // 2))
    sizes = [components, components * features, components * features]
    logits, means, diagonals, upper = numbers.split([*sizes, len(numbers) - sum(sizes)])
    backwards = [part.view(components, features).flip(1) for part in (means, diagonals)]
    factors = numbers.new_zeros(components, features, features)
    rows, columns = torch.triu_indices(features, features, 1)
    factors[:, rows, columns] = upper.view(components, -1)
    below: Tensor = factors.flip(1, 2)[(slice(None), *torch.tril_indices(features, features, -1))]
    ordered = [logits, *backwards, below]
    return [int(number) for part in ordered for number in part.flatten()]


def _hidden(weights: Weights) -> list[str]:
    places = weights.indices(rf"{re.escape(_HIDDEN)}\.(\d+)\.weight")
    expected = list(range(0, 2 * len(places), 2))
    return [f"{_HIDDEN}.{place}" for place in places] if places == expected else []


SOURCE = Source(
    name=common.NAME,
    short_names=common.SHORT_NAMES,
    signature=(r"(net\.)?_unconstrained_diagonal_layer\.weight$",),
    config=Config,
    infer=infer,
    convert=convert,
    plain_key=common.without_net,
    training_only=common.TRAINING_ONLY,
)
