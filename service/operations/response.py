"""What goes back: outputs as JSON, npy, npz or a picture, and how large that may become."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.codec.image import grid, write_png
from service.codec.json import write_object, write_rows
from service.codec.media import JSON, NPY, NPZ, PNG
from service.codec.npy import write_npy, write_npz
from service.codec.tensors import Array, non_finite_rows
from service.contracts import InferenceResult, ModelCard
from service.errors import TooLarge
from service.operations.thread_pool import Threads
from service.transport.request import Headers, RawResponse, Reply

# The longest that orjson writes of a number with its comma: -1.1754944e-38 and
# -2.2250738585072014e-308.
_JSON_BYTES = {4: 15, 8: 25}
_TIMING = b"queue;dur=%.3f, compute;dur=%.3f"
_PLAIN_LINES = b"".join(
    (
        b"content-type: application/json\r\n",
        b"content-length: %d\r\n",
        b"server-timing: ",
        _TIMING,
        b"\r\nx-request-id: %b\r\n",
    )
)


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form an answer takes: its media type and, for pictures, the size of a pixel."""

    media: str
    scale: int = 1


PLAIN = ResponseFormat(JSON)


def check_answer_size(
    card: ModelCard, form: ResponseFormat, rows: int, values: int, max_bytes: int
) -> None:
    """Refuse an answer of `values` numbers a row that would be too large, before it is computed.

    Raises:
        TooLarge: saying how many rows fit.
    """
    if form is PLAIN and rows * values * _JSON_BYTES[8] <= max_bytes:
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


def write_plain(card: ModelCard, head: dict[str, Any], outputs: dict[str, Array]) -> bytes:
    """Write the outputs as JSON."""
    return write_object({**_names(card), **head}, outputs)


def write_plain_rows(
    card: ModelCard, heads: Sequence[dict[str, Any]], outputs: dict[str, Array]
) -> list[bytes]:
    """Write each row of the outputs as `write_plain` writes the answer that has it alone."""
    return write_rows(_names(card), heads, outputs)


def plain_answer(body: bytes, answer: InferenceResult, identity: str) -> RawResponse:
    """Give a JSON body the headers that `write_answer`, `server_timing` and an id give others."""
    lines = _PLAIN_LINES % (len(body), *_milliseconds(answer), identity.encode())
    return RawResponse(200, lines, body)


async def write_answer(
    card: ModelCard,
    form: ResponseFormat,
    head: dict[str, Any],
    outputs: dict[str, Array],
    *,
    threads: Threads,
    deadline: float,
) -> Reply:
    """Write the outputs in the form asked for.

    `head` holds the scalars of the answer. JSON has them inside, every other form as X- headers.

    Raises:
        Overloaded, DeadlineExceeded: as `Threads.run`.
    """
    if form.media == JSON:
        body = write_plain(card, head, outputs)
        return Reply(200, _content_headers(JSON, body), body)
    first = next(iter(outputs.values()))
    if form.media == NPY:
        body = write_npy(first)
    elif form.media == NPZ:
        scalars = {name: np.array(value) for name, value in head.items()}
        body = await threads.run(deadline, write_npz, outputs | scalars)
    else:
        body = await threads.run(deadline, write_png, first, card.num_levels or 0, form.scale)
    head = {"model": card.name, "model-version": card.version, **head}
    shown = outputs if form.media == NPZ else {"": first}
    bad = sorted({row for values in shown.values() for row in non_finite_rows(values)})
    if bad:
        head["non-finite"] = len(bad)
    headers = [(f"x-{name}".encode(), str(value).encode()) for name, value in head.items()]
    return Reply(200, _content_headers(form.media, body) + headers, body)


def server_timing(answer: InferenceResult) -> tuple[bytes, bytes]:
    """How long the rows waited and were computed, in milliseconds (W3C Server Timing)."""
    return b"server-timing", _TIMING % _milliseconds(answer)


def _milliseconds(answer: InferenceResult) -> tuple[float, float]:
    return 1e3 * answer.queue_seconds, 1e3 * answer.compute_seconds


def _names(card: ModelCard) -> dict[str, Any]:
    return {"model": card.name, "version": card.version}


def _content_headers(media: str, body: bytes) -> Headers:
    return [(b"content-type", media.encode()), (b"content-length", b"%d" % len(body))]
