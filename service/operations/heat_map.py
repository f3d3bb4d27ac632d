"""Heat maps: the answer of /score as a picture is the gradient of log p by the pixels."""

import math

import numpy as np

from service.codec.heat_map import full_colour
from service.contracts import ModelCard, ServedModel
from service.errors import NotAcceptable
from service.operations.model_input import FollowUp, ModelInput
from service.operations.response import GRADIENT, HEAT_MAP_SCALE, Scalars, Tensors


def check_heat_map(model: ServedModel, rows: int) -> None:
    """Refuse before anything is computed what could not be drawn.

    Raises:
        NotAcceptable: there are no gradients of this model.
    """
    if model.gradient is None:
        raise NotAcceptable(
            f"Accept: there are no gradients of {model.card.name} here, which a heat map shows; "
            "ask for application/json"
        )
    model.gradient.check(rows, math.inf)


def ask_gradient(model: ServedModel, given: ModelInput) -> FollowUp | None:
    """Ask for the gradient of each row; None once it is there."""
    if model.gradient is None or GRADIENT in given.followed:
        return None
    return FollowUp(GRADIENT, model.gradient, given.rows, given.context)


def put_heat_map(
    card: ModelCard, given: ModelInput, scalars: Scalars, outputs: Tensors
) -> tuple[Scalars, Tensors]:
    """Make the gradient the first output of an answer, and its scale a scalar.

    A row without a density has none: it is NaN.
    """
    found = given.followed.get(GRADIENT)
    if found is None:  # every row was rejected
        gradient = np.empty((0, *card.event_shape), card.numpy_dtype)
    else:
        has_density = np.isfinite(found.log_det).reshape(-1, *[1] * len(card.event_shape))
        gradient = np.where(has_density, found.value, np.nan)
    if given.rejected is not None:
        gradient = given.rejected.spread({GRADIENT: gradient})[GRADIENT]
    scale = f"{full_colour(gradient):.6g}"
    return {**scalars, HEAT_MAP_SCALE: scale}, {GRADIENT: gradient, **outputs}
