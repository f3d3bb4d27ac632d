"""Model input: what a request becomes before it waits for an engine."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from service.codec.tensors import Array
from service.codec.valid_rows import Reasons
from service.contracts import InferenceResult, RowQueue
from service.operations.failures import RejectedRows, reject
from service.operations.response import Scalars

if TYPE_CHECKING:
    from service.operations.trajectory import WantedStates


class ModelInput(NamedTuple):
    """A checked request: the rows for the engine, where they wait, and what the answer will say.

    rows: (B, *event_shape) of an encode, (B, D) of a decode, in the model's dtype.
    context: (B, *context_shape), None for an unconditional model.
    queue: of the engine function that computes them.
    scalars: of the answer, known before it is computed.
    wants_log_det: whether log_det, or a log_prob made of it, will be in the answer.
    with_evaluations: whether the client asks what its rows cost.
    column_order: which column of x stands where in the answer; None is the model's own order.
    rejected: rows of the request that are not among `rows`, since they are invalid.
    decision: what an answer of this operation depends on beside its rows: requests of one row are
        finished together where it is the same.
    follows: whether rows may be asked for once the first are computed, see `FollowUp`.
    followed: what came of them, by name.
    explain: how many features of a row are to be named that explain it.
    heat_map: whether the answer is a picture of gradients.
    trajectory: which states between noise and data are wanted; None where none are.
    is_observed: whether the answer is one to take note of, see `Operation.note`.
    """

    rows: Array
    context: Array | None
    queue: RowQueue
    scalars: Scalars
    wants_log_det: bool = True
    with_evaluations: bool = False
    column_order: list[int] | None = None
    rejected: RejectedRows | None = None
    decision: Hashable = None
    follows: bool = False
    followed: Mapping[str, InferenceResult] = MappingProxyType({})
    explain: int = 0
    heat_map: bool = False
    trajectory: "WantedStates | None" = None
    is_observed: bool = True

    @property
    def total(self) -> int:
        """How many rows the request has."""
        return len(self.rows) if self.rejected is None else self.rejected.total

    def row(self, index: int, scalars: Scalars) -> "ModelInput":
        """Give the input of one row, whose answer says `scalars`."""
        here = slice(index, index + 1)
        context = None if self.context is None else self.context[here]
        return self._replace(rows=self.rows[here], context=context, scalars=scalars)

    def without_row(self, index: int) -> "ModelInput":
        """Give the input of all rows but one."""
        context = None if self.context is None else np.delete(self.context, index, 0)
        return self._replace(rows=np.delete(self.rows, index, 0), context=context)


class FollowUp(NamedTuple):
    """Rows that an operation asks for once it has seen what came of the first ones.

    They wait as a request of as many rows would, and may be refused as one.

    name: under which the operation finds what came of them, in `ModelInput.followed`.
    queue: of this model's engine or of another's.
    rows: (B, ...), as that queue takes them.
    context: one a row, None for an unconditional model.
    """

    name: str
    queue: RowQueue
    rows: Array
    context: Array | None = None


def without_rejected(given: ModelInput, reasons: Reasons) -> ModelInput:
    """Leave out the rows that are invalid."""
    rejected = reject(reasons, len(given.rows))._replace(context=given.context)
    context = None if given.context is None else given.context[rejected.kept]
    return given._replace(rows=given.rows[rejected.kept], context=context, rejected=rejected)


def join_inputs(inputs: Sequence[ModelInput]) -> ModelInput:
    """Make one input of several for the same queue; its scalars are those of the first."""
    if len(inputs) == 1:
        return inputs[0]
    contexts = [given.context for given in inputs if given.context is not None]
    return inputs[0]._replace(
        rows=np.concatenate([given.rows for given in inputs]),
        context=np.concatenate(contexts) if contexts else None,
    )


# A request that takes long to prepare: call it in a thread.
Deferred = Callable[[], ModelInput]


class EncodedImage(NamedTuple):
    """A picture that is not decoded yet: the model says what size it must have."""

    media: str
    body: bytes | bytearray
