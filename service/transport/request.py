"""The HTTP side of one request: its head, its id and its body."""

import re
import secrets
from collections.abc import Iterable, Mapping
from itertools import count
from typing import NamedTuple

from starlette.types import Receive, Send

from service.errors import (
    InvalidParameter,
    MalformedBody,
    MalformedRequest,
    Overloaded,
    TooLarge,
)
from service.operations.response import Response


class Head(NamedTuple):
    """What stands before a request's body; names of headers are lower case.

    repeated: a header that may stand once only and stands twice.
    """

    path: str
    query: bytes
    headers: dict[bytes, bytes]
    repeated: bytes | None = None


_SECONDS = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,9})?")
_VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
# A slow network cuts 64 MiB into 46,000 packets; more pieces than this are an attack.
MAX_PIECES = 65_536

# Headers that mean nothing where they stand twice: whoever takes the first does not do what the
# one who takes the last does. The others are lists (RFC 9110, section 5.3) or are not read here.
_SINGLE = frozenset(
    (
        *(b"authorization", b"content-encoding", b"content-length", b"content-type", b"host"),
        *(b"inference-header-content-length", b"x-api-key", b"x-timeout-seconds"),
    )
)

# Unique in the world and in the process, at the price of a counter.
_PREFIX = secrets.token_hex(8)
_serial = count(1)


class ClientGone(Exception):
    """The client hung up before its request was complete: there is nobody to answer."""


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], bytes | None]:
    """Make a table of headers, those that are lists joined.

    Returns:
        The table, and `Head.repeated`.
    """
    pairs = list(pairs)
    headers = dict(pairs)
    repeated = None
    if len(headers) < len(pairs):
        headers.clear()
        for name, value in pairs:
            if name in headers and name in _SINGLE:
                repeated = name
            is_list = name == b"accept" and name in headers
            headers[name] = headers[name] + b", " + value if is_list else value
    return headers, repeated


def repeated_header(name: bytes) -> MalformedRequest:
    """The error of a head that says two things."""
    return MalformedRequest(f"{name.decode().title()}: expected it once, got it twice")


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """Take the client's X-Request-Id if it is 1 to 128 visible ASCII characters, else make one."""
    given = headers.get(b"x-request-id")
    if given is not None and _VISIBLE.fullmatch(given):
        return given.decode("ascii")
    return f"{_PREFIX}-{next(_serial):08x}"


def request_ids(heads: Iterable[Head]) -> list[str]:
    """The ids of several requests, as `request_id` gives each."""
    return [
        request_id(head.headers)
        if b"x-request-id" in head.headers
        else f"{_PREFIX}-{next(_serial):08x}"
        for head in heads
    ]


def read_timeout(value: bytes) -> float:
    """Read X-Timeout-Seconds: how long the client waits.

    Raises:
        InvalidParameter: it is no plain number.
    """
    if not _SECONDS.fullmatch(value):
        raise InvalidParameter("X-Timeout-Seconds: expected a number of seconds, as 2.5")
    return float(value)


class ReceiveBudget:
    """A bound on the bytes of all bodies that arrive in pieces and are not whole yet.

    One alone is always taken; small ones arrive whole.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    def grow(self, own: int, count: int) -> None:
        """Make room for more of a body that holds `own` bytes.

        Raises:
            Overloaded: too much is being received.
        """
        if own < self._held and self._held + count > self._max_bytes:
            raise Overloaded(
                f"bodies: {self._held} bytes are being received, expected at most "
                f"{self._max_bytes} together; send it again"
            )
        self._held += count

    def release(self, own: int) -> None:
        """A body is whole, or given up."""
        self._held -= own


async def receive_body(
    headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, budget: ReceiveBudget
) -> bytes | bytearray:
    """Read a body, refusing one that is too large as early as that is known.

    It is given as it came: `service.transport.compression` decompresses it.

    Raises:
        MalformedBody: its length is not what Content-Length says: some server in front lost some.
        TooLarge: by Content-Length before anything is read, else as soon as it has grown too far.
        Overloaded: the bodies being received are too large together.
        ClientGone: the client left in the middle.
    """
    length = headers.get(b"content-length")
    if length is not None:
        if not length.isdigit():
            raise MalformedBody("Content-Length: expected a whole number")
        if len(length) > 18 or int(length) > max_bytes:
            raise _too_large(max_bytes)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    whole: bytes | bytearray = body
    if message.get("more_body", False):
        whole = await _read_pieces(body, receive, max_bytes, budget)
    elif len(body) > max_bytes:
        raise _too_large(max_bytes)
    if length is not None and int(length) != len(whole) and b"transfer-encoding" not in headers:
        raise MalformedBody(
            f"body: Content-Length announces {int(length)} bytes, got {len(whole)}; send it whole"
        )
    return whole


async def send_response(send: Send, response: Response) -> None:
    """Send a whole answer through ASGI."""
    status, headers, body = response
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read_pieces(
    first: bytes, receive: Receive, max_bytes: int, budget: ReceiveBudget
) -> bytearray:
    body = bytearray()
    piece: bytes = first
    more_body = True
    try:
        for _ in range(MAX_PIECES):
            budget.grow(len(body), len(piece))
            body += piece
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            if not more_body:
                return body
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece, more_body = message.get("body", b""), message.get("more_body", False)
    finally:
        budget.release(len(body))
    raise TooLarge(f"body: expected it in at most {MAX_PIECES} pieces")


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"body: expected at most {max_bytes} bytes; send the rows in several requests")
