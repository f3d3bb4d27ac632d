"""POST /log_prob, /encode, /decode and /sample: bytes to rows, rows to a queue, answer to bytes.

Plain ASGI endpoints: no framework stands between them and the server, so that a one-row request
costs little more than its HTTP exchange. `service.routes.documentation` describes them in OpenAPI.
"""

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from starlette.types import Receive, Scope, Send

from models.noise import MAX_SEED, base_noise, draw_seed
from service.codec.context import read_context
from service.codec.image import MAX_SCALE, is_picture, read_image
from service.codec.json import read_object
from service.codec.media import JPEG, JSON, NPY, NPZ, PNG, negotiate, read_content_type
from service.codec.npy import read_npy, read_npz
from service.codec.parameters import (
    check_known,
    read_integer,
    read_name,
    read_number,
    read_query,
)
from service.codec.tensors import Array, cast, read_rows
from service.errors import (
    BodyTimeout,
    InvalidParameter,
    MissingField,
    ServiceError,
    TooLarge,
    UnsupportedMediaType,
    problem,
    unexpected,
)
from service.model import Answer, ModelCard, Repository, RowQueue, ServedModel
from service.routes.answers import PLAIN, Form, check_answer_size, server_timing, write_answer
from service.routes.clients import ClientWatch, Ending, Visit
from service.routes.exchange import ClientGone, Headers, read_body, request_id, respond
from service.routes.register import Register
from service.settings import Settings

MAX_TEMPERATURE = 1000.0
MAX_SAMPLES = 2**63 - 1

# What is counted when nobody is there to read a status; nginx made the number known.
_CLIENT_GONE = 499
# Drawing more numbers than this takes longer than a hop to a thread and back.
_DRAWN_INLINE = 32_768
_LOG_TWO_PI = math.log(2 * math.pi)
_PLAIN_ACCEPT = (None, b"*/*", b"application/json")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Desk:
    """What all operations share."""

    settings: Settings
    repository: Repository
    register: Register
    clients: ClientWatch


@dataclass(frozen=True, slots=True)
class Order:
    """A checked request: the rows for the engine and what else its answer will say."""

    rows: Array
    context: Array | None
    head: dict[str, Any]


class Operation(ABC):
    """One operation as an ASGI application.

    name: of the path and in the metrics. fields: what a request may name. tensor: the field that a
    binary body is. bodies: the media types taken. draws: whether the answer can be a picture.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    tensor: ClassVar[str | None]
    bodies: ClassVar[tuple[str, ...]]
    draws: ClassVar[bool]

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._settings = desk.settings
        self._in_query = tuple(name for name in self.fields if name != self.tensor)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever happens, it is answered and counted once, here."""
        headers = dict(scope["headers"])
        identity = request_id(headers)
        visit = self._desk.clients.enter(receive, self._settings.request_timeout_seconds)
        status = 200
        try:
            answer_headers, body = await self._answer(scope, headers, visit)
            answer_headers.append((b"x-request-id", identity.encode()))
        except (Exception, asyncio.CancelledError) as reason:
            error = _explain(reason, visit, identity)
            status = _CLIENT_GONE if error is None else error.status
            if error is not None:
                body, answer_headers = problem(error, identity)
        visit.end()
        if status != _CLIENT_GONE:
            await respond(send, status, answer_headers, body)
        self._desk.register.note(
            scope,
            headers,
            request_id=identity,
            status=status,
            seconds=visit.age(),
            op=self.name,
            model=visit.model,
            rows=visit.rows,
        )

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], visit: Visit
    ) -> tuple[Headers, bytes]:
        media = read_content_type(headers.get(b"content-type"), self.bodies)
        body = await read_body(headers, visit.receive, self._settings.max_body_bytes)
        visit.body_is_read()
        fields = await self._read_fields(media, body, scope["query_string"])
        served = self._desk.repository.get(read_name(fields.get("model"), "model"))
        card = served.card
        visit.model = card.name
        form = self._choose_form(headers.get(b"accept"), fields, card)
        order = await self._prepare(fields, card, form)
        visit.rows = len(order.rows)
        answer = await self._queue(served).submit(order.rows, order.context, visit.deadline)
        outputs = self._outputs(card, order, answer)
        answer_headers, answer_body = await write_answer(card, form, order.head, outputs)
        answer_headers.append(server_timing(answer))
        return answer_headers, answer_body

    async def _read_fields(
        self, media: str, body: bytes | bytearray, query: bytes
    ) -> dict[str, Any]:
        """Collect the fields of body and query; each stands in one of them only."""
        content: dict[str, Any]
        if media == JSON:
            # `curl -X POST "/sample?num_samples=4"` has no body at all.
            content = {} if not body and self.tensor is None else read_object(body)
            check_known(content, self.fields)
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
    def _queue(self, served: ServedModel) -> RowQueue:
        """Which of the model's two queues computes this operation."""

    @abstractmethod
    def _outputs(self, card: ModelCard, order: Order, answer: Answer) -> dict[str, Array]:
        """Name what the engine gave back; the first is the answer of `application/x-npy`."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A body that is a picture, not decoded yet: the model says what size it must have."""

    media: str
    body: bytes | bytearray


class _Map(Operation):
    """An operation on rows that the client sends."""

    tensor: ClassVar[str]

    async def _prepare(self, fields: dict[str, Any], card: ModelCard, form: Form) -> Order:
        settings, dtype = self._settings, card.numpy_dtype
        value = fields.get(self.tensor)
        if value is None:
            raise MissingField(f"{self.tensor}: expected the rows", at=f"/{self.tensor}")
        if isinstance(value, Picture):
            value = await _decode_picture(value, card)
        shape = self._event_shape(card)
        rows = read_rows(value, self.tensor, shape, dtype=dtype, max_rows=settings.max_request_rows)
        context = read_context(
            fields.get("context"), card.context_shape, card.num_classes, dtype=dtype, rows=len(rows)
        )
        check_answer_size(card, form, len(rows), self._width(card), settings.max_response_bytes)
        return Order(rows, context, {})

    def _event_shape(self, card: ModelCard) -> tuple[int, ...]:
        return card.event_shape

    def _width(self, card: ModelCard) -> int:
        return card.features + 1


class LogProb(_Map):
    """log_prob(x) = log N(z; 0, I) + log_det, in nats; bits per dimension beside it for pixels."""

    name = "log_prob"
    fields = ("model", "x", "context")
    tensor = "x"
    bodies = (JSON, NPY, NPZ, PNG, JPEG)
    draws = False

    def _queue(self, served: ServedModel) -> RowQueue:
        return served.encode

    def _outputs(self, card: ModelCard, order: Order, answer: Answer) -> dict[str, Array]:
        log_prob = log_density(answer.value, answer.log_det)
        if card.num_levels is None:
            return {"log_prob": log_prob}
        return {"log_prob": log_prob, "bits_per_dim": -log_prob / (card.features * math.log(2))}

    def _width(self, card: ModelCard) -> int:
        return 2


class Encode(_Map):
    """z = f(x) and log |det dz/dx|."""

    name = "encode"
    fields = ("model", "x", "context")
    tensor = "x"
    bodies = (JSON, NPY, NPZ, PNG, JPEG)
    draws = False

    def _queue(self, served: ServedModel) -> RowQueue:
        return served.encode

    def _outputs(self, card: ModelCard, order: Order, answer: Answer) -> dict[str, Array]:
        return {"z": answer.value, "log_det": answer.log_det}


class Decode(_Map):
    """x = f^-1(z) and log |det dx/dz|."""

    name = "decode"
    fields = ("model", "z", "context", "scale")
    tensor = "z"
    bodies = (JSON, NPY, NPZ)
    draws = True

    def _queue(self, served: ServedModel) -> RowQueue:
        return served.decode

    def _outputs(self, card: ModelCard, order: Order, answer: Answer) -> dict[str, Array]:
        return {"x": answer.value, "log_det": answer.log_det}

    def _event_shape(self, card: ModelCard) -> tuple[int, ...]:
        return (card.features,)


class Sample(Operation):
    """x = f^-1(z) with z ~ N(0, T^2 I) drawn here from the seed; log_prob is that of T = 1.

    A sample depends on its seed, its row and its context alone: not on what else is in the batch.
    """

    name = "sample"
    fields = ("model", "num_samples", "seed", "temperature", "context", "scale")
    tensor = None
    bodies = (JSON, NPZ)
    draws = True

    async def _prepare(self, fields: dict[str, Any], card: ModelCard, form: Form) -> Order:
        rows, seed, temperature = _read_draw(fields)
        limit = self._settings.max_request_rows
        if rows > limit:
            raise TooLarge(
                f"num_samples: expected at most {limit} a request, got {rows}", at="/num_samples"
            )
        width, max_bytes = card.features + 1, self._settings.max_response_bytes
        check_answer_size(card, form, rows, width, max_bytes)
        dtype = card.numpy_dtype
        context = read_context(
            fields.get("context"), card.context_shape, card.num_classes, dtype=dtype, rows=rows
        )
        draw = partial(base_noise, rows, card.features, seed=seed, temperature=temperature)
        is_small = rows * card.features <= _DRAWN_INLINE
        noise = draw() if is_small else await asyncio.to_thread(draw)
        return Order(noise.astype(dtype), context, {"seed": seed})

    def _queue(self, served: ServedModel) -> RowQueue:
        return served.decode

    def _outputs(self, card: ModelCard, order: Order, answer: Answer) -> dict[str, Array]:
        return {"x": answer.value, "log_prob": log_density(order.rows, -answer.log_det)}


def log_density(z: Array, log_det: Array) -> Array:
    """log N(z; 0, I) + log_det in nats, summed in float64.   z (B, D), log_det (B,) -> (B,).

    A row's sum does not depend on the other rows: each is a dot product of its own.
    """
    energy = np.vecdot(z, z, dtype=np.float64)
    return cast(log_det - 0.5 * (energy + z.shape[1] * _LOG_TWO_PI), log_det.dtype)


async def _decode_picture(picture: Picture, card: ModelCard) -> Array:
    levels = card.num_levels
    if levels is None or not is_picture(card.event_shape, levels):
        raise UnsupportedMediaType(
            f"Content-Type: model {card.name} takes no pictures, its rows have shape "
            f"{card.event_shape}"
        )
    return await asyncio.to_thread(
        read_image, picture.body, picture.media, card.event_shape, levels
    )


def _read_draw(fields: dict[str, Any]) -> tuple[int, int, float]:
    """Read num_samples (1), seed (a new one) and temperature (1); null is as good as absent."""
    rows, seed, temperature = (fields.get(name) for name in ("num_samples", "seed", "temperature"))
    return (
        1 if rows is None else read_integer(rows, "num_samples", 1, MAX_SAMPLES),
        draw_seed() if seed is None else read_integer(seed, "seed", 0, MAX_SEED),
        1.0 if temperature is None else read_number(temperature, "temperature", 0, MAX_TEMPERATURE),
    )


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
