"""Plain requests from a connection to a company and back; those that arrive together begin so.

A request whose every step but the engine's is short needs no task. More than that: a processor that
does one step for many requests has its code and its tables at hand, where one that goes all the way
with each comes upon everything cold.
"""

import logging
import time
from typing import TYPE_CHECKING

from service.telemetry import NO_MODEL
from service.transport.asgi import refuse
from service.transport.disconnect import CancelReason
from service.transport.fast_path.coalesced_batch import CoalescedBatch
from service.transport.fast_path.plain import PlainOperation
from service.transport.request import Head, RawResponse, request_id

if TYPE_CHECKING:
    from service.transport.fast_path.http_protocol import ExpressProtocol

_log = logging.getLogger(__name__)


class FastPathRequest:
    """One plain request from arrival to answer.

    Args:
        connection: where it came from.
        operation: what it asks for.
        head: what stood before its body.
        body: all of it.
        arrived: `time.monotonic()` when it was there.

    deadline, model, rows: see `service.transport.fast_path.coalesced_batch.FastPathContext`.
    """

    __slots__ = (
        "_company",
        "_is_over",
        "arrived",
        "body",
        "connection",
        "deadline",
        "head",
        "model",
        "operation",
        "rows",
    )

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
        self.arrived = self.deadline = arrived
        self.model = NO_MODEL
        self.rows: int | None = None
        self._company: CoalescedBatch | None = None
        self._is_over = False

    def wait(self, company: CoalescedBatch) -> None:
        """Its rows wait for the engine; whoever it leaves is the company."""
        self._company = company
        self.body = b""

    def attend(self) -> None:
        """Something on its way takes long after all: go on in a task."""
        self._end()
        self.connection.attend(self.operation, self.head, self.body, self.arrived)

    def waits(self) -> bool:
        """Whether somebody will answer it, or has."""
        return self._is_over or self._company is not None

    def done(self) -> bool:
        """Whether it was answered, or its client has left."""
        return self._is_over

    def finish(self, reply: RawResponse, identity: str, now: float) -> None:
        """Write the answer and count it; where that fails, the connection is closed."""
        self._end()
        try:
            self._note(reply, identity, now)
            self.connection.finish(reply)
        except Exception:
            # Those who are answered after it are not to wait for it.
            _log.exception("a connection of %s failed", self.operation.name)
            self.connection.transport.close()

    def refuse(self, error: Exception) -> None:
        """Tell the client what came in the place of an answer."""
        identity = request_id(self.head.headers)
        self.finish(refuse(error, identity).written(), identity, time.monotonic())

    def stop(self, ending: CancelReason) -> None:
        """Compute no answer: the client is gone."""
        if not self._is_over:
            company = self._company
            self._end()
            if company is not None:
                company.leave(self)
            self._note(None, request_id(self.head.headers), time.monotonic())

    def _end(self) -> None:
        self._is_over = True
        self._company = None  # it leads to whoever leads here

    def _note(self, reply: RawResponse | None, identity: str, now: float) -> None:
        self.operation.note(
            self.head, identity, reply, now - self.arrived, model=self.model, rows=self.rows
        )


class RequestCoalescer:
    """The errands that arrive in two turns of the event loop, the second of which does not wait.

    Clients that were answered together answer together, but for the first, which is often a turn
    before the others.
    """

    def __init__(self) -> None:
        self._arrived: list[FastPathRequest] = []

    def join(self, errand: FastPathRequest) -> None:
        """Begin an errand with all others that arrive in this turn and the next."""
        if not self._arrived:
            loop = errand.connection.loop
            loop.call_soon(loop.call_soon, self._begin_all)
        self._arrived.append(errand)

    def _begin_all(self) -> None:
        errands, self._arrived = self._arrived, []
        families: dict[PlainOperation, list[FastPathRequest]] = {}
        for errand in errands:
            if not errand.done():  # its client may have left
                families.setdefault(errand.operation, []).append(errand)
        for operation, family in families.items():
            try:
                operation.begin(family)
            except Exception as error:  # a fault of ours: all that wait for nothing are told
                for errand in family:
                    if not errand.waits():
                        errand.refuse(error)
