"""The background model of a ratio: found among the models that are served beside the one asked.

A calibration knows the weights that its scores are ratios to. So ratio:NAME means the live version
of NAME that has them, whichever answers requests for NAME: a promotion of the background changes no
score. ratio:NAME@VERSION means that version alone.
"""

from collections.abc import Sequence
from typing import Protocol

from models.scoring.calibration import Calibration
from models.scoring.statistics import parse_statistic
from service.contracts import ModelCard, ServedModel
from service.errors import BackgroundNotServed, ModelNotFound, NotReady


class OtherModels(Protocol):
    """The models that are served beside the one that is asked."""

    def get(self, name: str, /) -> ServedModel:
        """Find a model by name, or by NAME@VERSION; raises what `Repository.get` does."""
        ...

    def versions(self, name: str, /) -> Sequence[ServedModel]:
        """The live versions of a model, the highest last; none where no model is called so."""
        ...


class _NoOtherModels:
    """No model is served beside the one that is asked."""

    def get(self, name: str) -> ServedModel:
        raise ModelNotFound(f"model: no model is called {name!r:.80}")

    def versions(self, name: str) -> Sequence[ServedModel]:
        return ()


NO_OTHER_MODELS: OtherModels = _NoOtherModels()


def find_background(calibration: Calibration, card: ModelCard, others: OtherModels) -> ServedModel:
    """Find the model that scores are ratios to.

    Args:
        calibration: by a ratio.
        card: of the model that it calibrates.
        others: where to look.

    Raises:
        BackgroundNotServed: saying how it is mended.
        NotReady: it is loading, or was refused.
    """
    _, reference = parse_statistic(calibration.statistic)
    assert reference is not None
    # Without a version, another one may have the weights; NAME@VERSION is the name of no model.
    versions = others.versions(reference)
    try:
        default = others.get(reference)
    except ModelNotFound as error:
        raise _not_served(calibration, card, others) from error
    except NotReady:
        if (found := _with_weights(calibration, versions)) is not None:
            return found
        raise
    found = _with_weights(calibration, (*versions, default))
    if found is None:
        raise BackgroundNotServed(
            f"model: {card.name} is scored by {calibration.statistic}, and {reference} is served "
            f"in other weights than it was calibrated with; serve those, {_again(card)}",
            at="/model",
        )
    return found


def _with_weights(
    calibration: Calibration, candidates: Sequence[ServedModel]
) -> ServedModel | None:
    """The last of the candidates that has the weights of the calibration."""
    for other in reversed(candidates):
        if other.card.weights == calibration.background and other.card.context_shape is None:
            return other
    return None


def _not_served(
    calibration: Calibration, card: ModelCard, others: OtherModels
) -> BackgroundNotServed:
    """Say that the background is not there, or that the version that is named is not live."""
    _, reference = parse_statistic(calibration.statistic)
    name, _, version = str(reference).rpartition("@")
    is_scored = f"model: {card.name} is scored by {calibration.statistic}, and"
    again = f"{_again(card)} by another statistic"
    live = ", ".join(other.card.version for other in others.versions(name)) if name else ""
    if live:
        return BackgroundNotServed(
            f"{is_scored} version {version} of {name} is not live; live: {live}; make it live, "
            f"{again}",
            at="/model",
        )
    return BackgroundNotServed(
        f"{is_scored} no model {name or reference!r} is served; serve it beside, {again}",
        at="/model",
    )


def _again(card: ModelCard) -> str:
    return f"or calibrate {card.name} again"
