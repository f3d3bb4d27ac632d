"""The client for asyncio: the calls of `Client`, awaited."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from itertools import count, islice
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
from numpy.typing import ArrayLike

from pushforward.client import calls
from pushforward.client.answers import Decoded, Encoded, RowOutputs, Samples, Scores
from pushforward.client.calls import CHUNK_ROWS, Call, DrawOptions, to_params
from pushforward.client.errors import ConnectionFailed, NotReady, ResponseError
from pushforward.client.exchange import finish, http_options, request_arguments
from pushforward.client.failures import Failed, check_failed
from pushforward.client.retries import AttemptResult, pause_before_retry
from pushforward.client.row_calls import (
    DECODE,
    ENCODE,
    LOG_PROB,
    SCORES,
    ChunkOptions,
    Defaults,
    Invalid,
    Joiner,
    RowCall,
    RowOptions,
    RowParts,
    Rows,
    row_call,
    stream_calls,
)
from pushforward.client.score_calls import (
    Scored,
    ScoreOptions,
    ScoreStreamOptions,
    score_call,
    score_stream,
)
from pushforward.client.wire import Array

T = TypeVar("T")

# More would wait in the server's queue, before other callers' rows.
_PIECES_IN_FLIGHT = 4


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
        failed: Failed = "values",
        invalid: Invalid = "refuse",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._model = model
        self._defaults = Defaults(model, check_failed(failed), invalid)
        self._max_retries = max_retries
        self._http = httpx.AsyncClient(
            transport=transport, **http_options(base_url, api_key, timeout)
        )

    async def log_prob(self, x: Rows, **options: Unpack[RowOptions]) -> Array:
        """Score rows x (B, *event_shape), or one picture as bytes; see `Client.log_prob`."""
        return await self._run_rows(row_call(LOG_PROB, x, self._defaults, options))

    async def score(self, x: Rows, **options: Unpack[ScoreOptions]) -> Scored:
        """Score rows as anomalies; see `Client.score`."""
        return await self._run_rows(score_call(x, self._defaults, options))

    async def encode(self, x: Rows, **options: Unpack[RowOptions]) -> Encoded:
        """Map rows x (B, *event_shape), or one picture as bytes, to latents."""
        return await self._run_rows(row_call(ENCODE, x, self._defaults, options))

    async def decode(self, z: Rows, **options: Unpack[RowOptions]) -> Decoded:
        """Map latents z (B, D) to data."""
        return await self._run_rows(row_call(DECODE, z, self._defaults, options))

    def stream_log_prob(
        self, x: RowParts, **options: Unpack[ChunkOptions]
    ) -> AsyncIterator[Scores]:
        """Score many rows, a chunk a request; see `Client.stream_log_prob`."""
        return self._stream(stream_calls(SCORES, x, self._defaults, options))

    def stream_score(
        self, x: RowParts, **options: Unpack[ScoreStreamOptions]
    ) -> AsyncIterator[Scored]:
        """Score many rows as anomalies, a chunk a request; see `Client.stream_score`."""
        return self._stream(score_stream(x, self._defaults, options))

    def stream_encode(self, x: RowParts, **options: Unpack[ChunkOptions]) -> AsyncIterator[Encoded]:
        """Map many rows to latents, a chunk a request; see `Client.stream_log_prob`."""
        return self._stream(stream_calls(ENCODE, x, self._defaults, options))

    def stream_decode(self, z: RowParts, **options: Unpack[ChunkOptions]) -> AsyncIterator[Decoded]:
        """Map many latents to data, a chunk a request; see `Client.stream_log_prob`."""
        return self._stream(stream_calls(DECODE, z, self._defaults, options))

    async def decode_picture(
        self, z: ArrayLike, *, context: ArrayLike | None = None, scale: int = 1
    ) -> bytes:
        """Map latents to one PNG picture, a grid for several."""
        return await self._run(
            calls.decode_picture(z, context, self._model, scale, self._defaults.failed)
        )

    async def call(self, operation: str, /, **fields: Any) -> dict[str, Any]:
        """Ask for any operation of the server by its name; see `Client.call`."""
        return await self._run(calls.call(operation, fields, self._model))

    async def sample(self, num_samples: int = 1, **options: Unpack[DrawOptions]) -> Samples:
        """Draw samples; see `DrawOptions` for what else may be said."""
        return await self._run(
            calls.sample(to_params(num_samples, options, self._defaults.failed), self._model)
        )

    async def sample_picture(
        self, num_samples: int = 1, *, scale: int = 1, **options: Unpack[DrawOptions]
    ) -> bytes:
        """Draw samples as one PNG picture, a grid for several."""
        return await self._run(
            calls.sample_picture(
                to_params(num_samples, options, self._defaults.failed), self._model, scale
            )
        )

    async def stream(
        self, num_samples: int, *, chunk_rows: int = CHUNK_ROWS, **options: Unpack[DrawOptions]
    ) -> AsyncIterator[Samples]:
        """Draw many samples, a chunk a request; joined, they are those of one request."""
        for call in calls.sample_chunks(
            to_params(num_samples, options, self._defaults.failed), self._model, chunk_rows
        ):
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

    async def _run_rows(self, call: RowCall[T]) -> T:
        joiner = Joiner(call)
        async with aclosing(self._parts(call)) as parts:
            async for part in parts:
                joiner.add(part)
        return joiner.result()

    async def _stream(self, calls: Iterator[RowCall[T]]) -> AsyncIterator[T]:
        for call in calls:
            first = call.first_row
            async with aclosing(self._parts(call)) as parts:
                async for part in parts:
                    yield call.result(part, first)
                    first += len(part)

    async def _parts(self, call: RowCall[Any]) -> AsyncGenerator[RowOutputs, None]:
        """Ask for the pieces in their order, a few at a time."""
        spans = call.spans()
        waiting: deque[asyncio.Task[list[RowOutputs]]] = deque()
        try:
            while True:
                for start, stop in islice(spans, _PIECES_IN_FLIGHT - len(waiting)):
                    waiting.append(asyncio.create_task(self._ask(call, start, stop)))
                if not waiting:
                    return
                for part in await waiting.popleft():
                    yield part
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _ask(self, call: RowCall[Any], start: int, stop: int) -> list[RowOutputs]:
        """Ask for some rows, in smaller pieces where the server refuses so many."""
        try:
            return [await self._run(call.piece(start, stop))]
        except ResponseError as error:
            smaller = call.halve(start, stop, error)
        return [part for piece in smaller for part in await self._ask(call, *piece)]

    async def _run(self, call: Call[T]) -> T:
        for attempt in count():
            outcome: AttemptResult
            try:
                outcome = await self._http.request(**request_arguments(call))
            except httpx.RequestError as error:
                outcome = error
            pause = pause_before_retry(outcome, attempt, call.is_retried * self._max_retries)
            if pause is None:
                break
            await asyncio.sleep(pause)
        return finish(call, outcome)
