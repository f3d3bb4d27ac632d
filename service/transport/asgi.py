"""Operations as ASGI applications: one request from its head to its answer.

No framework stands between them and the server, so that a one-row request costs little more than
its HTTP exchange. `service.transport.fast_path` calls them without even ASGI, and
`service.api.openapi` describes them.
"""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from starlette.types import Receive, Scope, Send

from service.auth import ApiKeyAuth
from service.contracts import Repository, ServedModel
from service.errors import BodyTimeout, Overloaded
from service.keys import ApiKey
from service.operations import Operation
from service.operations.failures import CountFailures
from service.operations.fields import MODEL
from service.operations.inference import infer
from service.operations.request_context import CancelReason, RequestContext
from service.operations.response import RawResponse, Response, error_response, write_response
from service.operations.spec import ACCEPT_JSON, Limits
from service.operations.thread_pool import RequestThreadPool
from service.settings import Settings
from service.telemetry import NO_MODEL
from service.telemetry.recorder import RequestRecorder
from service.telemetry.tracing import Stages
from service.transport.body import FieldReader
from service.transport.compression import compress_answer, receive_decompressed
from service.transport.disconnect import AsgiRequestContext, DisconnectWatcher
from service.transport.request import (
    ClientGone,
    Head,
    ReceiveBudget,
    read_headers,
    read_timeout,
    receive_body,
    repeated_header,
    request_id,
    send_response,
)

# What is counted when nobody is there to read a status; nginx made the number known.
_CLIENT_GONE = 499
# From a refusal on, for how long the queue is asked before a request is read.
_SHEDDING_SECONDS = 1.0
_JSON_CONTENT_TYPE = (None, b"application/json")

ReadBody = Callable[[], Awaitable[bytes | bytearray]]


@dataclass(frozen=True, slots=True)
class AppContext:
    """What all transports of an application share."""

    settings: Settings
    repository: Repository
    recorder: RequestRecorder
    watcher: DisconnectWatcher
    receive_budget: ReceiveBudget
    auth: ApiKeyAuth | None = None
    threads: RequestThreadPool = field(default_factory=RequestThreadPool)

    @property
    def limits(self) -> Limits:
        """How large a request and its answer may be."""
        settings = self.settings
        return Limits(settings.max_request_rows, settings.max_response_bytes)


class Endpoint(ABC):
    """What computes, as an ASGI application: each request is answered and counted once, here.

    name: in the metrics.
    is_limited: whether its requests count for the limits of their keys.
    sheds_until: until when its queue is asked before a request is read, since it refused lately.
    """

    name: str
    is_limited = True
    sheds_until = 0.0

    def __init__(self, app: AppContext) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request as an ASGI application."""
        request = self.app.watcher.begin(receive, self.app.settings.request_timeout_seconds)
        head = Head(scope["path"], scope["query_string"], *read_headers(scope["headers"]))
        response = await self.serve(head, request, partial(self._receive_body, head, request))
        if response is not None:
            await send_response(send, response)

    async def serve(
        self, head: Head, request: RequestContext, read_body: ReadBody
    ) -> Response | None:
        """Answer one request, whatever happens, and count it; None where nobody is left to read.

        Args:
            head: what stands before the body.
            request: its time and task, which is the one that runs this.
            read_body: gives the body, whole.
        """
        request.identity = identity = request_id(head.headers)
        response: Response | None
        if self.app.recorder.tracer is not None:
            request.stages = Stages(self.route(head.path))
        try:
            seconds, key = self.admit(head)
            request.shorten(seconds)
            if key is not None:
                request.use_key(key, is_limited=self.is_limited)
            response = await self._answer(head, request, read_body)
            if b"accept-encoding" in head.headers:
                threads, deadline = self.app.threads, request.deadline
                response = await compress_answer(head.headers, response, threads, deadline)
            response.headers.append((b"x-request-id", identity.encode()))
        except (Exception, asyncio.CancelledError) as reason:
            request.note_failure(reason)
            self.note_failure(reason, request.model, request.version)
            response = _answer_failure(reason, request, identity)
        finally:
            request.end()
            request.release_rows()
            self.app.receive_budget.release(request.held_bytes)
        self.record(
            head,
            identity,
            response,
            request.age(),
            model=request.model,
            version=request.version,
            rows=request.rows,
            stages=request.stages,
            key=request.key,
        )
        return response

    def record(
        self,
        head: Head,
        identity: str,
        response: Response | RawResponse | None,
        seconds: float,
        *,
        model: str = NO_MODEL,
        version: str = "",
        rows: int | None = None,
        stages: Stages | None = None,
        key: ApiKey | None = None,
    ) -> None:
        """Count, log and trace one request once it is over; without response its client is gone."""
        recorder = self.app.recorder
        status = _CLIENT_GONE if response is None else response.status
        name = "" if key is None else key.name
        if not recorder.is_verbose:
            recorder.count(model, self.name, status, seconds, version=version, key=name, rows=rows)
            return
        recorder.record(
            "POST",
            head.path,
            head.headers,
            request_id=identity,
            status=status,
            seconds=seconds,
            op=self.name,
            model=model,
            version=version,
            rows=rows,
            stages=stages,
            key=name,
        )

    def note_failure(self, reason: BaseException, model: str, version: str) -> None:
        """Note that there was no room for a request: now queues are asked before one is read."""
        if isinstance(reason, Overloaded):
            self.sheds_until = time.monotonic() + _SHEDDING_SECONDS
            if not reason.is_counted:
                self.app.recorder.metrics.overloaded(model, version)

    def count_batch(
        self, model: str, status: int, seconds: Sequence[float], *, version: str = ""
    ) -> bool:
        """Count requests that were answered alike.

        Args:
            model: that answered.
            version: of it.
            status: of all answers.
            seconds: that each took.

        Returns:
            False where more is recorded of a request, or for its key: `record` each.
        """
        recorder = self.app.recorder
        if recorder.is_verbose or self.app.auth is not None:
            return False
        recorder.count_batch(model, self.name, status, seconds, version=version)
        return True

    def admit(self, head: Head) -> tuple[float, ApiKey | None]:
        """Ask for the key, where there are keys.

        Returns:
            How many seconds the client waits at most, and the key.

        Raises:
            MalformedRequest: a header stands twice that may not.
            Unauthorized: no key that is known.
            InvalidParameter: X-Timeout-Seconds is no number.
        """
        if head.repeated is not None:
            raise repeated_header(head.repeated)
        key = None if self.app.auth is None else self.app.auth.check(head.headers)
        timeout = head.headers.get(b"x-timeout-seconds")
        return math.inf if timeout is None else read_timeout(timeout), key

    def count_failures(self, model: ServedModel) -> CountFailures:
        """Make what counts the rows of an answer that failed."""
        card = model.card
        return partial(self.app.recorder.metrics.failed, card.name, self.name, version=card.version)

    async def _receive_body(self, head: Head, request: AsgiRequestContext) -> bytes | bytearray:
        max_bytes, budget = self.app.settings.max_body_bytes, self.app.receive_budget

        async def receive() -> bytes | bytearray:
            body = await receive_body(head.headers, request.receive, max_bytes, budget)
            request.body_is_read()
            return body

        return await receive_decompressed(
            head.headers, receive, max_bytes, self.app.threads, request, budget
        )

    @abstractmethod
    def route(self, path: str) -> str:
        """The template of a path."""

    @abstractmethod
    async def _answer(self, head: Head, request: RequestContext, read_body: ReadBody) -> Response:
        """Read a request, compute its answer and write it."""


class OperationEndpoint(Endpoint):
    """POST /NAME of one operation."""

    def __init__(self, app: AppContext, kind: type[Operation]) -> None:
        super().__init__(app)
        settings = app.settings
        self.operation = operation = kind(app.limits, app.repository)
        self.name = operation.name
        self.longest_seconds = settings.request_timeout_seconds
        self.reader = FieldReader(
            operation,
            app.repository,
            app.threads,
            max_rows=settings.max_request_rows,
            max_body_bytes=settings.max_body_bytes,
        )

    def route(self, path: str) -> str:
        """Its path has no parts that vary."""
        return f"/{self.name}"

    def is_plain(self, head: Head) -> bool:
        """Whether a request is JSON for JSON and untraced, so that it may be coalesced."""
        return (
            not head.query
            and head.headers.get(b"content-type") in _JSON_CONTENT_TYPE
            and head.headers.get(b"accept") in ACCEPT_JSON
            and self.app.recorder.tracer is None
        )

    async def _answer(self, head: Head, request: RequestContext, read_body: ReadBody) -> Response:
        operation, threads = self.operation, self.app.threads
        media = self.reader.read_media(head)
        body = await read_body()
        fields = await self.reader.read(media, body, head.query, request.deadline)
        name, accept = MODEL.value(fields), head.headers.get(b"accept")
        model, given, result = await infer(
            lambda: self.app.repository.get(name),
            lambda model: operation.prepare(
                fields,
                model,
                operation.choose_format(accept, fields, model.card),
                request.deadline,
            ),
            request,
            threads,
            operation.follow_up,
        )
        form = operation.choose_format(accept, fields, model.card)
        scalars, outputs = operation.finish(model.card, given, result, form.media)
        response = await write_response(
            model.card,
            form,
            scalars,
            outputs,
            result,
            failures=operation.failures(model.card, given, result, self.count_failures(model)),
            threads=threads,
            deadline=request.deadline,
        )
        operation.note(model, given, outputs, (request.identity,), self.app.recorder.metrics)
        return response


async def receive_small(
    app: AppContext, headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int
) -> bytes | bytearray:
    """Read the body of a route that is no `Endpoint`, as theirs are read.

    Raises:
        BodyTimeout: it did not arrive before the request's deadline.
        ClientGone, and what `receive_body` raises.
    """
    request = app.watcher.begin(receive, app.settings.request_timeout_seconds)
    timeout = headers.get(b"x-timeout-seconds")
    if timeout is not None:
        request.shorten(read_timeout(timeout))
    try:
        return await receive_decompressed(
            headers,
            partial(receive_body, headers, receive, max_bytes, app.receive_budget),
            max_bytes,
            app.threads,
            request,
            app.receive_budget,
        )
    except asyncio.CancelledError:
        if request.cancel_reason is not CancelReason.LATE:
            raise
        request.resume()
        raise _late() from None
    finally:
        request.end()
        app.receive_budget.release(request.held_bytes)


def _answer_failure(
    reason: BaseException, request: RequestContext, identity: str
) -> Response | None:
    """Turn what ended a request into its answer; None where its client is gone."""
    if isinstance(reason, ClientGone):
        return None
    if isinstance(reason, Exception):
        return error_response(reason, identity)
    if request.cancel_reason is None:
        raise reason
    request.resume()
    if request.cancel_reason is CancelReason.GONE:
        return None
    return error_response(_late(), identity)


def _late() -> BodyTimeout:
    return BodyTimeout("body: it did not arrive before the request's deadline")
