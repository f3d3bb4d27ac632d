"""pzflow: flows over named columns of a table, as its `Flow.save` pickles them.

Files hold all there is: `bijector_info` names the bijectors, `latent_info` the base, `params` the
numbers, and `data_columns` and `conditional_columns` the columns. Data go through the bijectors in
order, to the latents.

Ranges of columns are stored in float32, and pzflow computes with them in that precision; here they
are numbers like others, in float64.

Reference: github.com/jfcrenshaw/pzflow 4.0.0, bijectors.py, distributions.py, utils.py.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from models.importers.layouts import chain_layers
from models.importers.likelihood import Reported, Term
from models.importers.pytrees import PARAMS
from models.importers.report import ImportRefused
from models.importers.source import Conversion, Fragment, Inference, Source, SourceConfig, numbered
from models.importers.sources.pzflow import bijectors as pzflow_bijectors
from models.importers.sources.pzflow import latents as pzflow_latents
from models.importers.sources.pzflow.arguments import are_numbers, check_arguments
from models.importers.sources.pzflow.bijectors import COUPLING, Bijector, Layers
from models.importers.weights import Weights

# Parameters are (those of the base, those of the bijectors).
_OF_BASE, _OF_BIJECTORS = f"{PARAMS}.0", f"{PARAMS}.1"
_NEEDED = ("data_columns", "bijector_info", "latent_info")


class Config(SourceConfig):
    """What users name their columns; the file says everything."""

    data_columns: tuple[str, ...]
    conditional_columns: tuple[str, ...] | None


def infer(weights: Weights) -> Inference:
    """Read everything off the file.

    Raises:
        ImportRefused: if it holds no structure, or one that cannot be imported.
    """
    stored = weights.stored
    if missing := [name for name in _NEEDED if not stored.get(name)]:
        raise ImportRefused(
            f"expected a file of pzflow's Flow.save, got one without {', '.join(missing)}"
        )
    seen = Inference()
    conditions = stored.get("conditional_columns")
    columns = _column_names(stored, "data_columns")
    names = None if conditions is None else _column_names(stored, "conditional_columns")
    seen.know("data_columns", columns, "stored in the file")
    seen.know("conditional_columns", names, "stored in the file")
    latents = pzflow_latents.read(stored["latent_info"])
    features = sum(latent.features for latent in latents)
    if features != len(columns) or len(set(columns)) != features:
        raise ImportRefused(
            f"data_columns: expected {features} different columns, one a latent, got {columns}"
        )
    bijectors = _bijectors(weights)
    for bijector in bijectors:
        check_arguments(bijector, features)
    _show(seen, bijectors, latents, len(names or ()))
    return seen


def convert(config: Config, weights: Weights) -> Conversion:
    """Turn the flow into a chain.

    Raises:
        ImportRefused: names what cannot be expressed.
    """
    features, conditions = len(config.data_columns), len(config.conditional_columns or ())
    layers = pzflow_bijectors.convert(weights, _bijectors(weights), features, conditions)
    latents = pzflow_latents.read(weights.stored["latent_info"])
    weights.skip(rf"{PARAMS}\.0(\..*)?", "numbers of the base that it does not use")
    parts = [*layers.parts, *pzflow_latents.convert(latents)]
    embedding = _standardised(weights, conditions)
    described, state = chain_layers.chain(
        parts,
        features,
        context_features=conditions,
        embedding=[{"kind": "standardise"}] if embedding else (),
    )
    if config.conditional_columns:
        weights.report.recognised(
            "context", f"the columns {', '.join(config.conditional_columns)}, in this order"
        )
    return Conversion(
        family="chain",
        config=described,
        layers=state,
        reported=Reported("log_prob of pzflow: nats", tuple(_terms(latents, layers))),
        embedding=numbered([embedding]) if embedding else {},
        inputs=tuple(layers.inputs),
        data=f"the columns {', '.join(config.data_columns)}",
        feature_names=config.data_columns,
    )


def _column_names(stored: Mapping[str, Any], name: str) -> list[str]:
    names = stored[name]
    if not isinstance(names, list) or any(isinstance(each, list) for each in names):
        raise ImportRefused(f"{name}: expected names of columns, got {names!r:.80}")
    return [str(each) for each in names]


def _bijectors(weights: Weights) -> list[Bijector]:
    return list(pzflow_bijectors.flatten(weights.stored["bijector_info"], _OF_BIJECTORS))


def _standardised(weights: Weights, conditions: int) -> Fragment:
    """Mean and deviation of the conditions; none where they change nothing.

    Raises:
        ImportRefused: if they are not one a conditional column.
    """
    if not conditions:
        return {}
    mean, std = (_condition(weights, name, conditions) for name in ("means", "stds"))
    if not (std > 0).all():
        raise ImportRefused(f"condition_stds: expected positive numbers, got {std.tolist()}")
    return {"mean": mean, "std": std} if mean.any() or (std != 1).any() else {}


def _condition(weights: Weights, name: str, conditions: int) -> Tensor:
    stored = weights.stored.get(f"condition_{name}") or []
    if not are_numbers(stored):
        raise ImportRefused(f"condition_{name}: expected numbers, got {stored!r:.80}")
    values = torch.tensor(stored, dtype=torch.float64)
    if tuple(values.shape) != (conditions,):
        raise ImportRefused(
            f"condition_{name}: expected {conditions} numbers, one a conditional column, got "
            f"{values.tolist()}"
        )
    return values


def _terms(latents: list[pzflow_latents.Latent], layers: Layers) -> Iterator[Term]:
    """What cannot be put in one number."""
    if any(math.isfinite(latent.bound) for latent in latents):
        yield Term(
            "support",
            0.0,
            "rows whose latents leave the base's support: -inf here, the smallest finite number "
            "there",
        )
    if layers.is_noisy:
        yield Term("noise", 0.0, "pzflow adds noise to whole numbers; here the middle of the bin")
    if layers.is_circular:
        yield Term(
            "circles",
            0.0,
            "rows outside [-B, B] of a periodic spline: -inf here; pzflow takes them for rows "
            "inside, two for one, which is no density",
        )


def _show(
    seen: Inference,
    bijectors: list[Bijector],
    latents: list[pzflow_latents.Latent],
    conditions: int,
) -> None:
    """Note what users may say of the flow beside its file."""
    seen.show("D", sum(latent.features for latent in latents), reason="latent_info")
    seen.show("context", conditions, reason="conditional_columns")
    seen.show("autoscale_conditions", True, False, reason="the means that it found are stored")
    if len(latents) == 1:
        seen.show("latent", *latents[0].shown(), reason="latent_info")
    seen.show("bijector", _classes(each.name for each in bijectors), reason="bijector_info")
    couplings = [bijector.coupling for bijector in bijectors if bijector.name == COUPLING]
    seen.show("nlayers", len(couplings), reason="bijector_info")
    for name in (
        "K",
        "B",
        "hidden_layers",
        "hidden_dim",
        "transformed_dim",
        "n_conditions",
        "periodic",
    ):
        values = {getattr(coupling, name) for coupling in couplings}
        if len(values) == 1:
            seen.show(name, *values, reason="bijector_info")
    rolls = {bijector.arguments[0] for bijector in bijectors if bijector.name == "Roll"}
    if len(rolls) == 1:
        seen.show("shift", *rolls, reason="bijector_info")


def _unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """What users write of the bijectors, however they write it: the classes it names, in order."""
    if "bijector" not in settings:
        return settings
    return {**settings, "bijector": _classes(re.findall(r"[A-Z]\w+", str(settings["bijector"])))}


def _classes(words: Iterable[str]) -> list[str]:
    """Names of bijectors alone; couplings and rolls by turns are a RollingSplineCoupling."""
    found = "".join(f"{word} " for word in words if word in pzflow_bijectors.NAMES)
    return re.sub(rf"({COUPLING} Roll )+", "RollingSplineCoupling ", found).split()


SOURCE = Source(
    name="pzflow",
    short_names=("jfcrenshaw/pzflow",),
    signature=(rf"{PARAMS}\.[01](\.|$)",),
    config=Config,
    infer=infer,
    convert=convert,
    unfold=_unfold,
    training_only=frozenset({"seed", "info", "data_error_model", "condition_error_model"}),
)
