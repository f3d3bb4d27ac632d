"""Model input: what a request becomes before it waits for an engine."""

from collections.abc import Callable
from typing import NamedTuple

from service.codec.tensors import Array
from service.contracts import RowQueue
from service.operations.response import Scalars


class ModelInput(NamedTuple):
    """A checked request: the rows for the engine, where they wait, and what the answer will say.

    rows: (B, *event_shape) of an encode, (B, D) of a decode, in the model's dtype.
    context: (B, *context_shape), None for an unconditional model.
    queue: of the engine function that computes them.
    scalars: of the answer, known before it is computed.
    wants_log_det: whether log_det, or a log_prob made of it, will be in the answer.
    with_evaluations: whether the client asks what its rows cost.
    """

    rows: Array
    context: Array | None
    queue: RowQueue
    scalars: Scalars
    wants_log_det: bool = True
    with_evaluations: bool = False


# A request that takes long to prepare: call it in a thread.
Deferred = Callable[[], ModelInput]


class EncodedImage(NamedTuple):
    """A picture that is not decoded yet: the model says what size it must have."""

    media: str
    body: bytes | bytearray
