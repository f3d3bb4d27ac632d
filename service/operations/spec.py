"""What the four operations have in common: from fields to rows, and from outputs to bytes."""

from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, ClassVar, NamedTuple

from service.codec.image import MAX_SCALE, is_picture
from service.codec.json import parse_object, read_object
from service.codec.json_slices import is_large, parse_large
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
from service.contracts import InferenceResult, ModelCard, RowQueue, ServedModel
from service.errors import BadDtype, InvalidParameter, NotReady, ServiceError
from service.operations.response import PLAIN, ResponseFormat, server_timing, write_answer
from service.operations.solver_stats import EVALUATIONS, tell_solves
from service.transport.asgi import AppContext, Endpoint, ReadBody, submit
from service.transport.disconnect import RequestContext
from service.transport.request import Head, Reply

PLAIN_ACCEPT = (None, b"*/*", b"application/json")


class ModelInput(NamedTuple):
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
    order: ModelInput
    with_evaluations: bool


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

    def __init__(self, desk: AppContext) -> None:
        super().__init__(desk)
        self._in_query = tuple(name for name in self.fields if name != self.tensor)

    def _route(self, path: str) -> str:
        return f"/{self.name}"

    async def _answer(self, head: Head, visit: RequestContext, read_body: ReadBody) -> Reply:
        query = head.query
        media = read_content_type(head.headers.get(b"content-type"), self.bodies)
        body = await read_body()
        if media == JSON and not query:
            fields = await self._read_json_aside(body, visit)
        else:
            fields = await self._read_fields(media, body, query, visit)
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
        self, fields: dict[str, Any], served: ServedModel, request: Head, visit: RequestContext
    ) -> Reply:
        card = served.card
        visit.model = card.name
        form = self._choose_form(request.headers.get(b"accept"), fields, card)
        with_evaluations = wants_evaluations(fields)
        order = self._order(fields, served, form, visit.deadline)
        if not isinstance(order, ModelInput):
            order = await order
        visit.rows = len(order.rows)
        answer = await submit(
            self._queue(served, order.wants_log_det), order.rows, order.context, visit
        )
        head, outputs = self._result(Job(served, order, with_evaluations), answer, form.media)
        reply = await write_answer(
            card, form, head, outputs, threads=self._desk.threads, deadline=visit.deadline
        )
        reply.headers.append(server_timing(answer))
        return reply

    def _result(
        self, job: Job, answer: InferenceResult, media: str
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Make the scalars and the tensors of an answer."""
        outputs, head = self._outputs(job.served.card, job.order, answer), job.order.head
        if answer.solves is not None or job.with_evaluations:
            extra = tell_solves(answer, outputs, media, with_evaluations=job.with_evaluations)
            head = {**head, **extra}
        return head, outputs

    async def _read_fields(
        self, media: str, body: bytes | bytearray, query: bytes, visit: RequestContext
    ) -> dict[str, Any]:
        """Collect the fields of body and query; each stands in one of them only."""
        content: dict[str, Any]
        if media == JSON:
            content = await self._read_json_aside(body, visit)
        elif media == NPZ:
            members = tuple(filter(None, (self.tensor, "context")))
            limit = self._settings.max_body_bytes
            content = await self._desk.threads.run(visit.deadline, read_npz, body, members, limit)
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

    async def _read_json_aside(
        self, body: bytes | bytearray, visit: RequestContext
    ) -> dict[str, Any]:
        if not is_large(body):
            return self._read_json(body)
        max_rows = self._settings.max_request_rows
        fields = await self._desk.threads.run(visit.deadline, parse_large, body, max_rows)
        check_known(fields, self.fields)
        return fields

    def _read_json(self, body: bytes | bytearray) -> dict[str, Any]:
        if not body and self.tensor is None:
            # `curl -X POST "/sample?num_samples=4"` has no body at all.
            return {}
        try:
            fields = read_object(body)
        except BadDtype as error:
            error.name_columns(self._find_columns(body))
            raise
        check_known(fields, self.fields)
        return fields

    def _find_columns(self, body: bytes | bytearray) -> tuple[str, ...] | None:
        """Names of the columns of the model of a body that was refused before it was looked for."""
        try:
            name = read_name(parse_object(body).get("model"), "model")
            return self._desk.repository.get(name).card.feature_names
        except ServiceError:
            return None

    def _choose_form(
        self, accept: bytes | None, fields: dict[str, Any], card: ModelCard
    ) -> ResponseFormat:
        if accept in PLAIN_ACCEPT and "scale" not in fields:
            return PLAIN
        offers: tuple[str, ...] = (JSON, NPY, NPZ)
        if self.draws and is_picture(card.event_shape, card.num_levels):
            offers = (*offers, PNG)
        media = negotiate(accept, offers)
        scale = fields.get("scale")
        if scale is None:
            return ResponseFormat(media)
        if media != PNG:
            raise InvalidParameter(
                "scale: only pictures have one, send Accept: image/png", at="/scale"
            )
        return ResponseFormat(media, read_integer(scale, "scale", 1, MAX_SCALE))

    @abstractmethod
    def _order(
        self,
        fields: dict[str, Any],
        served: ServedModel,
        form: ResponseFormat,
        deadline: float,
        rows: Array | None = None,
    ) -> ModelInput | Coroutine[Any, Any, ModelInput]:
        """Check the fields against the model and make the rows for its engine.

        A coroutine does so where it takes long, once all that can be refused was. Where `rows` are
        given, the tensor was read.
        """

    def _event_shape(self, card: ModelCard) -> tuple[int, ...]:
        """Give the shape of one row of the tensor."""
        return card.event_shape

    @abstractmethod
    def _queue(self, served: ServedModel, wants_log_det: bool) -> RowQueue:
        """Which of the model's queues computes this operation."""

    @abstractmethod
    def _outputs(
        self, card: ModelCard, order: ModelInput, answer: InferenceResult
    ) -> dict[str, Array]:
        """Name what the engine gave back; the first is the answer of `application/x-npy`."""


def wants_evaluations(fields: dict[str, Any]) -> bool:
    """Whether the client asks what its rows cost."""
    return read_flag(fields.get(EVALUATIONS, False), EVALUATIONS)
