"""A client for `pushforward`: numpy in, numpy out, binary on the wire.

    from pushforward.client import Client

    with Client("http://127.0.0.1:8000", model="moons") as client:
        x = client.sample(1000, seed=7).x
        log_prob = client.log_prob(x)

It needs httpx and numpy, nothing of the server.
"""

from pushforward.client.answers import Decoded, Encoded, Samples, Scores
from pushforward.client.async_client import AsyncClient
from pushforward.client.calls import DrawOptions
from pushforward.client.clients import Client
from pushforward.client.errors import (
    AccessDenied,
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    NotFound,
    NotReady,
    Overloaded,
    RequestRefused,
    ResponseError,
    ServerFailed,
    TimedOut,
    UnreadableAnswer,
    VersionChanged,
)
from pushforward.client.failures import Failure, MaskedRows, RowsFailed
from pushforward.client.row_calls import ChunkOptions, RowOptions
from pushforward.client.score_calls import Scored, ScoreOptions, ScoreStreamOptions

__all__ = [
    "AccessDenied",
    "AsyncClient",
    "ChunkOptions",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Decoded",
    "DrawOptions",
    "Encoded",
    "Failure",
    "MaskedRows",
    "NotFound",
    "NotReady",
    "Overloaded",
    "RequestRefused",
    "ResponseError",
    "RowOptions",
    "RowsFailed",
    "Samples",
    "ScoreOptions",
    "ScoreStreamOptions",
    "Scored",
    "Scores",
    "ServerFailed",
    "TimedOut",
    "UnreadableAnswer",
    "VersionChanged",
]
