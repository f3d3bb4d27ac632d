"""A plain request of the fast path, from arrival to answer, and the connection it came from."""

import asyncio
import logging
import time
from typing import Any, Protocol

from service.contracts import ServedModel
from service.errors import NotReady, ServiceError
from service.operations.request_context import CancelReason, RequestContext
from service.operations.response import AS_JSON, RawResponse, error_response
from service.transport.asgi import OperationEndpoint
from service.transport.compression import MIN_ANSWER_BYTES, compress_raw
from service.transport.fast_path.coalesced_batch import CoalescedBatch
from service.transport.request import Head, request_id

# What is said of coalesced requests is said under one name.
_log = logging.getLogger("service.transport.fast_path.coalescer")


class Connection(Protocol):
    """Where a request of the fast path came from."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    @property
    def is_only(self) -> bool:
        """Whether no other connection is open."""
        ...

    def serve_in_task(self, request: "FastPathRequest") -> None:
        """Serve a request in a task of its own."""
        ...

    def finish(self, response: RawResponse | None) -> None:
        """Write an answer, and go on with what came meanwhile."""
        ...


# Of requests that are not read yet; never changed.
_NO_FIELDS: dict[str, Any] = {}


class FastPathRequest(RequestContext):
    """One plain request from arrival to answer.

    Args:
        connection: where it came from.
        endpoint: what it asks for.
        head: what stood before its body.
        body: all of it.
        arrived: `time.monotonic()` when it was there.

    fields, form, timeout: what it says, the format of its answer, and how long its client waits:
        once they are read, the fields until its rows wait.
    served: the model that was found for it.
    """

    form = AS_JSON
    fields = _NO_FIELDS
    timeout = 0.0
    served: ServedModel | None = None
    _batch: CoalescedBatch | None = None
    _compression: asyncio.Task[None] | None = None

    def __init__(
        self,
        connection: Connection,
        endpoint: OperationEndpoint,
        head: Head,
        body: bytes,
        arrived: float,
    ) -> None:
        # Not by the constructor of its class: of 64 requests at a time each 0.1 us counts.
        self.arrived = self.deadline = arrived
        self.connection = connection
        self.endpoint = endpoint
        self.head = head
        self.body = body

    @property
    def is_waiting(self) -> bool:
        """Whether somebody will answer it, or has."""
        return self.is_over or self._batch is not None

    def wait_in(self, batch: CoalescedBatch) -> None:
        """Its rows wait in a queue; a client that leaves cancels them there."""
        self._batch = batch
        self.fields = _NO_FIELDS  # its rows hold the same numbers in a fraction of the memory

    def serve_alone(self) -> None:
        """Go on in a task: something on its way takes long, or its model was replaced."""
        self.end()
        self.connection.serve_in_task(self)

    def ask_successor(self, error: NotReady) -> None:
        """Its model gives no answer: be served by the one in its place, if any."""
        try:
            is_served = self.endpoint.app.repository.get(self.model) is self.served
        except ServiceError:
            is_served = False  # the task finds out what to say of it
        if is_served:
            self.fail(error)
        else:
            self.serve_alone()

    def finish(self, response: RawResponse) -> None:
        """Write the answer, a long one compressed where the client lets it."""
        self.is_over = True
        self._batch = None
        if len(response.body) >= MIN_ANSWER_BYTES and b"accept-encoding" in self.head.headers:
            self._compression = self.connection.loop.create_task(self._compress(response))
        else:
            self._write(response)

    async def _compress(self, response: RawResponse) -> None:
        threads = self.endpoint.app.threads
        self._write(await compress_raw(self.head.headers, response, threads, self.deadline))

    def _write(self, response: RawResponse) -> None:
        """Write the answer; where that fails, the connection is closed."""
        try:
            self.connection.finish(response)
        except Exception:
            # Those who are answered after it are not to wait for it.
            _log.exception("a connection of %s failed", self.endpoint.name)
            self.connection.transport.close()

    def record(self, response: RawResponse | None, identity: str, now: float) -> None:
        """Count the answer, once it is written."""
        try:
            self.release_rows()
            self.endpoint.record(
                self.head,
                identity,
                response,
                now - self.arrived,
                model=self.model,
                version=self.version,
                rows=self.rows,
                key=self.key,
            )
        except Exception:
            _log.exception("a request of %s could not be counted", self.endpoint.name)

    def fail(self, error: Exception) -> None:
        """Tell the client what came in the place of an answer."""
        identity = request_id(self.head.headers)
        self.note_failure(error)
        self.endpoint.note_failure(error, self.model, self.version)
        response = error_response(error, identity).raw()
        self.finish(response)
        self.record(response, identity, time.monotonic())

    def cancel(self, reason: CancelReason) -> None:
        """Compute no answer: the client is gone."""
        if not self.is_over:
            batch = self._batch
            self.end()
            if batch is not None:
                batch.cancel(self)
            self.record(None, request_id(self.head.headers), time.monotonic())

    def end(self) -> None:
        """The answer is known, or somebody else finds it."""
        self.is_over = True
        self._batch = None  # it leads to whoever leads here
