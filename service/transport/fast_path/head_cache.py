"""A cache of request heads: each is parsed once, and then known by its bytes."""

from collections.abc import Mapping
from typing import NamedTuple

import httptools

from service.errors import MalformedRequest
from service.operations.response import Headers
from service.transport.asgi import OperationEndpoint
from service.transport.request import Head, read_headers

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
    """What a head asks for; see `OperationEndpoint.is_plain`."""

    endpoint: OperationEndpoint
    head: Head
    head_bytes: int
    body_bytes: int
    keep_alive: bool
    is_plain: bool


# A head that says nothing, and what it asks for.
_NO_HEAD: tuple[bytes, RoutedRequest | None] = (_END_OF_HEAD, None)


class RequestHeadCache:
    """The endpoints by path, and the heads of requests seen before.

    A client sends the same head again and again: each is parsed once, by the parser that uvicorn
    uses, and then known by its bytes. Equal bytes mean the same.

    Args:
        endpoints: of the operations, by path.
        max_body_bytes: requests with larger bodies are not taken.
    """

    def __init__(self, endpoints: Mapping[str, OperationEndpoint], max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self._endpoints = {path.encode(): endpoint for path, endpoint in endpoints.items()}
        self._routed: dict[bytes, RoutedRequest] = {}
        # The head that was read before this one, which is mostly the same.
        self._latest = _NO_HEAD

    def read(self, data: bytes) -> RoutedRequest | None:
        """Read the head that `data` begins with; None leaves it to uvicorn."""
        latest, routed = self._latest
        if data.startswith(latest):
            return routed
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        if not len(_END_OF_HEAD) <= end <= MOST_HEAD_BYTES:
            return None
        head = data[:end]
        routed = self._routed.get(head)
        if routed is None:
            return self._parse(head)
        self._latest = head, routed
        return routed

    def _parse(self, data: bytes) -> RoutedRequest | None:
        found = _ParsedHead()
        parser = httptools.HttpRequestParser(found)
        found.parser = parser
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        path, _, query = found.url.partition(b"?")
        endpoint = self._endpoints.get(path)
        headers, repeated = read_headers(found.headers)
        length = headers.get(b"content-length", b"0")
        if (
            endpoint is None
            or found.method != b"POST"
            or found.version != "1.1"
            or repeated is not None
            or b"host" not in headers
            or not _ODD.isdisjoint(headers)
            or not length.isdigit()
            or int(length) > self._max_body_bytes
        ):
            return None
        head = Head(path.decode(), query, headers)
        is_plain = endpoint.is_plain(head)
        routed = RoutedRequest(endpoint, head, len(data), int(length), found.keep_alive, is_plain)
        if len(data) <= _MAX_HEAD_BYTES and _UNIQUE.isdisjoint(headers):
            if len(self._routed) == _MAX_HEADS:
                self._routed.clear()
                self._latest = _NO_HEAD
            self._routed[data] = routed
        return routed


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


class _ParsedHead:
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
