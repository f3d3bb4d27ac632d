"""What the heads of requests ask for: each is parsed once, and then known by its bytes."""

from collections.abc import Mapping
from typing import NamedTuple

import httptools

from service.errors import MalformedRequest
from service.settings import Settings
from service.telemetry import Metrics
from service.transport.fast_path.connection_limit import Room
from service.transport.fast_path.plain import PlainOperation
from service.transport.request import Head, Headers, read_headers

# The parser itself would keep a head of any length.
MOST_HEAD_BYTES = 65_536

_END_OF_HEAD = b"\r\n\r\n"
# Headers that ask for more than a body and its answer; browsers' Origin is a matter of CORS.
_ODD = frozenset((b"content-encoding", b"expect", b"origin", b"transfer-encoding", b"upgrade"))
# Headers that are never the same twice: remembering their heads would only fill the memory.
_UNIQUE = frozenset((b"traceparent", b"x-request-id"))
_MAX_HEADS = 1024
_MAX_HEAD_BYTES = 2048


class RoutedRequest(NamedTuple):
    """What a head asks for; see `PlainOperation.is_plain`."""

    operation: PlainOperation
    head: Head
    head_bytes: int
    body_bytes: int
    keep_alive: bool
    is_plain: bool


class RequestHeadCache:
    """The operations by path, and the heads of requests seen before.

    A client sends the same head again and again: each is parsed once, by the parser that uvicorn
    uses, and then known by its bytes. Equal bytes mean the same.

    Args:
        settings: of the service.
        operations: by path.
        metrics: where connections that are cut off are counted.

    is_open: false sends all newcomers the ordinary way, for good.
    room: for connections.
    """

    def __init__(
        self,
        settings: Settings,
        operations: Mapping[str, PlainOperation],
        metrics: Metrics,
    ) -> None:
        self.timeout_seconds = settings.request_timeout_seconds
        self.write_timeout_seconds = settings.write_timeout_seconds
        self.metrics = metrics
        self.is_open = True
        self.room = Room()
        self.max_body_bytes = settings.max_body_bytes
        self._operations = {path.encode(): operation for path, operation in operations.items()}
        self._orders: dict[bytes, RoutedRequest] = {}

    def read(self, data: bytes) -> RoutedRequest | None:
        """Read the head that `data` begins with; None sends it the ordinary way."""
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if not self.is_open or not len(_END_OF_HEAD) <= end <= MOST_HEAD_BYTES:
            return None
        head = data[:end]
        order = self._orders.get(head)
        return self._parse(head) if order is None else order

    def _parse(self, data: bytes) -> RoutedRequest | None:
        found = _Parsed()
        parser = httptools.HttpRequestParser(found)
        found.parser = parser
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        path, _, query = found.url.partition(b"?")
        operation = self._operations.get(path)
        headers, twice = read_headers(found.headers)
        length = headers.get(b"content-length", b"0")
        if (
            operation is None
            or found.method != b"POST"
            or found.version != "1.1"
            or twice is not None
            or b"host" not in headers
            or not _ODD.isdisjoint(headers)
            or not length.isdigit()
            or int(length) > self.max_body_bytes
        ):
            return None
        head = Head(path.decode(), query, headers)
        is_plain = operation.is_plain(head)
        order = RoutedRequest(operation, head, len(data), int(length), found.keep_alive, is_plain)
        if len(data) <= _MAX_HEAD_BYTES and _UNIQUE.isdisjoint(headers):
            if len(self._orders) == _MAX_HEADS:
                self._orders.clear()
            self._orders[data] = order
        return order


def check_head(method: bytes, version: str, headers: Headers) -> None:
    """Refuse a head after which nobody can say what was meant, or where the next one begins.

    Raises:
        MalformedRequest: another version, a tunnel, no host, or a body in a coding not taken here.
    """
    if version not in ("1.0", "1.1"):
        raise MalformedRequest(f"expected HTTP/1.1, got HTTP/{version}; the connection is closed")
    if method == b"CONNECT":
        raise MalformedRequest("CONNECT: this is no proxy; the connection is closed")
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise MalformedRequest(f"Host: expected it once, got it {hosts} times")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
        raise MalformedRequest("Transfer-Encoding: expected chunked and no other")


class _Parsed:
    """What the parser finds in one head; nothing where the head is not complete."""

    parser: httptools.HttpRequestParser

    def __init__(self) -> None:
        self.url = b""
        self.headers: Headers = []
        self.method = b""
        self.version = ""
        self.keep_alive = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.method = self.parser.get_method()
        self.version = self.parser.get_http_version()
        self.keep_alive = self.parser.should_keep_alive()
