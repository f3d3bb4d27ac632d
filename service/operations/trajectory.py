"""The field `trajectory`: how a row comes about between noise and data, state by state.

The states are asked of a queue of their own, one row each; the last one is x itself.
"""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from service.codec.media import NPY, PNG
from service.codec.tensors import Array
from service.contracts import InferenceResult, ModelCard, ServedModel, StatesQueue
from service.errors import InvalidParameter, TooLarge
from service.operations.fields import Output, integer
from service.operations.model_input import FollowUp, ModelInput
from service.operations.response import (
    ResponseFormat,
    Scalars,
    Tensors,
    check_response_size,
)

if TYPE_CHECKING:
    from service.operations.spec import Limits

NAME = "trajectory"
_AT = f"/{NAME}"
_LABELS = "trajectory_at"

TRAJECTORY = integer(
    NAME,
    2,
    64,
    "How many states to give between the noise and x, both among them: x as it would be with so "
    "many layers applied, or at these times of a continuous flow. Computed apart by torch; each "
    "costs a row.",
)
OUTPUTS = (
    Output(
        _LABELS,
        {
            "type": "array",
            "items": {"type": ["string", "number"]},
            "description": "With trajectory: what each state is, noise first: how many layers are "
            "applied with the last one's name, or the time of a continuous flow. Fewer than asked "
            "for where there are fewer layers.",
        },
        is_always=False,
    ),
    Output(
        NAME,
        {
            "type": "array",
            "items": {"type": ["array", "null"]},
            "description": "With trajectory: the states of each row, each of shape event_shape; "
            "the last is x.",
        },
        is_always=False,
    ),
)


class WantedStates(NamedTuple):
    """How many states are wanted, and where they are computed."""

    number: int
    queue: StatesQueue

    def progress(self, card: ModelCard) -> Array:
        """How far each of them is, as the queue takes it."""
        return (np.arange(self.number) / (self.number - 1)).astype(card.numpy_dtype)


def read_trajectory(
    fields: dict[str, Any], model: ServedModel, form: ResponseFormat, rows: int, limits: "Limits"
) -> WantedStates | None:
    """Read how many states are wanted, and refuse what there could not be.

    Args:
        fields: of the request.
        model: that is asked.
        form: of the answer.
        rows: of the request.
        limits: of requests and answers.

    Returns:
        None where none are wanted.

    Raises:
        InvalidParameter: there are no states of this model, or no place for them in the answer.
        OutOfRange: one state, or too many.
        TooLarge: saying how many rows fit.
    """
    count = TRAJECTORY.value(fields)
    if count is None:
        return None
    if form.media in (NPY, PNG):
        raise InvalidParameter(
            f"{NAME}: an answer as {form.media} is x alone; ask for application/json or "
            "application/x-npz",
            at=_AT,
        )
    if model.states is None:
        raise InvalidParameter(
            f"{NAME}: there are no states of {model.card.name} here; leave {NAME} out", at=_AT
        )
    # x itself is computed by another queue.
    most = min(limits.max_request_rows, model.states.max_rows * count // (count - 1))
    if rows * count > most:
        fitting = most // count
        fewer = f"{fitting} rows at most, or for fewer states" if fitting else "fewer states"
        raise TooLarge(
            f"{NAME}: {rows} rows of {count} states take {rows * count} rows, expected at most "
            f"{most}; ask for {fewer}",
            at=_AT,
        )
    model.states.check(rows * (count - 1), math.inf)
    card = model.card
    values = (1 + count) * card.features + 1
    check_response_size(card, form, rows, values, limits.max_response_bytes)
    return WantedStates(count, model.states)


def ask_states(card: ModelCard, given: ModelInput) -> FollowUp | None:
    """Ask for all states but the last; None once they are there."""
    wanted = given.trajectory
    if wanted is None or NAME in given.followed:
        return None
    progress, many = wanted.progress(card)[:-1], wanted.number - 1
    row, state = np.divmod(np.arange(len(given.rows) * many), many)
    if wanted.queue.is_by_state:
        state, row = np.divmod(np.arange(len(row)), len(given.rows))
    rows = np.column_stack([given.rows[row], progress[state]])
    context = None if given.context is None else given.context[row]
    return FollowUp(NAME, wanted.queue, rows, context)


def add_states(
    card: ModelCard, given: ModelInput, result: InferenceResult, outputs: Tensors, scalars: Scalars
) -> tuple[Tensors, Scalars]:
    """Add the states and what each is.

    Args:
        card: of the model.
        given: the request.
        result: of its rows.
        outputs, scalars: of its answer.
    """
    wanted, found = given.trajectory, given.followed.get(NAME)
    if wanted is None or found is None:  # every row was rejected
        nothing = np.empty((0, 1, *card.event_shape), card.numpy_dtype)
        return {**outputs, NAME: nothing}, {**scalars, _LABELS: []}
    many, rows = wanted.number - 1, len(given.rows)
    if wanted.queue.is_by_state:
        states = found.value.reshape(many, rows, *card.event_shape).swapaxes(0, 1)
    else:
        states = found.value.reshape(rows, many, *card.event_shape)
    states = np.concatenate([states, result.value[:, None]], 1)
    labels = [wanted.queue.label(float(now)) for now in wanted.progress(card)]
    # Of several that are the same the last: it may be x itself.
    chosen = {label: index for index, label in enumerate(labels)}
    states = states[:, list(chosen.values())]
    if given.column_order is not None:
        states = states.take(given.column_order, axis=2)
    states = np.ascontiguousarray(states)
    return {**outputs, NAME: states}, {**scalars, _LABELS: list(chosen)}
