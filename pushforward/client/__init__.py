"""A client for `pushforward`: numpy in, numpy out, binary on the wire.

    from pushforward.client import Client

    with Client("http://127.0.0.1:8000", model="moons") as client:
        x = client.sample(1000, seed=7).x
        log_prob = client.log_prob(x)

It needs httpx and numpy, nothing of the server.
"""

from pushforward.client.calls import Decoded, DrawOptions, Encoded, Samples
from pushforward.client.clients import AsyncClient, Client
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
)

__all__ = [
    "AccessDenied",
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Decoded",
    "DrawOptions",
    "Encoded",
    "NotFound",
    "NotReady",
    "Overloaded",
    "RequestRefused",
    "ResponseError",
    "Samples",
    "ServerFailed",
    "TimedOut",
    "UnreadableAnswer",
]
