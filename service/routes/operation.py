"""What the four operations have in common: from fields to rows, and from outputs to bytes."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

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
from service.errors import InvalidParameter, NotReady
from service.model import Answer, ModelCard, RowQueue, ServedModel, Slot
from service.routes.answers import (
    PLAIN,
    Form,
    plain_reply,
    server_timing,
    write_answer,
    write_plain,
    write_plain_rows,
)
from service.routes.clients import Visit
from service.routes.endpoint import Desk, Endpoint, ReadBody, submit
from service.routes.exchange import Head, Reply
from service.routes.solves import EVALUATIONS, tell_solves

_PLAIN_ACCEPT = (None, b"*/*", b"application/json")
_PLAIN_CONTENT_TYPE = (None, b"application/json")


class Order(NamedTuple):
    """A checked request: the rows for the engine and what else its answer will say.

    wants_log_det: whether log_det, or a log_prob made of it, will be in the answer.
    """

    rows: Array
    context: Array | None
    head: dict[str, Any]
    wants_log_det: bool = True


class Job(NamedTuple):
    """An order, and the model that it is for."""

    served: ServedModel
    order: Order
    with_evaluations: bool

    @property
    def kin(self) -> tuple[int, bool]:
        """Equal for jobs whose answers `Operation.reply_plainly` may write together."""
        return id(self.served), self.order.wants_log_det


class PlainVisit(Slot, Protocol):
    """A plain request from arrival to answer, as `service.routes.clients.Visit` is of others.

    arrived: `time.monotonic()` when it was there. model, rows: written here, for the count.
    """

    arrived: float
    model: str
    rows: int | None


class Picture(NamedTuple):
    """A body that is a picture, not decoded yet: the model says what size it must have."""

    media: str
    body: bytes | bytearray


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

    def is_plain(self, head: Head) -> bool:
        """Whether a request is JSON for JSON: all of its way but the engine's part is short then.

        It may go through `begin_plainly` and `reply_plainly`, which need no task.
        """
        return (
            not head.query
            and head.headers.get(b"content-type") in _PLAIN_CONTENT_TYPE
            and head.headers.get(b"accept") in _PLAIN_ACCEPT
            and self._desk.register.tracer is None
        )

    def begin_plainly(
        self, head: Head, body: bytes, visit: PlainVisit
    ) -> tuple[Job, Callable[[], None]] | None:
        """Read a plain request and let its rows wait for the engine; `visit` gets the answer.

        -> the job, and what drops it again; None where something on its way would take long after
        all, and `serve` must have it.

        Raises:
            ServiceError: it cannot be answered.
        """
        patience = min(self._admit(head), self._settings.request_timeout_seconds)
        fields = self._read_json(body)
        served = self._desk.repository.get(read_name(fields.get("model"), "model"))
        visit.model = served.card.name
        form = self._choose_form(None, fields, served.card)
        with_evaluations = _wants_evaluations(fields)
        order = self._order(fields, served.card, form)
        if not isinstance(order, Order):
            order.close()
            return None
        visit.rows = len(order.rows)
        queue = self._queue(served, order)
        leave = queue.enter(order.rows, order.context, visit.arrived + patience, visit)
        return Job(served, order, with_evaluations), leave

    def reply_plainly(self, finished: Sequence[tuple[Job, Answer]]) -> list[Reply]:
        """Answer jobs that are kin; those of one row are written in one go.

        Raises:
            InvalidParameter: one of them asked for what the model does not have.
        """
        rows = [pair for pair in finished if _is_one_row(*pair)]
        bodies = self._write_rows(rows) if rows else iter(())
        replies = []
        for job, answer in finished:
            card = job.served.card
            if _is_one_row(job, answer):
                reply = plain_reply(next(bodies))
            else:
                head, outputs = self._result(job, answer, JSON)
                reply = write_plain(card, head, outputs)
            reply.headers.append(server_timing(answer))
            replies.append(reply)
        return replies

    def _write_rows(self, finished: Sequence[tuple[Job, Answer]]) -> Iterator[bytes]:
        """Write answers of one row each: their outputs are computed as those of one request."""
        (served, order, _), _ = finished[0]
        rows, values, log_dets = zip(
            *((job.order.rows, answer.value, answer.log_det) for job, answer in finished),
            strict=True,
        )
        joint = order._replace(rows=np.concatenate(rows))
        answer = Answer(np.concatenate(values), np.concatenate(log_dets), 0.0, 0.0)
        outputs = self._outputs(served.card, joint, answer)
        return write_plain_rows(served.card, [job.order.head for job, _ in finished], outputs)

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
        with_evaluations = _wants_evaluations(fields)
        order = self._order(fields, card, form)
        if not isinstance(order, Order):
            order = await order
        visit.rows = len(order.rows)
        answer = await submit(self._queue(served, order), order.rows, order.context, visit)
        head, outputs = self._result(Job(served, order, with_evaluations), answer, form.media)
        reply = await write_answer(card, form, head, outputs)
        reply.headers.append(server_timing(answer))
        return reply

    def _result(
        self, job: Job, answer: Answer, media: str
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Make the scalars and the tensors of an answer."""
        outputs, head = self._outputs(job.served.card, job.order, answer), job.order.head
        if answer.solves is not None or job.with_evaluations:
            extra = tell_solves(answer, outputs, media, with_evaluations=job.with_evaluations)
            head = {**head, **extra}
        return head, outputs

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
    def _order(
        self, fields: dict[str, Any], card: ModelCard, form: Form
    ) -> Order | Coroutine[Any, Any, Order]:
        """Check the fields against the model and make the rows for its engine.

        A coroutine does so where it takes long.
        """

    @abstractmethod
    def _queue(self, served: ServedModel, order: Order) -> RowQueue:
        """Which of the model's queues computes this operation."""

    @abstractmethod
    def _outputs(self, card: ModelCard, order: Order, answer: Answer) -> dict[str, Array]:
        """Name what the engine gave back; the first is the answer of `application/x-npy`."""


def _wants_evaluations(fields: dict[str, Any]) -> bool:
    return read_flag(fields.get(EVALUATIONS, False), EVALUATIONS)


def _is_one_row(job: Job, answer: Answer) -> bool:
    """Whether an answer is one row and says nothing of how it was solved."""
    return len(answer.log_det) == 1 and answer.solves is None and not job.with_evaluations
