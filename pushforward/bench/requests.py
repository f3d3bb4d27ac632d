"""The requests of a load as bytes: several different ones, which are sent in turn."""

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode

import numpy as np

from pushforward.bench.rows import RowPool, draw_latents, draw_rows, make_context
from pushforward.bench.target import Target
from pushforward.client import Client
from pushforward.client.wire import JSON, NPY, write_fields

Format = Literal["json", "npy"]
# What `--operation` may name -> the tensor that it takes.
OPERATIONS = {"log_prob": "x", "encode": "x", "decode": "z", "sample": "", "score": "x"}

_BODIES = 32
# All bodies together, unless one alone is larger.
_MOST_VALUES = 4_000_000


@dataclass(frozen=True, slots=True)
class RequestKind:
    """What is asked.

    operation: one of `OPERATIONS`.
    rows: a request.
    form: of the body and of the answer.
    is_compressed: whether bodies go in gzip.
    seed: of what is random in them.
    """

    operation: str
    rows: int
    form: Format
    is_compressed: bool = False
    seed: int = 0


def write_requests(kind: RequestKind, target: Target, client: Client) -> tuple[bytes, ...]:
    """Write different requests of one kind, heads and bodies.

    Raises:
        ClientError: the server does not give the rows for them.
    """
    count = max(1, min(_BODIES, _MOST_VALUES // (kind.rows * target.card["features"])))
    messages = []
    for fields in _all_fields(kind, client, target.card, count):
        query, media, body = _write_fields(kind, {"model": target.model, **fields})
        path = f"{target.endpoint.path}/{kind.operation}{query}"
        messages.append(_write_message(kind, target, path, media, body))
    return tuple(messages)


def _all_fields(
    kind: RequestKind, client: Client, card: Mapping[str, Any], count: int
) -> Iterator[dict[str, Any]]:
    """The fields of each request beside the model."""
    if kind.operation == "sample":
        rng = np.random.default_rng(kind.seed)
        for index in range(count):
            fields: dict[str, Any] = {"num_samples": kind.rows, "seed": kind.seed + index}
            context = make_context(card, kind.rows, rng)
            yield fields if context is None else {**fields, "context": context}
        return
    pool = _pool(kind, client, card)
    # A step that no number of rows divides: no two bodies are the same.
    step = max(1, len(pool.values) // count) | 1
    # Rows that are sent again and again are none of those whose drift is to be told.
    beside = {"observe": False} if kind.operation == "score" else {}
    for index in range(count):
        yield {**pool.take(index * step, kind.rows), **beside}


def _pool(kind: RequestKind, client: Client, card: Mapping[str, Any]) -> RowPool:
    if OPERATIONS[kind.operation] == "z":
        return draw_latents(card, kind.rows, kind.seed)
    return draw_rows(client, card, kind.rows, kind.seed)


def _write_fields(kind: RequestKind, fields: Mapping[str, Any]) -> tuple[str, str, bytes]:
    """The query, the media type of the body, and the body."""
    if kind.form == "npy":
        written = write_fields(fields)
        return f"?{urlencode(written.params)}", written.media, written.content
    values = {name: _plain(value) for name, value in fields.items()}
    return "", JSON, json.dumps(values, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """What JSON holds of a field; float32 with as many digits as it has."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == np.float32:
        return value.astype("U").astype(np.float64).tolist()
    return value.tolist()


def _write_message(kind: RequestKind, target: Target, path: str, media: str, body: bytes) -> bytes:
    headers = {
        "Host": target.endpoint.host,
        "User-Agent": "pushforward-bench",
        "Content-Type": media,
        "Accept": JSON if kind.form == "json" else NPY,
    }
    if target.api_key is not None:
        headers["Authorization"] = f"Bearer {target.api_key}"
    if kind.is_compressed:
        headers |= {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
        body = gzip.compress(body, compresslevel=1)
    headers["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
