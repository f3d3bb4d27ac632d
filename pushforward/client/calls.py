"""What is sent and how the answer is read: pure functions that both clients share."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import ArrayLike

from pushforward.client import wire
from pushforward.client.wire import Array

T = TypeVar("T")

# As long as every reader of JSON keeps it whole.
_SEED_BITS = 53


class Encoded(NamedTuple):
    """z (B, D) and log |det dz/dx| (B,) in nats, with the model and version that made them."""

    z: Array
    log_det: Array
    model: str
    version: str


class Decoded(NamedTuple):
    """x (B, *event_shape) and log |det dx/dz| (B,) in nats, with the model and its version."""

    x: Array
    log_det: Array
    model: str
    version: str


class Samples(NamedTuple):
    """x (B, *event_shape), its log_prob (B,) in nats at T = 1, and the seed that draws it again."""

    x: Array
    log_prob: Array
    seed: int
    model: str
    version: str


class DrawOptions(TypedDict, total=False):
    """What may be said of a draw beside the number of samples.

    seed: one seed gives one draw; made by the client if left out, so that a retry draws the same.
    temperature: T of z ~ N(0, T^2 I), 1 if left out.
    first_row: where to begin in the seed's endless draw.
    context: of a conditional model: a label, labels, or rows of numbers; one for all, or one each.
    """

    seed: int | None
    temperature: float
    first_row: int
    context: ArrayLike | None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Rows first_row and those after it of a seed's endless draw."""

    num_samples: int
    seed: int
    temperature: float
    first_row: int
    context: ArrayLike | None

    def fields(self) -> dict[str, Any]:
        """As the server names them."""
        fields: dict[str, Any] = {
            "num_samples": self.num_samples,
            "seed": self.seed,
            "temperature": float(self.temperature),
            "first_row": self.first_row,
        }
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
    return _ask(operation, fields, model, wire.ANY, wire.read_any)


def log_prob(x: ArrayLike | bytes, context: ArrayLike | None, model: str | None) -> Call[Array]:
    """Score rows, or one PNG or JPEG picture given as bytes."""
    return _ask("log_prob", _rows("x", x, context), model, wire.NPY, wire.read_npy)


def encode(x: ArrayLike | bytes, context: ArrayLike | None, model: str | None) -> Call[Encoded]:
    """Map rows, or one picture given as bytes, to latents."""
    return _ask("encode", _rows("x", x, context), model, wire.NPZ, _read_encoded)


def decode(z: ArrayLike, context: ArrayLike | None, model: str | None) -> Call[Decoded]:
    """Map latents to data."""
    return _ask("decode", _rows("z", z, context), model, wire.NPZ, _read_decoded)


def decode_picture(
    z: ArrayLike, context: ArrayLike | None, model: str | None, scale: int
) -> Call[bytes]:
    """Map latents to one PNG picture."""
    fields = {"scale": scale, **_rows("z", z, context)}
    return _ask("decode", fields, model, wire.PNG, wire.read_picture)


def to_params(num_samples: int, options: DrawOptions) -> SamplingParams:
    """Settle what a draw leaves open: the seed above all, before the first attempt."""
    seed = options.get("seed")
    return SamplingParams(
        num_samples,
        secrets.randbits(_SEED_BITS) if seed is None else seed,
        options.get("temperature", 1.0),
        options.get("first_row", 0),
        options.get("context"),
    )


def sample(params: SamplingParams, model: str | None) -> Call[Samples]:
    """Draw samples."""
    return _ask("sample", params.fields(), model, wire.NPZ, _read_samples)


def sample_picture(params: SamplingParams, model: str | None, scale: int) -> Call[bytes]:
    """Draw samples as one PNG picture."""
    fields = {"scale": scale, **params.fields()}
    return _ask("sample", fields, model, wire.PNG, wire.read_picture)


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
        if context is not None and _is_one_each(context, params.num_samples):
            part = context[start:stop]
        first = params.first_row + start
        yield sample(
            SamplingParams(stop - start, params.seed, params.temperature, first, part), model
        )


def models() -> Call[list[dict[str, Any]]]:
    """List the served models."""
    return Call("GET", "/models", lambda response: list(wire.read_object(response)["models"]))


def model(name: str) -> Call[dict[str, Any]]:
    """Describe one model."""
    return Call("GET", f"/models/{quote(name, safe='')}", wire.read_object)


def ready() -> Call[bool]:
    """Ask whether requests are taken."""
    return Call("GET", "/health/ready", lambda _: True, is_retried=False)


def _ask(
    operation: str,
    fields: Mapping[str, Any],
    model: str | None,
    accept: str,
    read: Callable[[httpx.Response], T],
) -> Call[T]:
    params, media, content = wire.write_fields({"model": model, **fields})
    headers = {"Accept": accept, "Content-Type": media}
    return Call("POST", f"/{quote(operation, safe='')}", read, params, headers, content)


def _rows(name: str, rows: ArrayLike | bytes, context: ArrayLike | None) -> dict[str, Any]:
    fields: dict[str, Any] = {name: rows if isinstance(rows, bytes) else wire.numbers(rows, name)}
    if context is not None:
        fields["context"] = wire.numbers(context, "context")
    return fields


def _is_one_each(context: Array, rows: int) -> bool:
    """Whether a context has a row for each sample: labels, or rows of numbers."""
    has_rows = context.ndim > 1 or (context.ndim == 1 and context.dtype.kind in "iu")
    return has_rows and len(context) == rows > 1


def _read_encoded(response: httpx.Response) -> Encoded:
    z, log_det = wire.read_npz(response, "z", "log_det").values()
    return Encoded(z, log_det, *wire.read_origin(response))


def _read_decoded(response: httpx.Response) -> Decoded:
    x, log_det = wire.read_npz(response, "x", "log_det").values()
    return Decoded(x, log_det, *wire.read_origin(response))


def _read_samples(response: httpx.Response) -> Samples:
    x, log_prob, seed = wire.read_npz(response, "x", "log_prob", "seed").values()
    return Samples(x, log_prob, int(seed), *wire.read_origin(response))
