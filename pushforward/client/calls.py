"""What is sent and how the answer is read: pure functions that both clients share."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import ArrayLike

from pushforward.client import frames, wire
from pushforward.client.answers import Decoded, Encoded, Samples, Scores, read_samples
from pushforward.client.failures import (
    Failed,
    Failure,
    RowsFailed,
    check_failed,
    mask,
    read_failures,
)
from pushforward.client.wire import Array

__all__ = ["Call", "Decoded", "DrawOptions", "Encoded", "Samples", "Scores"]

T = TypeVar("T")

CHUNK_ROWS = 1024

# As long as every reader of JSON keeps it whole.
_SEED_BITS = 53


class DrawOptions(TypedDict, total=False):
    """What may be said of a draw beside the number of samples.

    seed: one seed gives one draw; made by the client if left out, so that a retry draws the same.
    temperature: T of z ~ N(0, T^2 I), 1 if left out.
    first_row: where to begin in the seed's endless draw.
    context: of a conditional model: a label, labels, or rows of numbers; one for all, or one each.
    failed: of rows without an answer: "values" (NaN or an infinity), "mask" or "raise".
    columns: in which order the columns of x are wanted, by their names.
    """

    seed: int | None
    temperature: float
    first_row: int
    context: ArrayLike | None
    failed: Failed
    columns: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Rows first_row and those after it of a seed's endless draw."""

    num_samples: int
    seed: int
    temperature: float
    first_row: int
    context: ArrayLike | None
    failed: Failed = "values"
    columns: Sequence[str] | None = None

    def fields(self) -> dict[str, Any]:
        """As the server names them."""
        fields: dict[str, Any] = {
            "num_samples": self.num_samples,
            "seed": self.seed,
            "temperature": float(self.temperature),
            "first_row": self.first_row,
        }
        if self.columns is not None:
            fields["columns"] = list(self.columns)
        if self.context is not None:
            fields["context"] = wire.numbers(self.context, "context")
        return fields


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    is_retried: bool = True


def call(operation: str, fields: Mapping[str, Any], model: str | None) -> Call[dict[str, Any]]:
    """Ask for any operation of the server: its fields as they are, its outputs by name."""
    given: dict[str, Any] = {}
    for name, value in fields.items():
        if frames.is_frame(value):
            given[name], columns = frames.read_table(value, name)
            given["columns"] = columns
        else:
            given[name] = value
    return _ask(operation, given, model, wire.ANY, wire.read_any)


def decode_picture(
    z: ArrayLike, context: ArrayLike | None, model: str | None, scale: int, failed: Failed
) -> Call[bytes]:
    """Map latents to one PNG picture."""
    fields: dict[str, Any] = {"scale": scale, "z": wire.numbers(z, "z")}
    if context is not None:
        fields["context"] = wire.numbers(context, "context")
    return _ask("decode", fields, model, wire.PNG, partial(_read_picture, failed=failed))


def check_options(options: Mapping[str, Any], kind: type) -> None:
    """Refuse keywords that no call has: types of keywords are looked at by type checkers alone.

    Raises:
        TypeError: naming the first of them, and those that there are.
    """
    known = kind.__annotations__
    for name in options:
        if name not in known:
            raise TypeError(f"unexpected keyword {name!r}, expected some of {', '.join(known)}")


def to_params(num_samples: int, options: DrawOptions, failed: Failed = "values") -> SamplingParams:
    """Settle what a draw leaves open: the seed above all, before the first attempt.

    Raises:
        TypeError, ValueError: an option is none.
    """
    check_options(options, DrawOptions)
    seed = options.get("seed")
    return SamplingParams(
        num_samples,
        secrets.randbits(_SEED_BITS) if seed is None else seed,
        options.get("temperature", 1.0),
        options.get("first_row", 0),
        options.get("context"),
        check_failed(options.get("failed", failed)),
        options.get("columns"),
    )


def sample(params: SamplingParams, model: str | None, start: int = 0) -> Call[Samples]:
    """Draw samples; `start` is the index of the first in the whole draw."""

    def read(response: httpx.Response) -> Samples:
        return _read_samples(response, params.failed, start)

    return _ask("sample", params.fields(), model, wire.NPZ, read)


def sample_picture(params: SamplingParams, model: str | None, scale: int) -> Call[bytes]:
    """Draw samples as one PNG picture."""
    fields = {"scale": scale, **params.fields()}
    return _ask("sample", fields, model, wire.PNG, partial(_read_picture, failed=params.failed))


def sample_chunks(
    params: SamplingParams, model: str | None, chunk_rows: int
) -> Iterator[Call[Samples]]:
    """Split a draw; its parts are the rows of the whole.

    Raises:
        ValueError: chunks of no rows.
    """
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    context = None if params.context is None else np.asarray(params.context)
    for start in range(0, params.num_samples, chunk_rows):
        stop = min(start + chunk_rows, params.num_samples)
        part = context
        if context is not None and is_one_each(context, params.num_samples):
            part = context[start:stop]
        first = params.first_row + start
        chunk = replace(params, num_samples=stop - start, first_row=first, context=part)
        yield sample(chunk, model, start)


def models() -> Call[list[dict[str, Any]]]:
    """List the served models."""
    return Call("GET", "/models", lambda response: list(wire.read_object(response)["models"]))


def model(name: str) -> Call[dict[str, Any]]:
    """Describe one model."""
    return Call("GET", f"/models/{quote(name, safe='')}", wire.read_object)


def ready() -> Call[bool]:
    """Ask whether requests are taken."""
    return Call("GET", "/health/ready", lambda _: True, is_retried=False)


def ask(
    operation: str, fields: Mapping[str, Any], accept: str, read: Callable[[httpx.Response], T]
) -> Call[T]:
    """Ask for an operation, its fields as the server names them."""
    params, media, content = wire.write_fields(fields)
    headers = {"Accept": accept, "Content-Type": media}
    return Call("POST", f"/{quote(operation, safe='')}", read, params, headers, content)


def _ask(
    operation: str,
    fields: Mapping[str, Any],
    model: str | None,
    accept: str,
    read: Callable[[httpx.Response], T],
) -> Call[T]:
    return ask(operation, {"model": model, **fields}, accept, read)


def is_one_each(context: Array, rows: int) -> bool:
    """Whether a context has a row for each row of a call: labels, or rows of numbers."""
    has_rows = context.ndim > 1 or (context.ndim == 1 and context.dtype.kind in "iu")
    return has_rows and len(context) == rows > 1


def _read_samples(response: httpx.Response, failed: Failed, start: int) -> Samples:
    """Read a draw.

    Raises:
        RowsFailed: a sample could not be drawn, and the caller chose "raise".
    """
    answer, seed = read_samples(response)
    failures = read_failures(answer.status, start)
    arrays = answer.arrays
    if failed == "mask":
        arrays = {name: mask(values, failures, start) for name, values in arrays.items()}
    samples = Samples(arrays["x"], arrays["log_prob"], seed, answer.model, answer.version)
    if failures and failed == "raise":
        raise RowsFailed(failures, len(answer), samples)
    return samples


def _read_picture(response: httpx.Response, failed: Failed) -> bytes:
    """Read a picture, whose headers say which of its rows have no answer.

    Raises:
        RowsFailed: one has none, and the caller chose "raise".
    """
    picture = wire.read_picture(response)
    rows = response.headers.get("x-failed-rows")
    if rows and failed == "raise":
        failures = [Failure(int(row), "", "") for row in rows.split(",")]
        raise RowsFailed(failures, None, picture)
    return picture
