"""One connection of a load: a request at a time, written as bytes, answers read by llhttp."""

import asyncio
import json
from dataclasses import dataclass
from typing import Protocol

import httptools

_BUFFER_BYTES = 256 * 1024
_SERVER_TIMING = b"server-timing"


@dataclass(slots=True)
class LoadRequest:
    """A request: when it is due, when it was taken up and when it was sent."""

    due: float
    taken: float
    sent: float = 0.0


class ConnectionOwner(Protocol):
    """Who is told what becomes of a connection."""

    def opened(self, connection: "Connection") -> None:
        """It can be used."""

    def answered(self, connection: "Connection") -> None:
        """All of an answer is there."""

    def lost(self, connection: "Connection", error: Exception | None) -> None:
        """It is gone; also where it was closed from here."""


class Connection(asyncio.BufferedProtocol):
    """A connection that is kept, and the request under way on it.

    Args:
        owner: who is told.
        buffer: where bytes arrive; all connections of a loop share one.
    """

    def __init__(self, owner: ConnectionOwner, buffer: bytearray) -> None:
        self._owner = owner
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self.request: LoadRequest | None = None
        self.idle_since = 0.0
        self.status = 0
        self.timing = b""
        self.received_bytes = 0
        self.is_closing = False

    def send(self, request: LoadRequest, message: bytes) -> None:
        """Write a request."""
        self.request = request
        self.timing = self._body = b""
        if self._transport is not None:
            self._transport.write(message)

    def close(self) -> None:
        """Close it without waiting for anything."""
        self.is_closing = True
        if self._transport is not None:
            self._transport.abort()

    def problem(self) -> str:
        """The code of the problem that the last answer tells; the status where it is none."""
        try:
            code = json.loads(self._body).get("code")
        except (ValueError, AttributeError):
            code = None
        return str(code or f"status {self.status}")

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
        self._owner.opened(self)

    def get_buffer(self, sizehint: int) -> bytearray:
        """Give the shared buffer: what arrives is read before anything else is."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read what arrived."""
        self.received_bytes += nbytes
        try:
            self._parser.feed_data(self._view[:nbytes])
        except httptools.HttpParserCallbackError:
            raise  # a fault of ours
        except httptools.HttpParserError as error:
            self._owner.lost(self, error)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Say that it is gone."""
        self.is_closing = True
        self._owner.lost(self, error)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep Server-Timing."""
        if len(name) == len(_SERVER_TIMING) and name.lower() == _SERVER_TIMING:
            self.timing = value

    def on_body(self, body: bytes) -> None:
        """Keep the text of a problem."""
        if self._parser.get_status_code() >= 400:
            self._body += body

    def on_message_complete(self) -> None:
        """Give the answer to the owner."""
        self.status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.is_closing = True
        self._owner.answered(self)


def make_buffer() -> bytearray:
    """Memory for what arrives on all connections of a loop."""
    return bytearray(_BUFFER_BYTES)
