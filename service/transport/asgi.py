"""What all that computes has in common: one request from its head to its answer.

No framework stands between them and the server, so that a one-row request costs little more than
its HTTP exchange. They are ASGI applications, and `service.transport.fast_path` calls them without
even that. `service.api.openapi` describes them in OpenAPI.
"""

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from starlette.types import Receive, Scope, Send

from service.auth import ApiKeyAuth
from service.contracts import Array, InferenceResult, Repository, RowQueue
from service.errors import BodyTimeout, ServiceError, problem, unexpected
from service.operations.thread_pool import Threads
from service.settings import Settings
from service.telemetry import NO_MODEL
from service.telemetry.recorder import RequestRecorder
from service.telemetry.tracing import Stages
from service.transport.disconnect import (
    AsgiRequestContext,
    CancelReason,
    DisconnectWatcher,
    RequestContext,
)
from service.transport.request import (
    ClientGone,
    Head,
    RawResponse,
    Reception,
    Reply,
    check_single,
    read_headers,
    read_timeout,
    receive_body,
    request_id,
    respond,
)

# What is counted when nobody is there to read a status; nginx made the number known.
_CLIENT_GONE = 499

ReadBody = Callable[[], Awaitable[bytes | bytearray]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AppContext:
    """What all operations share."""

    settings: Settings
    repository: Repository
    register: RequestRecorder
    clients: DisconnectWatcher
    reception: Reception
    guard: ApiKeyAuth | None = None
    threads: Threads = field(default_factory=Threads)


class Endpoint(ABC):
    """What computes, as an ASGI application: each request is answered and counted once, here.

    name: in the metrics.
    """

    name: ClassVar[str]

    def __init__(self, desk: AppContext) -> None:
        self._desk = desk
        self._settings = desk.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request as an ASGI application."""
        visit = self._desk.clients.enter(receive, self._settings.request_timeout_seconds)
        head = Head(scope["path"], scope["query_string"], *read_headers(scope["headers"]))
        reply = await self.serve(head, visit, partial(self._receive_body, head, visit))
        if reply is not None:
            await respond(send, *reply)

    async def serve(self, head: Head, visit: RequestContext, read_body: ReadBody) -> Reply | None:
        """Answer one request, whatever happens, and count it; None where nobody is left to read.

        Args:
            head: what stands before the body.
            visit: the request's time and place, in the task that runs this.
            read_body: gives the body, whole.
        """
        identity = request_id(head.headers)
        reply: Reply | None
        if self._desk.register.tracer is not None:
            visit.stages = Stages(self._route(head.path))
        try:
            visit.shorten(self._admit(head))
            reply = await self._answer(head, visit, read_body)
            reply.headers.append((b"x-request-id", identity.encode()))
        except (Exception, asyncio.CancelledError) as reason:
            reply = _end(reason, visit, identity)
        finally:
            visit.end()
        self.note(
            head,
            identity,
            reply,
            visit.age(),
            model=visit.model,
            rows=visit.rows,
            stages=visit.stages,
        )
        return reply

    def note(
        self,
        head: Head,
        identity: str,
        reply: Reply | RawResponse | None,
        seconds: float,
        *,
        model: str = NO_MODEL,
        rows: int | None = None,
        stages: Stages | None = None,
    ) -> None:
        """Count, log and trace one request, once it is over; without reply its client is gone."""
        register = self._desk.register
        status = _CLIENT_GONE if reply is None else reply.status
        if not register.tells:
            register.count(model, self.name, status, seconds)
            return
        register.note(
            "POST",
            head.path,
            head.headers,
            request_id=identity,
            status=status,
            seconds=seconds,
            op=self.name,
            model=model,
            rows=rows,
            stages=stages,
        )

    def _admit(self, head: Head) -> float:
        """Ask for the key, where there are keys.   -> how many seconds the client waits at most.

        Raises:
            MalformedRequest: a header stands twice that may not.
            Unauthorized: no key that is known.
            InvalidParameter: X-Timeout-Seconds is no number.
        """
        check_single(head.twice)
        if self._desk.guard is not None:
            self._desk.guard.check(head.headers)
        patience = head.headers.get(b"x-timeout-seconds")
        return math.inf if patience is None else read_timeout(patience)

    async def _receive_body(self, head: Head, visit: AsgiRequestContext) -> bytes | bytearray:
        max_bytes, reception = self._settings.max_body_bytes, self._desk.reception
        body = await receive_body(head.headers, visit.receive, max_bytes, reception)
        visit.body_is_read()
        return body

    @abstractmethod
    def _route(self, path: str) -> str:
        """Give the template of a path."""

    @abstractmethod
    async def _answer(self, head: Head, visit: RequestContext, read_body: ReadBody) -> Reply:
        """Read a request, compute its answer and write it."""


async def receive_small(
    desk: AppContext, headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int
) -> bytes | bytearray:
    """Read the body of a route that is no `Endpoint`, as theirs are read.

    Raises:
        BodyTimeout: it did not arrive before the request's deadline.
        ClientGone, and what `receive_body` raises.
    """
    visit = desk.clients.enter(receive, desk.settings.request_timeout_seconds)
    patience = headers.get(b"x-timeout-seconds")
    if patience is not None:
        visit.shorten(read_timeout(patience))
    try:
        return await receive_body(headers, receive, max_bytes, desk.reception)
    except asyncio.CancelledError:
        if visit.ending is not CancelReason.LATE:
            raise
        visit.resume()
        raise _late() from None
    finally:
        visit.end()


async def submit(
    queue: RowQueue, rows: Array, context: Array | None, visit: RequestContext
) -> InferenceResult:
    """Let a queue compute the rows of a visit."""
    if visit.stages is None:
        return await queue.submit(rows, context, visit.deadline)
    return await visit.stages.submit(queue, rows, context, visit.deadline)


def refuse(reason: Exception, identity: str) -> Reply:
    """Answer a request that an exception ended; one that is no `ServiceError` is logged."""
    # Not where it was caught: an error there would be part of a cycle, its traceback holds that
    # frame, and the body would stay in memory until the next collection.
    if not isinstance(reason, ServiceError):
        _log.error("unexpected error in request %s", identity, exc_info=reason)
        reason = unexpected(identity)
    body, headers = problem(reason, identity)
    return Reply(reason.status, headers, body)


def _end(reason: BaseException, visit: RequestContext, identity: str) -> Reply | None:
    """Turn what ended a visit into what its client is told; None where it is gone."""
    if isinstance(reason, ClientGone):
        return None
    if isinstance(reason, Exception):
        return refuse(reason, identity)
    if visit.ending is None:
        raise reason
    visit.resume()
    if visit.ending is CancelReason.GONE:
        return None
    return refuse(_late(), identity)


def _late() -> BodyTimeout:
    return BodyTimeout("body: it did not arrive before the request's deadline")
