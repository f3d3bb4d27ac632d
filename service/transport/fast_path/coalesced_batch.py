"""Requests of the fast path that wait in a queue as one entry, and are answered at once."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from service.codec.tensors import Array
from service.contracts import InferenceResult, QueueHandle
from service.errors import NotReady
from service.operations.model_input import ModelInput
from service.operations.response import RawResponse, error_response, json_response
from service.transport.request import Head, request_id

# Writes the JSON body of each of some inputs, from their joint result.
WriteBodies = Callable[[Sequence[ModelInput], InferenceResult], list[bytes]]


class Member(Protocol):
    """A request of the fast path, as its coalesced batch knows it."""

    head: Head
    deadline: float
    is_accepted: bool
    is_over: bool

    def wait_in(self, batch: "CoalescedBatch") -> None:
        """Its rows wait in a queue; a client that leaves cancels them there."""
        ...

    def ask_successor(self, error: NotReady) -> None:
        """Its model gives no answer: be served by the one in its place; fail where none is."""
        ...

    def finish(self, response: RawResponse, identity: str, now: float) -> None:
        """Take the answer, made at `now` for the id."""
        ...

    def fail(self, error: Exception) -> None:
        """Take what came in the place of an answer."""
        ...


class CoalescedBatch:
    """Requests whose rows wait as one entry, are computed together and answered at once.

    Those of one row for the same queue that arrive together are; any other request is a batch of
    its own. Nobody pays for it: a client that leaves takes its row along, and a row on which the
    engine fails costs its own request only.

    Args:
        write: makes the bodies.
        members: the requests and their inputs, all for one queue: of one row each where there are
            several.
    """

    def __init__(self, write: WriteBodies, members: list[tuple[Member, ModelInput]]) -> None:
        self._write = write
        self._members = members
        self._waiting = len(members)
        self._handle: QueueHandle | None = None

    def enqueue(self) -> None:
        """Let the rows wait for the engine; the members fail if they may not."""
        rows, context = _concatenate([given for _, given in self._members])
        queue = self._members[0][1].queue
        deadline = min(member.deadline for member, _ in self._members)
        try:
            self._handle = queue.enqueue(rows, context, deadline, self, requests=len(self._members))
        except Exception as error:
            self.set_exception(error)
        else:
            for member, _ in self._members:
                member.is_accepted = True
                member.wait_in(self)

    def cancel(self, member: Member) -> None:
        """Let a member go: its row is not computed, if no batch has it yet."""
        handle = self._handle
        if handle is None:
            return
        self._waiting -= 1
        if not self._waiting:
            self._end()
            handle.cancel()
            return
        index = next(i for i, (other, _) in enumerate(self._members) if other is member)
        if handle.cancel_row(index):
            del self._members[index]

    def done(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return not self._waiting

    def set_result(self, result: InferenceResult) -> None:
        """Answer all members."""
        members = self._end()
        if not result.errors:
            self._answer(members, result)
            return
        for (member, given), part in zip(members, result.rows(), strict=True):
            if not part.errors:
                self._answer([(member, given)], part)
            elif not member.is_over:
                member.fail(part.errors[0])

    def set_exception(self, exception: Exception) -> None:
        """Fail all members; where their model was replaced, each is served by its successor."""
        for member, _ in self._end():
            if member.is_over:
                continue
            if isinstance(exception, NotReady):
                member.ask_successor(exception)
            else:
                member.fail(exception)

    def _end(self) -> list[tuple[Member, ModelInput]]:
        # Both lead here: what leads to itself stays in memory until the next collection.
        members, self._members, self._handle = self._members, [], None
        self._waiting = 0
        return members

    def _answer(
        self, members: Sequence[tuple[Member, ModelInput]], result: InferenceResult
    ) -> None:
        identities = [request_id(member.head.headers) for member, _ in members]
        responses = self._respond(members, identities, result)
        now = time.monotonic()
        for (member, _), identity, response in zip(members, identities, responses, strict=True):
            if not member.is_over:
                member.finish(response, identity, now)

    def _respond(
        self,
        members: Sequence[tuple[Member, ModelInput]],
        identities: Sequence[str],
        result: InferenceResult,
    ) -> list[RawResponse]:
        if len(members) == 1 or result.solver_stats is None:
            try:
                bodies = self._write([given for _, given in members], result)
                return [
                    json_response(body, result, identity)
                    for body, identity in zip(bodies, identities, strict=True)
                ]
            except Exception as error:
                if len(members) == 1:
                    return [error_response(error, identities[0]).raw()]
        # One of them is at fault, which must not cost the others their answers; or each has more
        # to tell than its numbers.
        return [
            self._respond([member], [identity], part)[0]
            for member, identity, part in zip(members, identities, result.rows(), strict=True)
        ]


def _concatenate(inputs: Sequence[ModelInput]) -> tuple[Array, Array | None]:
    """Give the rows of all, and their context."""
    if len(inputs) == 1:
        return inputs[0].rows, inputs[0].context
    contexts = [given.context for given in inputs if given.context is not None]
    rows = np.concatenate([given.rows for given in inputs])
    return rows, np.concatenate(contexts) if contexts else None
