"""What all that computes has in common: one request from its head to its answer.

No framework stands between them and the server, so that a one-row request costs little more than
its HTTP exchange. They are ASGI applications, and `service.express` calls them without even that.
`service.routes.documentation` describes them in OpenAPI.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from starlette.types import Receive, Scope, Send

from service.codec.image import MAX_SCALE, is_picture
from service.codec.json import read_object
from service.codec.media import JSON, NPY, NPZ, PNG, negotiate, read_content_type
from service.codec.npy import read_npy, read_npz
from service.codec.parameters import (
    check_known,
    read_flag,
    read_integer,
    read_name,
    read_query,
)
from service.codec.tensors import Array
from service.errors import (
    BodyTimeout,
    InvalidParameter,
    NotReady,
    ServiceError,
    problem,
    unexpected,
)
from service.guard import Guard
from service.model import Answer, ModelCard, Repository, RowQueue, ServedModel
from service.routes.answers import PLAIN, Form, server_timing, write_answer, write_plain
from service.routes.clients import ClientWatch, Ending, Visit, WatchedVisit
from service.routes.exchange import (
    ClientGone,
    Head,
    Reply,
    read_timeout,
    receive_body,
    request_id,
    respond,
)
from service.routes.register import Register
from service.routes.solves import EVALUATIONS, tell_solves
from service.settings import Settings
from service.tracing import Stages

# What is counted when nobody is there to read a status; nginx made the number known.
_CLIENT_GONE = 499
_PLAIN_ACCEPT = (None, b"*/*", b"application/json")

ReadBody = Callable[[], Awaitable[bytes | bytearray]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Desk:
    """What all operations share."""

    settings: Settings
    repository: Repository
    register: Register
    clients: ClientWatch
    guard: Guard | None = None


class Order(NamedTuple):
    """A checked request: the rows for the engine and what else its answer will say.

    wants_log_det: whether log_det, or a log_prob made of it, will be in the answer.
    """

    rows: Array
    context: Array | None
    head: dict[str, Any]
    wants_log_det: bool = True


class Picture(NamedTuple):
    """A body that is a picture, not decoded yet: the model says what size it must have."""

    media: str
    body: bytes | bytearray


class Endpoint(ABC):
    """What computes, as an ASGI application: each request is answered and counted once, here.

    name: in the metrics.
    """

    name: ClassVar[str]

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._settings = desk.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request as an ASGI application."""
        visit = self._desk.clients.enter(receive, self._settings.request_timeout_seconds)
        head = Head(scope["path"], scope["query_string"], dict(scope["headers"]))
        reply = await self.serve(head, visit, partial(self._receive_body, head, visit))
        if reply is not None:
            await respond(send, *reply)

    async def serve(self, head: Head, visit: Visit, read_body: ReadBody) -> Reply | None:
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
            if self._desk.guard is not None:
                self._desk.guard.check(head.headers)
            patience = head.headers.get(b"x-timeout-seconds")
            if patience is not None:
                visit.shorten(read_timeout(patience))
            reply = await self._answer(head, visit, read_body)
            reply.headers.append((b"x-request-id", identity.encode()))
        except (Exception, asyncio.CancelledError) as reason:
            reply = _refuse(reason, visit, identity)
        finally:
            visit.end()
        self._desk.register.note(
            "POST",
            head.path,
            head.headers,
            request_id=identity,
            status=_CLIENT_GONE if reply is None else reply.status,
            seconds=visit.age(),
            op=self.name,
            model=visit.model,
            rows=visit.rows,
            stages=visit.stages,
        )
        return reply

    async def _receive_body(self, head: Head, visit: WatchedVisit) -> bytes | bytearray:
        body = await receive_body(head.headers, visit.receive, self._settings.max_body_bytes)
        visit.body_is_read()
        return body

    @abstractmethod
    def _route(self, path: str) -> str:
        """Give the template of a path."""

    @abstractmethod
    async def _answer(self, head: Head, visit: Visit, read_body: ReadBody) -> Reply:
        """Read a request, compute its answer and write it."""


class Operation(Endpoint):
    """One of the four operations.

    name: of the path and in the metrics. fields: what a request may name. tensor: the field that a
    binary body is. bodies: the media types taken. draws: whether the answer can be a picture.
    """

    fields: ClassVar[tuple[str, ...]]
    tensor: ClassVar[str | None]
    bodies: ClassVar[tuple[str, ...]]
    draws: ClassVar[bool]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._in_query = tuple(name for name in self.fields if name != self.tensor)

    def _route(self, path: str) -> str:
        return f"/{self.name}"

    async def _answer(self, head: Head, visit: Visit, read_body: ReadBody) -> Reply:
        query = head.query
        media = read_content_type(head.headers.get(b"content-type"), self.bodies)
        body = await read_body()
        if media == JSON and not query:
            fields = self._read_json(body)
        else:
            fields = await self._read_fields(media, body, query)
        name = read_name(fields.get("model"), "model")
        served = self._desk.repository.get(name)
        while True:
            try:
                return await self._compute(fields, served, head, visit)
            except NotReady:
                # It was replaced after it was found and before it took the rows.
                successor = self._desk.repository.get(name)
                if successor is served:
                    raise
                served = successor

    async def _compute(
        self, fields: dict[str, Any], served: ServedModel, request: Head, visit: Visit
    ) -> Reply:
        card = served.card
        visit.model = card.name
        form = self._choose_form(request.headers.get(b"accept"), fields, card)
        with_evaluations = read_flag(fields.get(EVALUATIONS, False), EVALUATIONS)
        order = await self._prepare(fields, card, form)
        visit.rows = len(order.rows)
        queue = self._queue(served, order)
        if visit.stages is not None:
            queue = visit.stages.watch(queue)
        answer = await queue.submit(order.rows, order.context, visit.deadline)
        outputs, head = self._outputs(card, order, answer), order.head
        if answer.solves is not None or with_evaluations:
            extra = tell_solves(answer, outputs, form.media, with_evaluations=with_evaluations)
            head = {**head, **extra}
        if form is PLAIN:
            reply = write_plain(card, head, outputs)
        else:
            reply = await write_answer(card, form, head, outputs)
        reply.headers.append(server_timing(answer))
        return reply

    async def _read_fields(
        self, media: str, body: bytes | bytearray, query: bytes
    ) -> dict[str, Any]:
        """Collect the fields of body and query; each stands in one of them only."""
        content: dict[str, Any]
        if media == JSON:
            content = self._read_json(body)
        elif media == NPZ:
            members = tuple(filter(None, (self.tensor, "context")))
            limit = self._settings.max_body_bytes
            content = await asyncio.to_thread(read_npz, body, members, limit)
        elif self.tensor is not None:
            content = {
                self.tensor: read_npy(body, self.tensor) if media == NPY else Picture(media, body)
            }
        if not query:
            return content
        fields = read_query(query, self._in_query)
        for name in fields.keys() & content.keys():
            raise InvalidParameter(
                f"{name}: given in the query string and in the body, expected one of them",
                at=f"/{name}",
            )
        return fields | content

    def _read_json(self, body: bytes | bytearray) -> dict[str, Any]:
        if not body and self.tensor is None:
            # `curl -X POST "/sample?num_samples=4"` has no body at all.
            return {}
        fields = read_object(body)
        check_known(fields, self.fields)
        return fields

    def _choose_form(self, accept: bytes | None, fields: dict[str, Any], card: ModelCard) -> Form:
        if accept in _PLAIN_ACCEPT and "scale" not in fields:
            return PLAIN
        offers: tuple[str, ...] = (JSON, NPY, NPZ)
        if self.draws and is_picture(card.event_shape, card.num_levels):
            offers = (*offers, PNG)
        media = negotiate(accept, offers)
        scale = fields.get("scale")
        if scale is None:
            return Form(media)
        if media != PNG:
            raise InvalidParameter(
                "scale: only pictures have one, send Accept: image/png", at="/scale"
            )
        return Form(media, read_integer(scale, "scale", 1, MAX_SCALE))

    @abstractmethod
    async def _prepare(self, fields: dict[str, Any], card: ModelCard, form: Form) -> Order:
        """Check the fields against the model and make the rows for its engine."""

    @abstractmethod
    def _queue(self, served: ServedModel, order: Order) -> RowQueue:
        """Which of the model's queues computes this operation."""

    @abstractmethod
    def _outputs(self, card: ModelCard, order: Order, answer: Answer) -> dict[str, Array]:
        """Name what the engine gave back; the first is the answer of `application/x-npy`."""


def _refuse(reason: BaseException, visit: Visit, identity: str) -> Reply | None:
    # Not where it was caught: an error there would be part of a cycle, its traceback holds that
    # frame, and the body would stay in memory until the next collection.
    error = _explain(reason, visit, identity)
    if error is None:
        return None
    body, headers = problem(error, identity)
    return Reply(error.status, headers, body)


def _explain(reason: BaseException, visit: Visit, identity: str) -> ServiceError | None:
    """Turn what ended a request into what its client is told; None where it is gone."""
    if isinstance(reason, ServiceError):
        return reason
    if isinstance(reason, ClientGone):
        return None
    if isinstance(reason, asyncio.CancelledError):
        if visit.ending is None:
            raise reason
        visit.resume()
        if visit.ending is Ending.GONE:
            return None
        return BodyTimeout("body: it did not arrive before the request's deadline")
    _log.error("unexpected error in request %s", identity, exc_info=reason)
    return unexpected(identity)
