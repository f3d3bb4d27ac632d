"""Rows that an operation asks for once it has seen what came of the first ones."""

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from service.contracts import InferenceResult, RowQueue, ServedModel
from service.errors import DeadlineExceeded, NotReady, Overloaded, ServiceError
from service.operations.inference import AskMore, infer
from service.operations.model_input import FollowUp, ModelInput
from service.operations.request_context import RequestContext
from service.operations.thread_pool import RequestThreadPool
from tests.service.batcher.batching import run
from tests.service.fake_repository import Linear, card

FIRST = np.ones((2, 3), np.float32)
MORE = np.full((5, 3), 4, np.float32)


def model(*, failure: ServiceError | None = None, is_gated: bool = False) -> ServedModel:
    gate = {"gate": asyncio.Event(), "entered": asyncio.Event()} if is_gated else {}
    queue = Linear((3,), is_encode=True, failure=failure, **gate)
    return ServedModel(card("line", (3,)), queue, Linear((3,), is_encode=False))


def asking(*queues: RowQueue) -> AskMore:
    """Ask each of these queues in turn."""

    def follow_up(_: ServedModel, given: ModelInput, result: InferenceResult) -> FollowUp | None:
        names = [str(index) for index in range(len(queues)) if str(index) not in given.followed]
        return FollowUp(names[0], queues[int(names[0])], MORE) if names else None

    return follow_up


def prepare(of: ServedModel) -> ModelInput:
    return ModelInput(FIRST, None, of.encode, {}, follows=True)


async def ask(
    models: Sequence[ServedModel], follow_up: AskMore, request: RequestContext | None = None
) -> tuple[ServedModel, ModelInput, InferenceResult]:
    """Ask the first of these models, which the others replace one by one."""
    left = list(models)
    request = request or RequestContext(time.monotonic(), math.inf)

    def find() -> ServedModel:
        return left.pop(0) if len(left) > 1 else left[0]

    return await infer(find, prepare, request, RequestThreadPool(1), follow_up)


def test_what_came_of_all_rows_is_there_at_the_end() -> None:
    async def test() -> None:
        own, other = model(), model()
        request = RequestContext(time.monotonic(), math.inf)
        _, given, result = await ask([own], asking(other.encode, own.encode), request)
        assert list(given.followed) == ["0", "1"]
        np.testing.assert_array_equal(given.followed["0"].value, MORE / 2)
        np.testing.assert_array_equal(result.value, FIRST / 2)
        assert request.rows == 2 + 5 + 5
        assert result.queue_seconds == pytest.approx(0.003)
        assert result.compute_seconds == pytest.approx(0.006)

    run(test())


def test_nothing_is_asked_where_nothing_follows() -> None:
    async def test() -> None:
        own = model()
        plain = prepare(own)._replace(follows=False)
        request = RequestContext(time.monotonic(), math.inf)
        await infer(lambda: own, lambda _: plain, request, RequestThreadPool(1), asking(own.encode))
        assert len(own.encode.calls) == 1  # type: ignore[attr-defined]

    run(test())


@pytest.mark.parametrize("error", [Overloaded("full"), DeadlineExceeded("late")])
def test_further_rows_are_refused_as_any(error: ServiceError) -> None:
    async def test() -> None:
        with pytest.raises(type(error)):
            await ask([model()], asking(model(failure=error).encode))

    run(test())


def test_further_rows_have_no_place_in_a_queue_yet() -> None:
    async def test() -> None:
        accepted: list[bool] = []

        class Noting(Linear):
            def enqueue(self, *given: Any, **named: Any) -> Any:
                accepted.append(named["is_accepted"])
                return super().enqueue(*given, **named)

        queue = Noting((3,), is_encode=True)
        await ask([model()], asking(queue))
        assert accepted == [False]

    run(test())


def test_a_client_that_leaves_takes_its_further_rows_along() -> None:
    async def test() -> None:
        other = model(is_gated=True)
        queue = other.encode
        assert isinstance(queue, Linear)
        task = asyncio.create_task(ask([model()], asking(queue)))
        assert queue.entered is not None
        await queue.entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert queue.was_cancelled

    run(test())


def test_all_rows_of_a_model_that_is_replaced_in_between_are_of_its_successor() -> None:
    async def test() -> None:
        gone, successor = model(), model()

        def follow_up(
            of: ServedModel, given: ModelInput, result: InferenceResult
        ) -> FollowUp | None:
            if of is gone:
                assert isinstance(gone.encode, Linear)
                gone.encode.failure = NotReady("gone")
            return asking(of.encode)(of, given, result)

        found, given, _ = await ask([gone, successor], follow_up)
        assert found is successor
        assert isinstance(successor.encode, Linear)
        assert [len(rows) for rows, _ in successor.encode.calls] == [2, 5]
        assert list(given.followed) == ["0"]

    run(test())


def test_the_successor_of_another_model_is_asked_in_its_place() -> None:
    async def test() -> None:
        own, gone, successor = model(), model(failure=NotReady("gone")), model()
        others = [gone, successor, successor]
        _, given, _ = await ask([own], lambda *done: asking(others.pop(0).encode)(*done))
        assert list(given.followed) == ["0"]
        assert isinstance(own.encode, Linear)
        assert len(own.encode.calls) == 1

    async def no_successor() -> None:
        gone = model(failure=NotReady("gone"))
        with pytest.raises(NotReady):
            await ask([model()], asking(gone.encode))

    run(test())
    run(no_successor())
