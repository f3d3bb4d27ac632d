"""Requests that offer another protocol: answered in the one they are written in.

Java's HttpClient and `curl --http2` ask for h2c with every first request. The parser takes such a
head for the end of HTTP/1.1 and skips the body, so it is given the same head without the offer,
which a server may ignore (RFC 9110, section 7.8).
"""

from service.operations.response import Headers, write_headers

_OFFER = b"upgrade"


def head_without_offer(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Write a head again, less what makes the parser give up HTTP/1.1."""
    kept = [pair for pair in headers if pair[0] != _OFFER]
    line = b"%b %b HTTP/%b\r\n" % (method, url, version.encode())
    return b"".join((line, write_headers(kept), b"\r\n"))
