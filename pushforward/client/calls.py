"""What is sent and how the answer is read: pure functions that both clients share."""

import io
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.client.errors import UnreadableAnswer

T = TypeVar("T")
Array = NDArray[Any]

# As long as every reader of JSON keeps it whole.
_SEED_BITS = 53

_NPY = "application/x-npy"
_NPZ = "application/x-npz"
_PNG = "image/png"
_PICTURES = {b"\x89PNG": _PNG, b"\xff\xd8\xff": "image/jpeg"}


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
class Draw:
    """Rows first_row and those after it of a seed's endless draw."""

    num_samples: int
    seed: int
    temperature: float
    first_row: int
    context: ArrayLike | None


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


@dataclass(frozen=True, slots=True)
class _Question:
    """A request that does not say yet in which form it wants its answer."""

    path: str
    params: Mapping[str, str]
    media: str
    content: bytes

    def answered(self, accept: str, read: Callable[[httpx.Response], T]) -> Call[T]:
        headers = {"Accept": accept, "Content-Type": self.media}
        return Call("POST", self.path, read, self.params, headers, self.content)


def log_prob(x: ArrayLike | bytes, context: ArrayLike | None, model: str | None) -> Call[Array]:
    """Score rows, or one PNG or JPEG picture given as bytes."""
    return _send("/log_prob", "x", x, context, model).answered(_NPY, _read_npy)


def encode(x: ArrayLike | bytes, context: ArrayLike | None, model: str | None) -> Call[Encoded]:
    """Map rows, or one picture given as bytes, to latents."""
    return _send("/encode", "x", x, context, model).answered(_NPZ, _read_encoded)


def decode(z: ArrayLike, context: ArrayLike | None, model: str | None) -> Call[Decoded]:
    """Map latents to data."""
    return _send("/decode", "z", z, context, model).answered(_NPZ, _read_decoded)


def decode_picture(
    z: ArrayLike, context: ArrayLike | None, model: str | None, scale: int
) -> Call[bytes]:
    """Map latents to one PNG picture."""
    return _send("/decode", "z", z, context, model, scale=str(scale)).answered(_PNG, _read_bytes)


def new_draw(num_samples: int, options: DrawOptions) -> Draw:
    """Settle what a draw leaves open: the seed above all, before the first attempt."""
    seed = options.get("seed")
    return Draw(
        num_samples,
        secrets.randbits(_SEED_BITS) if seed is None else seed,
        options.get("temperature", 1.0),
        options.get("first_row", 0),
        options.get("context"),
    )


def sample(draw: Draw, model: str | None) -> Call[Samples]:
    """Draw samples."""
    return _ask_for(draw, model).answered(_NPZ, _read_samples)


def sample_picture(draw: Draw, model: str | None, scale: int) -> Call[bytes]:
    """Draw samples as one PNG picture."""
    return _ask_for(draw, model, scale=str(scale)).answered(_PNG, _read_bytes)


def sample_chunks(draw: Draw, model: str | None, chunk_rows: int) -> Iterator[Call[Samples]]:
    """Split a draw; its parts are the rows of the whole.

    Raises:
        ValueError: chunks of no rows.
    """
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    context = None if draw.context is None else np.asarray(draw.context)
    for start in range(0, draw.num_samples, chunk_rows):
        stop = min(start + chunk_rows, draw.num_samples)
        part = context
        if context is not None and _is_one_each(context, draw.num_samples):
            part = context[start:stop]
        first = draw.first_row + start
        yield sample(Draw(stop - start, draw.seed, draw.temperature, first, part), model)


def models() -> Call[list[dict[str, Any]]]:
    """List the served models."""
    return Call("GET", "/models", lambda response: list(_read_object(response)["models"]))


def model(name: str) -> Call[dict[str, Any]]:
    """Describe one model."""
    return Call("GET", f"/models/{quote(name, safe='')}", _read_object)


def ready() -> Call[bool]:
    """Ask whether requests are taken."""
    return Call("GET", "/health/ready", lambda _: True, is_retried=False)


def _send(
    path: str,
    name: str,
    rows: ArrayLike | bytes,
    context: ArrayLike | None,
    model: str | None,
    **params: str,
) -> _Question:
    if isinstance(rows, bytes):
        kinds = [kind for magic, kind in _PICTURES.items() if rows.startswith(magic)]
        if not kinds:
            raise ValueError(f"{name}: expected rows, or a PNG or JPEG picture as bytes")
        if context is not None:
            params["context"] = json.dumps(np.asarray(context).tolist())
        return _post(path, params, model, kinds[0], rows)
    arrays = {name: _numbers(rows, name)}
    if context is None:
        return _post(path, params, model, _NPY, _write_npy(arrays[name]))
    arrays["context"] = _numbers(context, "context")
    return _post(path, params, model, _NPZ, _write_npz(arrays))


def _ask_for(draw: Draw, model: str | None, **params: str) -> _Question:
    params |= {
        "num_samples": str(draw.num_samples),
        "seed": str(draw.seed),
        "temperature": repr(float(draw.temperature)),
        "first_row": str(draw.first_row),
    }
    if draw.context is None:
        return _post("/sample", params, model, "application/json", b"")
    arrays = {"context": _numbers(draw.context, "context")}
    return _post("/sample", params, model, _NPZ, _write_npz(arrays))


def _post(
    path: str, params: dict[str, str], model: str | None, media: str, content: bytes
) -> _Question:
    named = params if model is None else {"model": model, **params}
    return _Question(path, named, media, content)


def _is_one_each(context: Array, rows: int) -> bool:
    """Whether a context has a row for each sample: labels, or rows of numbers."""
    has_rows = context.ndim > 1 or (context.ndim == 1 and context.dtype.kind in "iu")
    return has_rows and len(context) == rows > 1


def _numbers(value: ArrayLike, name: str) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def _write_npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write_npz(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _read_npy(response: httpx.Response) -> Array:
    _check_media(response, _NPY)
    try:
        values = np.load(io.BytesIO(response.content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UnreadableAnswer(f"{response.url}: not npy: {error}") from None
    return np.asarray(values)


def _read_npz(response: httpx.Response, *names: str) -> list[Array]:
    _check_media(response, _NPZ)
    try:
        with np.load(io.BytesIO(response.content), allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except Exception as error:  # damaged archives make zipfile raise a dozen kinds of exception
        raise UnreadableAnswer(f"{response.url}: not npz with {names}: {error}") from None


def _read_encoded(response: httpx.Response) -> Encoded:
    z, log_det = _read_npz(response, "z", "log_det")
    return Encoded(z, log_det, *_origin(response))


def _read_decoded(response: httpx.Response) -> Decoded:
    x, log_det = _read_npz(response, "x", "log_det")
    return Decoded(x, log_det, *_origin(response))


def _read_samples(response: httpx.Response) -> Samples:
    x, log_prob, seed = _read_npz(response, "x", "log_prob", "seed")
    return Samples(x, log_prob, int(seed), *_origin(response))


def _read_bytes(response: httpx.Response) -> bytes:
    _check_media(response, _PNG)
    return response.content


def _read_object(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UnreadableAnswer(f"{response.url}: expected a JSON object")
    return content


def _check_media(response: httpx.Response, expected: str) -> None:
    got = response.headers.get("content-type", "")
    if got != expected:
        raise UnreadableAnswer(f"{response.url}: expected {expected}, got {got!r}")


def _origin(response: httpx.Response) -> tuple[str, str]:
    return response.headers.get("x-model", ""), response.headers.get("x-model-version", "")
