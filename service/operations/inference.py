"""A prepared request through its queue and the engine, and on to a successor of its model."""

import asyncio
from collections.abc import Callable

import numpy as np

from service.codec.tensors import Array
from service.contracts import InferenceResult, RowQueue, ServedModel
from service.errors import NotReady
from service.operations.model_input import Deferred, FollowUp, ModelInput
from service.operations.request_context import RequestContext
from service.operations.thread_pool import RequestThreadPool

# Asks for more rows, or for none: of a model, its input and what came of that.
AskMore = Callable[[ServedModel, ModelInput, InferenceResult], FollowUp | None]


async def infer(
    find: Callable[[], ServedModel],
    prepare: Callable[[ServedModel], ModelInput | Deferred],
    request: RequestContext,
    threads: RequestThreadPool,
    follow_up: AskMore | None = None,
) -> tuple[ServedModel, ModelInput, InferenceResult]:
    """Find the model, prepare the request for it and compute its rows.

    Where the model is replaced meanwhile, its successor is asked: the request is prepared anew,
    since the successor may take other rows. Once a queue has taken the rows, `enqueue` of another
    does not refuse them for want of room; `prepare` may still, where they are so many that it asks
    before it makes them.

    An operation may then ask for more rows, as often as it likes; all rows of its own model are
    computed by the same version of it. These rows have no place in a queue yet: they are refused
    where there is no room.

    Args:
        find: the model as it is now.
        prepare: makes the engine's input for a model.
        request: what is known of it is noted there.
        threads: for what takes long.
        follow_up: see `Operation.follow_up`.

    Returns:
        The model that answered, its input with what came of further rows, and what came of it.

    Raises:
        ServiceError: of `find`, `prepare` and the queue.
    """
    model = find()
    while True:
        request.model, request.version = model.card.name, model.card.version
        try:
            given = prepare(model)
            if not isinstance(given, ModelInput):
                given = await threads.run(request.deadline, given)
            request.rows = given.total
            request.hold_rows(given.total)
            if not len(given.rows):
                return model, given, _compute_nothing(model, given, request.deadline)
            result = await _compute(
                given.queue, given.rows, given.context, request, is_accepted=request.is_accepted
            )
            if given.follows and follow_up is not None:
                given, result = await _follow(model, given, result, request, follow_up)
            return model, given, result
        except NotReady:
            successor = find()
            if successor is model:
                raise
            model = successor


def _compute_nothing(model: ServedModel, given: ModelInput, deadline: float) -> InferenceResult:
    """Answer a request of which every row is invalid, as the engine would answer none."""
    given.queue.check(given.total, deadline)
    card = model.card
    shape = (card.features,) if given.queue is model.encode else card.event_shape
    dtype = card.numpy_dtype
    return InferenceResult(np.empty((0, *shape), dtype), np.empty(0, dtype), 0.0, 0.0)


async def _follow(
    model: ServedModel,
    given: ModelInput,
    result: InferenceResult,
    request: RequestContext,
    follow_up: AskMore,
) -> tuple[ModelInput, InferenceResult]:
    """Compute the further rows of an operation, one lot after the other.

    Returns:
        The input with what came of them, and the result with their times.

    Raises:
        NotReady: the model was replaced, and what is asked for is to come of one version.
    """
    refused: RowQueue | None = None
    while (more := follow_up(model, given, result)) is not None:
        request.hold_more_rows(len(more.rows))
        try:
            found = await _compute(more.queue, more.rows, more.context, request)
        except NotReady:
            if more.queue is refused:
                raise
            refused = more.queue  # of another model the successor will do, and is found next
            continue
        request.rows = (request.rows or 0) + len(more.rows)
        given = given._replace(followed={**given.followed, more.name: found})
        result = result._replace(
            queue_seconds=result.queue_seconds + found.queue_seconds,
            compute_seconds=result.compute_seconds + found.compute_seconds,
        )
    return given, result


async def _compute(
    queue: RowQueue,
    rows: Array,
    context: Array | None,
    request: RequestContext,
    *,
    is_accepted: bool = False,
) -> InferenceResult:
    stages = request.stages
    if stages is not None:
        stages.enter_queue()
    reply: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
    handle = queue.enqueue(
        *(rows, context, request.deadline, reply), is_accepted=is_accepted, share=request.share
    )
    request.is_accepted = True
    try:
        result = await reply
    except asyncio.CancelledError:
        handle.cancel()
        raise
    finally:
        # Both lead to the error, and the error to this frame: a cycle would keep rows and body in
        # memory until the next collection.
        del reply, handle
    if stages is not None:
        stages.leave_queue(result)
    return result
