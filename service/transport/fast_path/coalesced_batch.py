"""Plain requests that go to the engine and back as one."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from service.codec.tensors import Array
from service.contracts import InferenceResult, QueueHandle, RowQueue
from service.errors import EngineError
from service.operations.response import plain_answer
from service.operations.spec import ModelInput
from service.transport.asgi import refuse
from service.transport.request import Head, RawResponse, request_id


class FastPathContext(Protocol):
    """A plain request from arrival to answer, as `RequestContext` is of others.

    arrived: `time.monotonic()` when it was there.
    deadline: when its answer is worth nothing any more; written here, like what is counted: the
        model's name and the number of rows.
    """

    head: Head
    body: bytes
    arrived: float
    deadline: float
    model: str
    rows: int | None

    def wait(self, company: "CoalescedBatch") -> None:
        """Its rows wait for the engine; whoever it leaves is the company."""
        ...

    def attend(self) -> None:
        """Something on its way takes long after all: `Operation.serve` must have it."""
        ...

    def done(self) -> bool:
        """Whether it was answered, or its client has left."""
        ...

    def finish(self, reply: RawResponse, identity: str, now: float) -> None:
        """Take the answer, made at `now` for the id."""
        ...

    def refuse(self, error: Exception) -> None:
        """Take what came in the place of an answer."""
        ...


class CoalescedBatch:
    """Requests whose rows wait as one, are computed as one and are answered at once.

    Those of one row for the same queue that arrive together are; any other request is a company of
    its own. Nobody pays for it: a client that leaves takes its row along, and where the engine
    fails on a company, its members are computed again, each by itself.

    Args:
        queue: where the rows wait.
        write: orders and their joint answer -> a JSON body for each.
        members: the requests, and what they order: of one row each where there are several.
    """

    def __init__(
        self,
        queue: RowQueue,
        write: Callable[[Sequence[ModelInput], InferenceResult], list[bytes]],
        members: list[tuple[FastPathContext, ModelInput]],
    ) -> None:
        self._queue = queue
        self._write = write
        self._members = members
        self._waiting = len(members)
        self._place: QueueHandle | None = None

    def enter(self, *, is_accepted: bool = False) -> None:
        """Let the rows wait for the engine; the members are told if they may not.

        Args:
            is_accepted: they have waited there before, in other company.
        """
        rows, context = _join([order for _, order in self._members])
        deadline = min(visit.deadline for visit, _ in self._members)
        try:
            self._place = self._queue.enter(
                rows,
                context,
                deadline,
                self,
                requests=len(self._members),
                is_accepted=is_accepted,
            )
        except Exception as error:
            self.set_exception(error)
        else:
            for visit, _ in self._members:
                visit.wait(self)

    def leave(self, visit: FastPathContext) -> None:
        """Let a member go: its row is not computed, if no batch has it yet."""
        place = self._place
        if place is None:
            return
        self._waiting -= 1
        if not self._waiting:
            self._end()
            place.leave()
            return
        index = next(i for i, (member, _) in enumerate(self._members) if member is visit)
        if place.drop(index):
            del self._members[index]

    def done(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return not self._waiting

    def set_result(self, result: InferenceResult) -> None:
        """Answer all members."""
        members = self._end()
        identities = [request_id(visit.head.headers) for visit, _ in members]
        replies = self._answer(members, identities, result)
        now = time.monotonic()
        for (visit, _), identity, reply in zip(members, identities, replies, strict=True):
            if not visit.done():
                visit.finish(reply, identity, now)

    def set_exception(self, exception: Exception) -> None:
        """Tell all members what came in the place of an answer, or find out whose fault it is."""
        members = [member for member in self._end() if not member[0].done()]
        if isinstance(exception, EngineError) and len(members) > 1:
            for member in members:
                CoalescedBatch(self._queue, self._write, [member]).enter(is_accepted=True)
        else:
            for visit, _ in members:
                visit.refuse(exception)

    def _end(self) -> list[tuple[FastPathContext, ModelInput]]:
        # Both lead here: what leads to itself stays in memory until the next collection.
        members, self._members, self._place = self._members, [], None
        self._waiting = 0
        return members

    def _answer(
        self,
        members: Sequence[tuple[FastPathContext, ModelInput]],
        identities: Sequence[str],
        answer: InferenceResult,
    ) -> list[RawResponse]:
        if len(members) == 1 or answer.solves is None:
            try:
                bodies = self._write([order for _, order in members], answer)
                return [
                    plain_answer(body, answer, identity)
                    for body, identity in zip(bodies, identities, strict=True)
                ]
            except Exception as error:
                if len(members) == 1:
                    return [refuse(error, identities[0]).written()]
        # One of them is at fault, which must not cost the others their answers; or each has more
        # to tell than its numbers.
        return [
            self._answer([member], [identity], part)[0]
            for member, identity, part in zip(members, identities, answer.parts(), strict=True)
        ]


def _join(orders: Sequence[ModelInput]) -> tuple[Array, Array | None]:
    """Give the rows of all, and their context."""
    rows, context = [order.rows for order in orders], [order.context for order in orders]
    if len(orders) == 1:
        return rows[0], context[0]
    given = [one for one in context if one is not None]
    return np.concatenate(rows), np.concatenate(given) if given else None
