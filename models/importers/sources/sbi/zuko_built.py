"""Estimators that sbi builds of zuko: `zuko_maf`, `zuko_nsf`, `zuko_nice`, `zuko_cnf` and others.

The keys of the flow begin with `net.`, those of `_embedding_net` stand beside it. In front of the
library's transforms is sbi's own z-score of x, `loc` and `scale`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from models.importers.layouts import embedding
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Inference, Shown, Source
from models.importers.sources.nflows.flow import EMBEDDING
from models.importers.sources.sbi import common
from models.importers.sources.zuko import flow as zuko
from models.importers.sources.zuko import layers as zuko_layers
from models.importers.weights import Weights

_FIRST = "transform.transforms.0."
# What sbi calls zuko's arguments.
_NAMES = {"context_features": "context", "num_bins": "bins", "num_transforms": "transforms"}
_CONSTRUCTORS = {
    f"zuko_{name.lower()}": name
    for name in ("NICE", "MAF", "NSF", "NCSF", "SOSPF", "NAF", "UNAF", "CNF", "GF", "BPF")
}
# Arguments of SOSPF that no weight shows by itself.
_SQUARES = {"degree": 4, "polynomials": 3}


class Config(zuko.Config):
    """Arguments of zuko's constructors, and the network over the context."""

    embedding_net: str | None


def infer(weights: Weights) -> Inference:
    """Read what zuko's keys show, and add what sbi fixes.

    Raises:
        ImportRefused: where x was made unbounded by a bijection that the file does not hold.
    """
    places = weights.indices(r"transform\.transforms\.(\d+)\.")
    if places and places[0] > 0:
        raise ImportRefused(
            "net.transform.transforms.0: a transform without tensors: the estimator was trained "
            "with z_score_x='transform_to_unconstrained', whose bounds are those of the prior and "
            "not in the checkpoint; train it with 'independent'"
        )
    seen = zuko.infer(weights)
    if "activation" in seen.asked:
        del seen.asked["activation"]
        is_cnf = any(layer.kind == "cnf" for layer in zuko_layers.recognise(weights))
        seen.suppose("activation", "elu" if is_cnf else "relu", "zuko's default, which sbi keeps")
    for name, value in _SQUARES.items():
        if name in seen.asked:
            del seen.asked[name]
            seen.suppose(name, value, "zuko's default, which sbi keeps")
    embedded = int(seen.found["context"].value)
    context = embedding.context_features(weights, EMBEDDING, embedded)
    seen.know("context", context, "inputs of the networks")
    if embedding.has_gaps(weights, EMBEDDING):
        seen.ask(embedding.FIELD, embedding.fitting(weights, EMBEDDING))
    else:
        seen.suppose(embedding.FIELD, None, "the keys below _embedding_net show all of it, or none")
    if seen.found["bins"].value is None:
        seen.suppose("bins", None, "there are no splines")
        seen.mark_idle("bins", "posterior_nn hands it to every builder; there are no splines")
    _show_widths(seen)
    key = f"{_FIRST}scale"
    common.show_standardising(weights, seen, key if key in weights else None)
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the weights into what zuko's become, with the network over the context in front."""
    converted = zuko.convert(config, weights)
    embedded = embedding.convert(weights, EMBEDDING, config.embedding_net, config.context)
    described = dict(converted.config)
    if embedded.steps:
        described["context_embedding"] = embedded.steps
    return dataclasses.replace(
        converted,
        config=described,
        reported=dataclasses.replace(converted.reported, name=common.REPORTED.name),
        embedding=embedded.state,
        data="the modelled variable",
    )


def _show_widths(seen: Inference) -> None:
    """One number for all hidden layers, as sbi's users give it."""
    shown = seen.shown.get("hidden_features")
    if shown is not None and len(set(shown.fitting[0])) == 1:
        seen.shown["hidden_features"] = Shown((*shown.fitting, shown.fitting[0][0]), shown.reason)


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names of sbi's builders as those of zuko's constructors."""
    settings = common.unfold(settings)
    renamed = {_NAMES.get(name, name): value for name, value in settings.items()}
    for name in ("model", "builder", "which_nf"):
        model = str(renamed.pop(name, "")).removeprefix("build_")
        if name == "which_nf" and model:
            model = f"zuko_{model.lower()}"
        if model:
            if model not in _CONSTRUCTORS:
                raise ImportRefused(
                    f"{name}: expected one of {', '.join(_CONSTRUCTORS)}, as the keys are zuko's, "
                    f"got {model}"
                )
            renamed.setdefault("constructor", _CONSTRUCTORS[model])
    return zuko.SOURCE.unfold(renamed)


SOURCE = Source(
    name=common.NAME,
    short_names=common.SHORT_NAMES,
    signature=(r"(net\.)?transform\.(transforms\.\d+\.)?(hyper|ode|univariate|phi|loc)",),
    claims=(r"_embedding_net\.", r"net\.transform\."),
    builders=common.builders_of(*_CONSTRUCTORS),
    config=Config,
    infer=infer,
    convert=convert,
    plain_key=common.without_net,
    training_only=zuko.SOURCE.training_only | common.TRAINING_ONLY,
    unfold=_unfold,
    renamed=_NAMES,
)
