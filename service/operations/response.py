"""The one place where answers are written: heads, and bodies as JSON, npy, npz or PNG.

outputs ──FORMATS──> body ──> Response, its headers in pairs
└─> RawResponse, its headers as HTTP/1.1 has them
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from service.codec.heat_map import write_heat_map
from service.codec.image import grid, is_picture, write_png
from service.codec.json import Explain, write_object, write_rows
from service.codec.media import JSON, NPY, NPZ, PNG
from service.codec.npy import write_npy, write_npz
from service.codec.tensors import Array, non_finite_rows
from service.contracts import InferenceResult, ModelCard
from service.errors import ServiceError, TooLarge
from service.operations.failures import STATUS, FailureFinder
from service.operations.thread_pool import RequestThreadPool
from service.problem import problem, unexpected

Headers = list[tuple[bytes, bytes]]
# The scalars of an answer, and its tensors; the first tensor is the answer of a format of one.
Scalars = dict[str, Any]
Tensors = dict[str, Array]

# The longest that orjson writes of a number with its comma: -1.1754944e-38 and
# -2.2250738585072014e-308.
_JSON_BYTES = {4: 15, 8: 25}
_TIMING = b"queue;dur=%.3f, compute;dur=%.3f"
# Of answers in JSON that were computed together: what is not said yet is each one's own.
_JSON_HEADERS = (
    b"content-type: application/json\r\ncontent-length: %%d\r\n"
    b"server-timing: " + _TIMING + b"\r\nx-request-id: %%b\r\n"
)

# The output that pictures show as a heat map, and the scalar that says what its full colour is.
GRADIENT = "gradient"
HEAT_MAP_SCALE = "heat-map-scale"
# Of rows that failed, in a header.
_MOST_LISTED = 64
# Of a scalar in a header: proxies pass 4 KB of all headers on.
_MOST_HEADER_BYTES = 2048
# Scalars that are lists: no header takes so much.
_TOO_LONG = frozenset(("explanation", "explained_nats", "trajectory_at"))

_log = logging.getLogger(__name__)


class RawResponse(NamedTuple):
    """A whole answer, its headers in lines as HTTP/1.1 has them."""

    status: int
    header_lines: bytes
    body: bytes


class Response(NamedTuple):
    """A whole answer, its length among its headers."""

    status: int
    headers: Headers
    body: bytes

    def raw(self) -> RawResponse:
        """Write the headers."""
        return RawResponse(self.status, write_headers(self.headers), self.body)


@dataclass(frozen=True, slots=True)
class Format:
    """A media type that answers are written in.

    write: (outputs, scalars, card, scale) -> body.
    description: for OpenAPI.
    is_slow: whether it is written in a thread.
    is_whole: whether it holds all outputs, not the first alone.
    is_image: whether only models over pixels have it, where the operation gives pictures.
    """

    write: Callable[[Tensors, Scalars, ModelCard, int], bytes]
    description: str
    is_slow: bool = False
    is_whole: bool = False
    is_image: bool = False


def _as_json(outputs: Tensors, scalars: Scalars, card: ModelCard, _: int) -> bytes:
    return write_json(card, scalars, outputs)


def _as_npy(outputs: Tensors, _: Scalars, card: ModelCard, scale: int) -> bytes:
    return write_npy(next(iter(outputs.values())))


def _as_npz(outputs: Tensors, scalars: Scalars, card: ModelCard, _: int) -> bytes:
    return write_npz(outputs | {name: np.array(value) for name, value in scalars.items()})


def _as_png(outputs: Tensors, scalars: Scalars, card: ModelCard, scale: int) -> bytes:
    name, values = next(iter(outputs.items()))
    if name == GRADIENT:
        return write_heat_map(values, float(scalars[HEAT_MAP_SCALE]), scale)
    return write_png(values, card.num_levels or 0, scale)


# In the order in which they are offered: the first is the answer of whoever takes anything.
FORMATS: dict[str, Format] = {
    JSON: Format(_as_json, "all outputs by name", is_whole=True),
    NPY: Format(_as_npy, "the first output; model, version and seed as X- headers"),
    NPZ: Format(_as_npz, "all outputs by name", is_slow=True, is_whole=True),
    PNG: Format(
        _as_png,
        "one picture, or a near-square grid; models over pixels only",
        is_slow=True,
        is_image=True,
    ),
}


class ResponseFormat(NamedTuple):
    """The format of one answer: its media type and, for pictures, the size of a pixel."""

    media: str
    scale: int = 1


AS_JSON = ResponseFormat(JSON)


def offers(card: ModelCard, *, gives_images: bool) -> tuple[str, ...]:
    """The media types that an answer of this model can have."""
    has_images = gives_images and is_picture(card.event_shape, card.num_levels)
    return tuple(media for media, each in FORMATS.items() if has_images or not each.is_image)


def check_response_size(
    card: ModelCard, form: ResponseFormat, rows: int, values: int, max_bytes: int
) -> None:
    """Refuse an answer of `values` numbers a row that would be too large, before it is computed.

    Raises:
        TooLarge: saying how many rows fit.
    """
    if form is AS_JSON and rows * values * _JSON_BYTES[8] <= max_bytes:
        return
    itemsize = card.numpy_dtype.itemsize
    bytes_per_row = values * (_JSON_BYTES[itemsize] if form.media == JSON else itemsize)
    if form.media == PNG:
        columns, lines = grid(rows)
        tile = card.features * form.scale**2
        bytes_per_row = max(bytes_per_row, -(-columns * lines * tile // rows))
    if rows * bytes_per_row > max_bytes:
        raise TooLarge(
            f"answer: expected at most {max_bytes} bytes, {rows} rows take up to "
            f"{rows * bytes_per_row} as {form.media}; ask for {max_bytes // bytes_per_row} at most"
        )


async def write_response(
    card: ModelCard,
    form: ResponseFormat,
    scalars: Scalars,
    outputs: Tensors,
    result: InferenceResult,
    *,
    failures: FailureFinder,
    threads: RequestThreadPool,
    deadline: float,
) -> Response:
    """Write the outputs in the format asked for.

    JSON has the scalars inside, every other format as X- headers.

    Args:
        card: of the model that answered.
        form: the format.
        scalars, outputs: of the answer.
        result: what the engine gave.
        failures: finds the rows that failed.
        threads: for formats that take long.
        deadline: a `time.monotonic()` value.

    Raises:
        Overloaded, DeadlineExceeded: as `RequestThreadPool.run`.
    """
    if form.media == JSON:
        body = write_json(card, scalars, outputs, failures.explain, failures.null_rows)
        return Response(200, [*content_headers(JSON, body), server_timing(result)], body)
    written = FORMATS[form.media]
    codes = failures.find(outputs)
    failed = np.flatnonzero(codes)
    if len(failed) and written.is_whole:
        outputs = {**outputs, STATUS: codes.astype(np.int64)}
    if written.is_slow:
        body = await threads.run(deadline, written.write, outputs, scalars, card, form.scale)
    else:
        body = written.write(outputs, scalars, card, form.scale)
    headers = content_headers(form.media, body)
    headers += _scalar_headers(card, scalars, outputs, is_whole=written.is_whole)
    headers += failure_headers(failed)
    headers.append(server_timing(result))
    return Response(200, headers, body)


def failure_headers(failed: Array) -> Headers:
    """Say beside bytes which rows failed; none where all have their numbers."""
    if not len(failed):
        return []
    rows = ",".join(map(str, failed[:_MOST_LISTED].tolist()))
    return [(b"x-failures", b"%d" % len(failed)), (b"x-failed-rows", rows.encode())]


def write_json(
    card: ModelCard,
    scalars: Scalars,
    outputs: Tensors,
    explain: Explain | None = None,
    null_rows: Collection[int] = (),
) -> bytes:
    """Write the JSON body of one answer; see `write_object`."""
    head = {"model": card.name, "version": card.version, **scalars}
    return write_object(head, outputs, explain, null_rows)


def write_json_rows(
    card: ModelCard,
    scalars: Sequence[Scalars],
    outputs: Tensors,
    explain: Callable[[int], Explain] | None = None,
) -> list[bytes]:
    """Write a JSON body for each row of the outputs: as `write_json` does where it is alone."""
    return write_rows({"model": card.name, "version": card.version}, scalars, outputs, explain)


def json_responses(
    bodies: Sequence[bytes], result: InferenceResult, identities: Sequence[str]
) -> list[RawResponse]:
    """Give JSON bodies the headers that `write_response` gives one, and those of every answer."""
    lines = _JSON_HEADERS % _milliseconds(result)
    return [
        RawResponse(200, lines % (len(body), identity.encode()), body)
        for body, identity in zip(bodies, identities, strict=True)
    ]


def error_response(reason: Exception, identity: str) -> Response:
    """Answer a request that an exception ended; one that is no `ServiceError` is logged."""
    # Not where it was caught: an error there would be part of a cycle, its traceback holds that
    # frame, and the body would stay in memory until the next collection.
    if not isinstance(reason, ServiceError):
        _log.error("unexpected error in request %s", identity, exc_info=reason)
        reason = unexpected(identity)
    body, headers = problem(reason, identity)
    return Response(reason.status, headers, body)


def write_headers(headers: Headers) -> bytes:
    """Write a line for each header."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


def content_headers(media: str, body: bytes) -> Headers:
    """The headers that say what a body is."""
    return [(b"content-type", media.encode()), (b"content-length", b"%d" % len(body))]


def server_timing(result: InferenceResult) -> tuple[bytes, bytes]:
    """How long the rows waited and were computed, in milliseconds (W3C Server Timing)."""
    return b"server-timing", _TIMING % _milliseconds(result)


def _milliseconds(result: InferenceResult) -> tuple[float, float]:
    return 1e3 * result.queue_seconds, 1e3 * result.compute_seconds


def _scalar_headers(
    card: ModelCard, scalars: Scalars, outputs: Tensors, *, is_whole: bool
) -> Headers:
    shown = outputs.values() if is_whole else list(outputs.values())[:1]
    bad = sorted({row for values in shown for row in non_finite_rows(values)})
    named = {"model": card.name, "model-version": card.version, **scalars}
    for name in _TOO_LONG & named.keys():
        del named[name]
    if bad:
        named["non-finite"] = len(bad)
    texts = {name: str(value).encode() for name, value in named.items()}
    return [
        (f"x-{name}".encode(), text)
        for name, text in texts.items()
        if len(text) <= _MOST_HEADER_BYTES
    ]
