"""The blocking client, and beside it the asynchronous one."""

import time
from collections.abc import Iterator
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx
from numpy.typing import ArrayLike

from pushforward.client import calls
from pushforward.client.answers import Decoded, Encoded, RowOutputs, Samples, Scores
from pushforward.client.async_client import AsyncClient
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

__all__ = ["AsyncClient", "Client"]

T = TypeVar("T")


class Client:
    """A blocking client; several threads may share one.

    All methods raise `ClientError`; see `pushforward.client.errors`.

    Args:
        base_url: of the server; left out, PUSHFORWARD_BASE_URL, else http://127.0.0.1:8000.
        api_key: sent as a bearer token.
        model: which model calls mean; may be left out where the server has one or a default.
        timeout: seconds an attempt may take; the server is told, and stops then too.
        max_retries: further attempts after a failed connection, 408, 429 or 5xx.
        failed: what calls do with rows without an answer: "values" gives NaN or an infinity,
            "mask" masked arrays, "raise" raises `RowsFailed`.
        invalid: what the server does with rows that hold NaN: "refuse" the call, or "null".
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
        failed: Failed = "values",
        invalid: Invalid = "refuse",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._model = model
        self._defaults = Defaults(model, check_failed(failed), invalid)
        self._max_retries = max_retries
        self._http = httpx.Client(transport=transport, **http_options(base_url, api_key, timeout))

    def log_prob(self, x: Rows, **options: Unpack[RowOptions]) -> Array:
        """Score rows x (B, *event_shape), or one picture as bytes; see `RowOptions`.

        Rows are an array or a data frame. Any number of them goes in pieces that the server takes.

        Returns:
            Their log-densities (B,), in nats.

        Raises:
            RowsFailed: a row has no answer, and `failed` is "raise".
            VersionChanged: the model was replaced between two pieces.
        """
        return self._run_rows(row_call(LOG_PROB, x, self._defaults, options))

    def score(self, x: Rows, **options: Unpack[ScoreOptions]) -> Scored:
        """Score rows as anomalies; see `ScoreOptions` for what decides, and `log_prob`.

        fdr is over all rows of the call, in however many pieces they go.

        Returns:
            Scores, p-values by the calibration, and what is decided.
        """
        return self._run_rows(score_call(x, self._defaults, options))

    def encode(self, x: Rows, **options: Unpack[RowOptions]) -> Encoded:
        """Map rows x (B, *event_shape), or one picture as bytes, to latents; see `log_prob`."""
        return self._run_rows(row_call(ENCODE, x, self._defaults, options))

    def decode(self, z: Rows, **options: Unpack[RowOptions]) -> Decoded:
        """Map latents z (B, D) to data; see `log_prob`."""
        return self._run_rows(row_call(DECODE, z, self._defaults, options))

    def stream_log_prob(self, x: RowParts, **options: Unpack[ChunkOptions]) -> Iterator[Scores]:
        """Score many rows, a chunk a request; x may be an iterator over arrays or data frames.

        Every part says which version of the model made it.
        """
        return self._stream(stream_calls(SCORES, x, self._defaults, options))

    def stream_score(self, x: RowParts, **options: Unpack[ScoreStreamOptions]) -> Iterator[Scored]:
        """Score many rows as anomalies, a chunk a request; see `stream_log_prob`.

        Raises:
            ValueError: fdr, which is about all rows at once.
        """
        return self._stream(score_stream(x, self._defaults, options))

    def stream_encode(self, x: RowParts, **options: Unpack[ChunkOptions]) -> Iterator[Encoded]:
        """Map many rows to latents, a chunk a request; see `stream_log_prob`."""
        return self._stream(stream_calls(ENCODE, x, self._defaults, options))

    def stream_decode(self, z: RowParts, **options: Unpack[ChunkOptions]) -> Iterator[Decoded]:
        """Map many latents to data, a chunk a request; see `stream_log_prob`."""
        return self._stream(stream_calls(DECODE, z, self._defaults, options))

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
        return self._run(
            calls.decode_picture(z, context, self._model, scale, self._defaults.failed)
        )

    def sample(self, num_samples: int = 1, **options: Unpack[DrawOptions]) -> Samples:
        """Draw samples; see `DrawOptions` for what else may be said."""
        return self._run(
            calls.sample(to_params(num_samples, options, self._defaults.failed), self._model)
        )

    def sample_picture(
        self, num_samples: int = 1, *, scale: int = 1, **options: Unpack[DrawOptions]
    ) -> bytes:
        """Draw samples as one PNG picture, a grid for several."""
        return self._run(
            calls.sample_picture(
                to_params(num_samples, options, self._defaults.failed), self._model, scale
            )
        )

    def stream(
        self, num_samples: int, *, chunk_rows: int = CHUNK_ROWS, **options: Unpack[DrawOptions]
    ) -> Iterator[Samples]:
        """Draw many samples, a chunk a request; joined, they are those of one request."""
        for call in calls.sample_chunks(
            to_params(num_samples, options, self._defaults.failed), self._model, chunk_rows
        ):
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

    def _run_rows(self, call: RowCall[T]) -> T:
        joiner = Joiner(call)
        for part in self._parts(call):
            joiner.add(part)
        return joiner.result()

    def _stream(self, calls: Iterator[RowCall[T]]) -> Iterator[T]:
        for call in calls:
            first = call.first_row
            for part in self._parts(call):
                yield call.result(part, first)
                first += len(part)

    def _parts(self, call: RowCall[Any]) -> Iterator[RowOutputs]:
        for start, stop in call.spans():
            yield from self._ask(call, start, stop)

    def _ask(self, call: RowCall[Any], start: int, stop: int) -> Iterator[RowOutputs]:
        """Ask for some rows, in smaller pieces where the server refuses so many."""
        try:
            part = self._run(call.piece(start, stop))
        except ResponseError as error:
            smaller = call.halve(start, stop, error)
        else:
            yield part
            return
        for piece in smaller:
            yield from self._ask(call, *piece)

    def _run(self, call: Call[T]) -> T:
        for attempt in count():
            outcome: AttemptResult
            try:
                outcome = self._http.request(**request_arguments(call))
            except httpx.RequestError as error:
                outcome = error
            pause = pause_before_retry(outcome, attempt, call.is_retried * self._max_retries)
            if pause is None:
                break
            time.sleep(pause)
        return finish(call, outcome)
