"""The two clients: the same calls over httpx's blocking and over its asynchronous transport."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
from numpy.typing import ArrayLike

from pushforward.client import calls
from pushforward.client.calls import Call, Decoded, DrawOptions, Encoded, Samples, to_params
from pushforward.client.errors import ConnectionFailed, NotReady, from_response, from_transport
from pushforward.client.retries import AttemptResult, pause_before_retry
from pushforward.client.wire import Array

T = TypeVar("T")

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
BASE_URL_VARIABLE = "PUSHFORWARD_BASE_URL"
CHUNK_ROWS = 1024

_CONNECT_SECONDS = 5.0


class Client:
    """A blocking client; several threads may share one.

    All methods raise `ClientError`; see `pushforward.client.errors`.

    Args:
        base_url: of the server; left out, PUSHFORWARD_BASE_URL, else http://127.0.0.1:8000.
        api_key: sent as a bearer token.
        model: which model calls mean; may be left out where the server has one or a default.
        timeout: seconds an attempt may take; the server is told, and stops then too.
        max_retries: further attempts after a failed connection, 408, 429 or 5xx.
        transport: what carries the requests, for tests.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._model = model
        self._max_retries = max_retries
        self._http = httpx.Client(transport=transport, **_options(base_url, api_key, timeout))

    def log_prob(self, x: ArrayLike | bytes, *, context: ArrayLike | None = None) -> Array:
        """Score rows x (B, *event_shape), or one picture as bytes.

        Returns:
            Their log-densities (B,), in nats.
        """
        return self._run(calls.log_prob(x, context, self._model))

    def encode(self, x: ArrayLike | bytes, *, context: ArrayLike | None = None) -> Encoded:
        """Map rows x (B, *event_shape), or one picture as bytes, to latents."""
        return self._run(calls.encode(x, context, self._model))

    def decode(self, z: ArrayLike, *, context: ArrayLike | None = None) -> Decoded:
        """Map latents z (B, D) to data."""
        return self._run(calls.decode(z, context, self._model))

    def call(self, operation: str, /, **fields: Any) -> dict[str, Any]:
        """Ask for any operation of the server by its name.

        Args:
            operation: as in the server's path, such as "log_prob".
            fields: numbers, texts, flags; arrays, or lists, of numbers; one PNG or JPEG as bytes.

        Returns:
            The answer's outputs: arrays, and scalars as Python has them, with model and version.
        """
        return self._run(calls.call(operation, fields, self._model))

    def decode_picture(
        self, z: ArrayLike, *, context: ArrayLike | None = None, scale: int = 1
    ) -> bytes:
        """Map latents to one PNG picture, a grid for several."""
        return self._run(calls.decode_picture(z, context, self._model, scale))

    def sample(self, num_samples: int = 1, **options: Unpack[DrawOptions]) -> Samples:
        """Draw samples; see `DrawOptions` for what else may be said."""
        return self._run(calls.sample(to_params(num_samples, options), self._model))

    def sample_picture(
        self, num_samples: int = 1, *, scale: int = 1, **options: Unpack[DrawOptions]
    ) -> bytes:
        """Draw samples as one PNG picture, a grid for several."""
        return self._run(calls.sample_picture(to_params(num_samples, options), self._model, scale))

    def stream(
        self, num_samples: int, *, chunk_rows: int = CHUNK_ROWS, **options: Unpack[DrawOptions]
    ) -> Iterator[Samples]:
        """Draw many samples, a chunk a request; joined, they are those of one request."""
        for call in calls.sample_chunks(to_params(num_samples, options), self._model, chunk_rows):
            yield self._run(call)

    def models(self) -> list[dict[str, Any]]:
        """Describe all served models."""
        return self._run(calls.models())

    def describe(self, model: str) -> dict[str, Any]:
        """Describe one served model."""
        return self._run(calls.model(model))

    def is_ready(self) -> bool:
        """Ask once whether requests are taken; False too where nobody answers."""
        try:
            return self._run(calls.ready())
        except (ConnectionFailed, NotReady):
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        for attempt in count():
            outcome: AttemptResult
            try:
                outcome = self._http.request(**_arguments(call))
            except httpx.RequestError as error:
                outcome = error
            pause = pause_before_retry(outcome, attempt, call.is_retried * self._max_retries)
            if pause is None:
                break
            time.sleep(pause)
        return _finish(call, outcome)


class AsyncClient:
    """`Client` for asyncio: the same arguments, the same methods, awaited."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._model = model
        self._max_retries = max_retries
        self._http = httpx.AsyncClient(transport=transport, **_options(base_url, api_key, timeout))

    async def log_prob(self, x: ArrayLike | bytes, *, context: ArrayLike | None = None) -> Array:
        """Score rows x (B, *event_shape), or one picture as bytes; see `Client.log_prob`."""
        return await self._run(calls.log_prob(x, context, self._model))

    async def encode(self, x: ArrayLike | bytes, *, context: ArrayLike | None = None) -> Encoded:
        """Map rows x (B, *event_shape), or one picture as bytes, to latents."""
        return await self._run(calls.encode(x, context, self._model))

    async def decode(self, z: ArrayLike, *, context: ArrayLike | None = None) -> Decoded:
        """Map latents z (B, D) to data."""
        return await self._run(calls.decode(z, context, self._model))

    async def decode_picture(
        self, z: ArrayLike, *, context: ArrayLike | None = None, scale: int = 1
    ) -> bytes:
        """Map latents to one PNG picture, a grid for several."""
        return await self._run(calls.decode_picture(z, context, self._model, scale))

    async def call(self, operation: str, /, **fields: Any) -> dict[str, Any]:
        """Ask for any operation of the server by its name; see `Client.call`."""
        return await self._run(calls.call(operation, fields, self._model))

    async def sample(self, num_samples: int = 1, **options: Unpack[DrawOptions]) -> Samples:
        """Draw samples; see `DrawOptions` for what else may be said."""
        return await self._run(calls.sample(to_params(num_samples, options), self._model))

    async def sample_picture(
        self, num_samples: int = 1, *, scale: int = 1, **options: Unpack[DrawOptions]
    ) -> bytes:
        """Draw samples as one PNG picture, a grid for several."""
        return await self._run(
            calls.sample_picture(to_params(num_samples, options), self._model, scale)
        )

    async def stream(
        self, num_samples: int, *, chunk_rows: int = CHUNK_ROWS, **options: Unpack[DrawOptions]
    ) -> AsyncIterator[Samples]:
        """Draw many samples, a chunk a request; joined, they are those of one request."""
        for call in calls.sample_chunks(to_params(num_samples, options), self._model, chunk_rows):
            yield await self._run(call)

    async def models(self) -> list[dict[str, Any]]:
        """Describe all served models."""
        return await self._run(calls.models())

    async def describe(self, model: str) -> dict[str, Any]:
        """Describe one served model."""
        return await self._run(calls.model(model))

    async def is_ready(self) -> bool:
        """Ask once whether requests are taken; False too where nobody answers."""
        try:
            return await self._run(calls.ready())
        except (ConnectionFailed, NotReady):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        for attempt in count():
            outcome: AttemptResult
            try:
                outcome = await self._http.request(**_arguments(call))
            except httpx.RequestError as error:
                outcome = error
            pause = pause_before_retry(outcome, attempt, call.is_retried * self._max_retries)
            if pause is None:
                break
            await asyncio.sleep(pause)
        return _finish(call, outcome)


def _options(base_url: str | None, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Say to httpx what both clients say to it."""
    headers = {"X-Timeout-Seconds": f"{timeout:.3f}"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return {
        "base_url": base_url or os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=min(_CONNECT_SECONDS, timeout)),
    }


def _arguments(call: Call[Any]) -> Mapping[str, Any]:
    return {
        "method": call.method,
        "url": call.path,
        "params": call.params,
        "headers": call.headers,
        "content": call.content,
    }


def _finish(call: Call[T], outcome: AttemptResult) -> T:
    """Read an answer, or raise what became of the call."""
    if not isinstance(outcome, httpx.Response):
        raise from_transport(outcome) from outcome
    if not outcome.is_success:
        raise from_response(outcome)
    return call.read(outcome)
