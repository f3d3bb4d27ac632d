"""What estimators of sbi have in common, whichever library they are built of.

An estimator is p(x | y): for NPE x are the parameters and y the observation, for NLE the other way
round; the checkpoint does not say which. Its `net` standardises x (that counts in the density) and
y goes through `_embedding_net`: Standardize, then the user's network.

`log_prob` of a posterior is not that of its estimator: it is -inf outside the prior and, by
default, divided by the share of mass inside it, which sbi estimates by sampling.

Reference: github.com/sbi-dev/sbi 0.27.0, neural_nets/net_builders/flow.py.
"""

from collections.abc import Mapping
from typing import Any

from models.importers.likelihood import Reported
from models.importers.source import Inference
from models.importers.sources.nflows.flow import EMBEDDING
from models.importers.weights import Weights

NAME = "sbi"
SHORT_NAMES = ("sbi-dev/sbi",)
# Arguments of builders that do not change the function, or describe the data.
TRAINING_ONLY = frozenset({"dropout_probability", "batch_x", "batch_y", "x_dist", "dtype"})
REPORTED = Reported(
    "log_prob of sbi's estimator: nats; a posterior's own log_prob leaves out what is outside the "
    "prior and divides by the mass inside it"
)

_NET = "net."


def builders_of(*models: str) -> frozenset[str]:
    """What names builders: their functions, and those of zuko's flows by their models too."""
    own = {model for model in models if model.startswith("zuko_")}
    return frozenset({*own, *(f"build_{model}" for model in models)})


def without_net(key: str) -> str:
    """A key as the library that the estimator is built of has it."""
    return key.removeprefix(_NET)


def unfold(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The z-scores of `posterior_nn`, of theta and x, as its builders have them, of x and y."""
    if "z_score_theta" not in settings:
        return settings
    rest = {name: value for name, value in settings.items() if name != "z_score_theta"}
    if "z_score_x" in rest and "z_score_y" not in rest:
        rest["z_score_y"] = rest["z_score_x"]
    return {**rest, "z_score_x": settings["z_score_theta"]}


def show_builder(seen: Inference, *models: str, reason: str) -> None:
    """Note which of sbi's builders the keys show, under the names that its users give it."""
    seen.show("model", *models, reason=reason)
    seen.show("builder", *(f"build_{model}" for model in models), reason=reason)


def show_standardising(weights: Weights, seen: Inference, key_of_x: str | None) -> None:
    """Note how x and y are standardised; `key_of_x` is the scale of the first transform."""
    _show(seen, "z_score_x", None if key_of_x is None else weights.shape(key_of_x))
    for name in ("num_components", "num_bins", "hidden_layers_spline_context"):
        seen.mark_idle(name, "posterior_nn hands it to every builder; this one has no use for it")
    key = f"{EMBEDDING}0._mean"
    _show(seen, "z_score_y", weights.shape(key) if key in weights else None)


def _show(seen: Inference, name: str, shape: tuple[int, ...] | None) -> None:
    if shape is None:
        seen.show(name, "none", None, reason="no mean and deviation in the file")
        return
    kinds = ("independent", "structured") if shape == (1,) else ("independent",)
    seen.show(name, *(kinds if shape else ("structured",)), reason="shape of the deviations")
