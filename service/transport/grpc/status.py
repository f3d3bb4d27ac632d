"""Statuses of HTTP as gRPC has them, and the problem document in the trailing metadata.

    x-request-id, server-timing, retry-after, ...   as the headers of an answer over HTTP
    problem-code                                    the code of an error, as too_large
    problem-bin                                     its problem document: JSON (RFC 9457)
    grpc-retry-pushback-ms                          Retry-After, as gRPC's own retries read it

Reference: gRPC, statuscodes.md; proposal A6, client retries.
"""

from typing import Any

import orjson
from grpc import StatusCode

from service.operations.response import Response
from service.transport.request import read_headers

# What is too large is too large when it is sent again: not RESOURCE_EXHAUSTED, which clients retry.
STATUS_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.OUT_OF_RANGE,
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}
# Clients take 8 KiB of metadata; in base64 it is a third more.
_MOST_PROBLEM_BYTES = 3072
# The message's own, not the client's concern.
_LEFT_OUT = ("content-type", "content-length")

Metadata = tuple[tuple[str, str | bytes], ...]


def read_metadata(context: Any) -> tuple[dict[bytes, bytes], bytes | None]:
    """Read a call's metadata, as `read_headers` does the headers of a request."""
    return read_headers(
        (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for name, value in context.invocation_metadata()
    )


def answer_metadata(response: Response) -> Metadata:
    """The headers of an answer as metadata."""
    named = ((name.decode(), value.decode("latin-1")) for name, value in response.headers)
    return tuple((name, value) for name, value in named if name not in _LEFT_OUT)


def error_status(response: Response) -> tuple[StatusCode, str, Metadata]:
    """Read an answer that is an error: status code, details, trailing metadata."""
    problem = orjson.loads(response.body)
    body = response.body
    if len(body) > _MOST_PROBLEM_BYTES:
        body = orjson.dumps({name: problem[name] for name in problem if name != "errors"})
    metadata = list(answer_metadata(response))
    metadata += [("problem-code", problem["code"]), ("problem-bin", body[:_MOST_PROBLEM_BYTES])]
    retry_after = dict(metadata).get("retry-after")
    if retry_after is not None:
        metadata.append(("grpc-retry-pushback-ms", str(1000 * int(retry_after))))
    code = STATUS_CODES.get(response.status, StatusCode.UNKNOWN)
    return code, problem["detail"], tuple(metadata)
