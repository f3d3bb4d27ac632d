"""Problem details: how errors look on the wire, `application/problem+json`.

Reference: RFC 9457, Problem Details for HTTP APIs.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import orjson

from service.errors import (
    InternalError,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    ServiceError,
    TooLarge,
)

PROBLEM_MEDIA_TYPE = "application/problem+json"


def unexpected(request_id: str) -> InternalError:
    """The error of an exception nobody foresaw: where to find it, and no more."""
    return InternalError(
        f"an unexpected error; the server's log has it under request id {request_id}"
    )


def from_status(status: int, detail: str, headers: Sequence[tuple[str, str]] = ()) -> ServiceError:
    """Turn a framework's bare status into one of ours, keeping its headers."""
    known = {kind.status: kind for kind in (MalformedBody, NotFound, MethodNotAllowed, TooLarge)}
    error = known.get(status, ServiceError)(detail, headers=headers)
    if error.status != status:
        error.status, error.title = status, HTTPStatus(status).phrase
        error.code = error.title.lower().replace(" ", "_")
    return error


def problem(error: ServiceError, request_id: str) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Render an error as `application/problem+json`.

    `error` repeats `detail`: the Open Inference Protocol asks for a member of that name, and
    RFC 9457 allows it, so one body serves both. `type` is a path below /problems, never fetched.

    Returns:
        Body and headers of the response.

    Reference: RFC 9457, Problem Details for HTTP APIs.
    """
    content: dict[str, Any] = {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "error": error.detail,
        "request_id": request_id,
    }
    if error.faults:
        content["errors"] = [{"pointer": f.pointer, "detail": f.detail} for f in error.faults]
    body = orjson.dumps(content | error.members)
    headers = [
        (b"content-type", PROBLEM_MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
    ]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    return body, headers
