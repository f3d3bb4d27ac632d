"""A prepared request through its queue and the engine, and on to a successor of its model."""

import asyncio
from collections.abc import Callable

import numpy as np

from service.contracts import InferenceResult, ServedModel
from service.errors import NotReady
from service.operations.model_input import Deferred, ModelInput
from service.operations.request_context import RequestContext
from service.operations.thread_pool import RequestThreadPool


async def infer(
    find: Callable[[], ServedModel],
    prepare: Callable[[ServedModel], ModelInput | Deferred],
    request: RequestContext,
    threads: RequestThreadPool,
) -> tuple[ServedModel, ModelInput, InferenceResult]:
    """Find the model, prepare the request for it and compute its rows.

    Where the model is replaced meanwhile, its successor is asked: the request is prepared anew,
    since the successor may take other rows. Once a queue has taken the rows, `enqueue` of another
    does not refuse them for want of room; `prepare` may still, where they are so many that it asks
    before it makes them.

    Args:
        find: the model as it is now.
        prepare: makes the engine's input for a model.
        request: what is known of it is noted there.
        threads: for what takes long.

    Returns:
        The model that answered, its input and what came of it.

    Raises:
        ServiceError: of `find`, `prepare` and the queue.
    """
    model = find()
    while True:
        request.model = model.card.name
        try:
            given = prepare(model)
            if not isinstance(given, ModelInput):
                given = await threads.run(request.deadline, given)
            request.rows = given.total
            if not len(given.rows):
                return model, given, _compute_nothing(model, given, request.deadline)
            return model, given, await _compute(given, request)
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


async def _compute(given: ModelInput, request: RequestContext) -> InferenceResult:
    stages = request.stages
    if stages is not None:
        stages.enter_queue()
    reply: asyncio.Future[InferenceResult] = asyncio.get_running_loop().create_future()
    handle = given.queue.enqueue(
        given.rows, given.context, request.deadline, reply, is_accepted=request.is_accepted
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
