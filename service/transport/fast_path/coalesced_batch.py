"""Requests of the fast path that wait in a queue as one entry, and are answered at once."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from service.contracts import InferenceResult, QueueHandle, QueueShare
from service.errors import NotReady
from service.operations.model_input import ModelInput
from service.operations.response import RawResponse, Scalars, error_response, json_responses
from service.transport.request import Head, request_ids

# Writes a JSON body for each of some scalars, from the joint input and result; told the ids.
WriteBodies = Callable[[ModelInput, Sequence[Scalars], InferenceResult, Sequence[str]], list[bytes]]


class Member(Protocol):
    """A request of the fast path, as its coalesced batch knows it."""

    head: Head
    model: str
    version: str
    arrived: float
    deadline: float
    is_accepted: bool
    is_over: bool

    @property
    def share(self) -> QueueShare | None:
        """Of the queue, where keys share it."""
        ...

    def wait_in(self, batch: "CoalescedBatch") -> None:
        """Its rows wait in a queue; a client that leaves cancels them there."""
        ...

    def ask_successor(self, error: NotReady) -> None:
        """Its model gives no answer: be served by the one in its place; fail where none is."""
        ...

    def finish(self, response: RawResponse) -> None:
        """Write the answer."""
        ...

    def record(self, response: RawResponse, identity: str, now: float) -> None:
        """Count the answer, made at `now` for the id."""
        ...

    def fail(self, error: Exception) -> None:
        """Take what came in the place of an answer."""
        ...


# A request with its answer, and the id that stands there.
Answered = tuple[Member, RawResponse, str]


def record_each(answered: Sequence[Answered], now: float) -> None:
    """Count answers made at `now` one by one."""
    for member, response, identity in answered:
        member.record(response, identity, now)


class CoalescedBatch:
    """Requests whose rows wait as one entry, are computed together and answered at once.

    Those of one row for the same queue that arrive together are; any other request is a batch of
    its own. Nobody pays for it: a client that leaves takes its row along, and a row on which the
    engine fails costs its own request only.

    Args:
        write: makes the bodies.
        members: the requests: of one row each, and of one key, where there are several.
        given: their joint input.
        scalars: of each answer.
        record: counts the answers that were written, and the moment at which they were made.
    """

    def __init__(
        self,
        write: WriteBodies,
        members: Sequence[Member],
        given: ModelInput,
        scalars: Sequence[Scalars],
        record: Callable[[Sequence[Answered], float], None] = record_each,
    ) -> None:
        self._write = write
        self._record = record
        self._members = list(zip(members, scalars, strict=True))
        self._given = given
        self._waiting = len(members)
        self._handle: QueueHandle | None = None

    def size(self) -> int:
        """How many rows it has."""
        return len(self._given.rows)

    def compute(self) -> None:
        """Have the rows computed and answer at once, or let them wait for the engine."""
        rows, context, queue = self._given[:3]
        deadline = min([member.deadline for member, _ in self._members])
        try:
            result = queue.compute_now(rows, context, deadline, requests=len(self._members))
        except Exception as error:
            self.set_exception(error)
        else:
            if result is None:
                self.enqueue()
            else:
                self.set_result(result)

    def enqueue(self) -> None:
        """Let the rows wait for the engine; the members fail if they may not."""
        rows, context, queue = self._given[:3]
        deadline = min([member.deadline for member, _ in self._members])
        try:
            self._handle = queue.enqueue(
                *(rows, context, deadline, self),
                requests=len(self._members),
                share=self._members[0][0].share,
            )
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
            self._given = self._given.without_row(index)

    def done(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return not self._waiting

    def set_result(self, result: InferenceResult) -> None:
        """Answer all members."""
        given, members = self._given, self._end()
        if not result.errors:
            self._answer(members, given, result)
            return
        for index, (member, part) in enumerate(zip(members, result.rows(), strict=True)):
            if not part.errors:
                self._answer([member], given.row(index, member[1]), part)
            elif not member[0].is_over:
                member[0].fail(part.errors[0])

    def set_exception(self, exception: Exception) -> None:
        """Fail all members; where their model was replaced, each is served by its successor."""
        for member, _ in self._end():
            if member.is_over:
                continue
            if isinstance(exception, NotReady):
                member.ask_successor(exception)
            else:
                member.fail(exception)

    def _end(self) -> "_Members":
        # Both lead here: what leads to itself stays in memory until the next collection.
        members, self._members, self._handle = self._members, [], None
        self._waiting = 0
        return members

    def _answer(self, members: "_Members", given: ModelInput, result: InferenceResult) -> None:
        identities = request_ids([member.head for member, _ in members])
        responses = self._respond([scalars for _, scalars in members], identities, given, result)
        now = time.monotonic()
        answers = list(zip([member for member, _ in members], responses, identities, strict=True))
        if any([member.is_over for member, _, _ in answers]):  # their clients have left
            answers = [answer for answer in answers if not answer[0].is_over]
        # Written in one go and counted afterwards: a client that is awake when the next answer
        # comes costs no wake-up, which is most of what a short write costs.
        for member, response, _ in answers:
            member.finish(response)
        if answers:
            self._record(answers, now)

    def _respond(
        self,
        scalars: Sequence[Scalars],
        identities: Sequence[str],
        given: ModelInput,
        result: InferenceResult,
    ) -> list[RawResponse]:
        if len(scalars) == 1 or result.solver_stats is None:
            try:
                bodies = self._write(given, scalars, result, identities)
                return json_responses(bodies, result, identities)
            except Exception as error:
                if len(scalars) == 1:
                    return [error_response(error, identities[0]).raw()]
        # One of them is at fault, which must not cost the others their answers; or each has more
        # to tell than its numbers.
        return [
            self._respond([said], [identity], given.row(index, said), part)[0]
            for index, (said, identity, part) in enumerate(
                zip(scalars, identities, result.rows(), strict=True)
            )
        ]


_Members = list[tuple[Member, Scalars]]
