"""One entry of the contract: a request, and the answer that it must get over every transport."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np

JSON, PROBLEM = "application/json", "application/problem+json"
NPY, NPZ, PNG, JPEG = "application/x-npy", "application/x-npz", "image/png", "image/jpeg"
# What every request calls itself, so that the bodies of errors are literal too.
REQUEST_ID = "contract"
# A header that is there with a value which is another one each time.
ANY = object()
# A request id that the server made, in the place of none or of a bad one.
MADE = object()

# Every error a client can meet: its status and its title.
ERRORS = {
    "malformed_body": (400, "Malformed body"),
    "malformed_request": (400, "Malformed request"),
    "unauthorized": (401, "Unauthorized"),
    "model_not_found": (404, "Model not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "not_acceptable": (406, "Not acceptable"),
    "too_large": (413, "Too large"),
    "too_large_for_key": (413, "Too large for this key"),
    "unsupported_media_type": (415, "Unsupported media type"),
    "invalid_request": (422, "Invalid request"),
    "missing_field": (422, "Missing field"),
    "unknown_field": (422, "Unknown field"),
    "invalid_parameter": (422, "Invalid parameter"),
    "out_of_range": (422, "Out of range"),
    "shape_mismatch": (422, "Shape mismatch"),
    "bad_dtype": (422, "Bad dtype"),
    "non_finite": (422, "Non-finite value"),
    "not_calibrated": (422, "Not calibrated"),
    "background_not_served": (422, "Background not served"),
    "overloaded": (429, "Overloaded"),
    "internal_error": (500, "Internal error"),
    "engine_error": (500, "Engine error"),
    "not_ready": (503, "Not ready"),
    "deadline_exceeded": (504, "Deadline exceeded"),
}


@dataclass(frozen=True)
class ExpectedResponse:
    """What must come back.

    body: the bytes; arrays by name of an npz archive; or pixels of a picture.
    headers: those that not every answer has, None for one of those that this one lacks.
    code: of an error.
    """

    status: int
    body: bytes | dict[str, Any] | list[Any]
    headers: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None


@dataclass(frozen=True)
class NotInV2:
    """Why a question cannot be put in the Open Inference Protocol."""

    reason: str


@dataclass(frozen=True)
class InV2:
    """How a question is put in the Open Inference Protocol where it cannot be derived.

    body: an object, or bytes as they are. headers, path: where they differ.
    """

    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One request and its answer.

    body: an object to be written as JSON, or bytes.
    headers: None takes one away that requests have otherwise.
    settings: of the server, beside those that all have.
    v2: None derives the question in the Open Inference Protocol.
    """

    name: str
    operation: str
    body: Any
    answer: ExpectedResponse
    query: Mapping[str, Any] | str = ""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    method: str = "POST"
    settings: Mapping[str, Any] = field(default_factory=dict)
    v2: InV2 | NotInV2 | None = None

    @property
    def target(self) -> str:
        """Path and query."""
        query = self.query if isinstance(self.query, str) else urlencode(self.query)
        return f"/{self.operation}?{query}" if query else f"/{self.operation}"

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    @property
    def sent_headers(self) -> dict[str, str]:
        """All headers, less those that are the transport's own."""
        plain = {"Content-Type": JSON, "X-Request-Id": REQUEST_ID} | dict(self.headers)
        return {name: value for name, value in plain.items() if value is not None}

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the query string, as text."""
        query = self.query if isinstance(self.query, str) else urlencode(self.query)
        return dict(parse_qsl(query, keep_blank_values=True))

    @property
    def model(self) -> str | None:
        """The model that is named, in the query string or in the body."""
        try:
            fields = json.loads(self.content)
        except (ValueError, RecursionError):
            fields = None
        named = fields.get("model") if isinstance(fields, dict) else None
        found = self.fields.get("model", named)
        return found if isinstance(found, str) else None

    def header(self, name: str) -> str | None:
        """A header that is sent."""
        return self.sent_headers.get(name)


def ok(
    body: bytes | dict[str, Any] | list[Any],
    media: str = JSON,
    odd: Mapping[str, Any] | None = None,
    **headers: Any,
) -> ExpectedResponse:
    """A good answer; `x_seed="1"` is the header X-Seed, `odd` are those with names as they are."""
    return ExpectedResponse(200, body, {"content-type": media} | dict(odd or {}) | _named(headers))


def problem(
    code: str,
    detail: str,
    at: str | None = None,
    *,
    errors: Sequence[tuple[str, str]] = (),
    members: Mapping[str, Any] | None = None,
    **headers: Any,
) -> ExpectedResponse:
    """An error; `at` is the one place that its `detail` is about, `errors` are several."""
    status, title = ERRORS[code]
    content: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "error": detail,
        "request_id": REQUEST_ID,
    }
    places = [(at, detail)] if at is not None else errors
    if places:
        content["errors"] = [{"pointer": pointer, "detail": said} for pointer, said in places]
    content |= members or {}
    body = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    return ExpectedResponse(status, body, {"content-type": PROBLEM} | _named(headers), code)


def npy(values: Any, dtype: str = "<f4", **options: Any) -> bytes:
    """A file of one array."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype), **options)
    return buffer.getvalue()


def npz(**values: Any) -> bytes:
    """A file of several arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **values)
    return buffer.getvalue()


def picture(pixels: Any, mode: str = "L", kind: str = "PNG") -> bytes:
    """A picture of these values."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8), mode=None if mode != "CMYK" else mode).save(
        buffer, kind
    )
    return buffer.getvalue()


def _named(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
