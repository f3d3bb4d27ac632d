"""Plain requests, many a step: those that arrive together are read together, and so on.

A request whose every step but the engine's is short needs no task. More than that: a processor that
does one step for many requests has its code and its tables at hand, where one that goes all the way
with each comes upon everything cold. Measured, that halves what a request costs, and numpy and
orjson can be asked once for many rows.
"""

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from service.metrics import NO_MODEL
from service.model import Answer
from service.routes.clients import Ending
from service.routes.endpoint import refuse
from service.routes.exchange import Head, Written, request_id
from service.routes.operation import Job
from service.routes.plain import PlainOperation

if TYPE_CHECKING:
    from service.express.connection import ExpressProtocol

_log = logging.getLogger(__name__)


class Errand:
    """One plain request from arrival to answer; the slot that its rows' answer goes to.

    Args:
        connection: where it came from.
        operation: what it asks for.
        head: what stood before its body.
        body: all of it.
        arrived: `time.monotonic()` when it was there.

    job, answer: once they are there.
    """

    __slots__ = (
        "_is_over",
        "_leave",
        "answer",
        "arrived",
        "body",
        "connection",
        "head",
        "job",
        "model",
        "operation",
        "rows",
    )

    job: Job
    answer: Answer

    def __init__(
        self,
        connection: "ExpressProtocol",
        operation: PlainOperation,
        head: Head,
        body: bytes,
        arrived: float,
    ) -> None:
        self.connection = connection
        self.operation = operation
        self.head = head
        self.body = body
        self.arrived = arrived
        self.model = NO_MODEL
        self.rows: int | None = None
        self._leave: Callable[[], None] | None = None
        self._is_over = False

    def wait(self, job: Job, leave: Callable[[], None]) -> None:
        """Its rows wait for the engine; `leave` drops them."""
        self.job = job
        self.body = b""
        self._leave = leave

    def attend(self) -> None:
        """Something on its way takes long after all: go on in a task."""
        self._end()
        self.connection.attend(self.operation, self.head, self.body, self.arrived)

    def done(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self._is_over

    def set_result(self, result: Answer) -> None:
        """Take the answer, to be written with others."""
        self._end()
        self.answer = result
        self.connection.burst.answer(self)

    def set_exception(self, exception: Exception) -> None:
        """Tell the client what came in the place of an answer."""
        self._end()
        identity = request_id(self.head.headers)
        self.finish(refuse(exception, identity).written(), identity, time.monotonic())

    def stop(self, ending: Ending) -> None:
        """Compute no answer: the client is gone."""
        if not self._is_over:
            leave = self._leave
            self._end()
            if leave is not None:
                leave()
            self._note(None, request_id(self.head.headers), time.monotonic())

    def finish(self, reply: Written, identity: str, now: float) -> None:
        """Write the answer and count it. A connection that cannot be written to is closed."""
        self._note(reply, identity, now)
        try:
            self.connection.finish(reply)
        except Exception:
            # Those who are answered after it are not to wait for it.
            _log.exception("a connection of %s failed", self.operation.name)
            self.connection.transport.close()

    def _end(self) -> None:
        self._is_over = True
        self._leave = None  # it leads to whoever leads here

    def _note(self, reply: Written | None, identity: str, now: float) -> None:
        self.operation.note(
            self.head, identity, reply, now - self.arrived, model=self.model, rows=self.rows
        )


class Burst:
    """The errands that wait for the next turn of the event loop, at both ends of their way."""

    def __init__(self) -> None:
        self._arrived: list[Errand] = []
        self._answered: list[Errand] = []

    def join(self, errand: Errand) -> None:
        """Begin an errand with all others that arrive in this turn of the loop."""
        if not self._arrived:
            errand.connection.loop.call_soon(self._begin_all)
        self._arrived.append(errand)

    def answer(self, errand: Errand) -> None:
        """Write an answer with all others that come in this turn of the loop."""
        if not self._answered:
            errand.connection.loop.call_soon(self._answer_all)
        self._answered.append(errand)

    def _begin_all(self) -> None:
        errands, self._arrived = self._arrived, []
        families: dict[PlainOperation, list[Errand]] = {}
        for errand in errands:
            if not errand.done():  # its client may have left
                families.setdefault(errand.operation, []).append(errand)
        for operation, family in families.items():
            operation.begin(family)

    def _answer_all(self) -> None:
        errands, self._answered = self._answered, []
        families: dict[Hashable, list[Errand]] = {}
        for errand in errands:
            key = errand.operation, errand.operation.kin(errand.job, errand.answer)
            families.setdefault(key, []).append(errand)
        for family in families.values():
            identities = [request_id(errand.head.headers) for errand in family]
            replies = _write(family, identities)
            now = time.monotonic()
            for errand, identity, reply in zip(family, identities, replies, strict=True):
                errand.finish(reply, identity, now)


def _write(errands: Sequence[Errand], identities: Sequence[str]) -> list[Written]:
    finished = [(errand.job, errand.answer) for errand in errands]
    try:
        return errands[0].operation.reply(finished, identities)
    except Exception as error:
        if len(errands) == 1:
            return [refuse(error, identities[0]).written()]
    # One of them is at fault: it must not cost the others their answers.
    pairs = zip(errands, identities, strict=True)
    return [answer for errand, identity in pairs for answer in _write([errand], [identity])]
