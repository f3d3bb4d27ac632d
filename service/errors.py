"""Every error a client can meet, and how it looks on the wire.

    ServiceError
    ├── MalformedBody          400  the bytes are not what Content-Type says
    ├── MalformedRequest       400  not HTTP; the connection is closed
    ├── Unauthorized           401  no key, or one that is not known; WWW-Authenticate
    ├── NotFound               404  no such path
    │   └── ModelNotFound      404  no such model
    ├── MethodNotAllowed       405
    ├── NotAcceptable          406  Accept names nothing this call can answer with
    ├── BodyTimeout            408  the body did not arrive in time
    ├── TooLarge               413  more bytes, rows or values than the limits allow
    │   └── TooLargeForKey     413  more rows than a limit of the API key ever allows
    ├── UnsupportedMediaType   415  Content-Type, Content-Encoding or image kind not taken here
    ├── HeadTooLarge           431  path and headers longer than any client needs
    ├── InvalidRequest         422  readable, but not a request this call can answer
    │   ├── MissingField, UnknownField, InvalidParameter, OutOfRange
    │   ├── NotCalibrated, BackgroundNotServed
    │   └── ShapeMismatch, BadDtype, NonFinite
    ├── ModelRefused           422  a folder that was to be loaded cannot be served
    ├── KeyLimitExceeded       429  a limit of the API key is used up; Retry-After
    ├── Overloaded             429  the queue is full; Retry-After
    ├── InternalError          500  a fault of ours; the log has it under the request id
    │   └── EngineError        500  the engine failed on these rows
    ├── NotReady               503  loading or draining; Retry-After
    ├── TooManyConnections     503  no room for this one; Retry-After
    └── DeadlineExceeded       504  no answer before the deadline

    bytes ──decode──> fields ──find model──> rows ──queue──> answer ──encode──> bytes
      400, 401, 408, 413, 415  404, 503   422, 413    429, 500, 504     406

All are rendered by `service.problem`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """One part of a request that is wrong; pointer is a JSON pointer (RFC 6901), as /x/3.

    column: which value of the row it is, where it is one value.
    """

    pointer: str
    detail: str
    column: int | None = None


class ServiceError(Exception):
    """An error as a client sees it: `detail` says what was expected, what came, what to do.

    Args:
        detail: one sentence for the person who reads it.
        at: JSON pointer to the part that is wrong, where naming it helps.
        faults: the parts, where there are several.
        retry_after: whole seconds after which to try again.
        headers: further headers of the response, for example Allow.
        members: further members of the problem object.
    """

    status: int = 500
    code: str = "internal_error"
    title: str = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        at: str | None = None,
        faults: Sequence[Fault] = (),
        retry_after: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
        members: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults) if at is None else (Fault(at, detail), *faults)
        self.retry_after = retry_after
        self.headers = tuple(headers)
        self.members = members or {}

    def suggest(self, mend: str) -> None:
        """Add to what is said how the request is mended, where that is found out later."""
        whole, self.detail = self.detail, self.detail + mend
        self.faults = tuple(
            replace(fault, detail=self.detail) if fault.detail == whole else fault
            for fault in self.faults
        )


class MalformedBody(ServiceError):
    """The bytes are not what Content-Type says they are."""

    status = 400
    code = "malformed_body"
    title = "Malformed body"


class MalformedRequest(ServiceError):
    """What arrived is not HTTP, or says two things at once."""

    status = 400
    code = "malformed_request"
    title = "Malformed request"


class Unauthorized(ServiceError):
    """No API key, or one that is not known."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"

    def __init__(self, detail: str, *, is_invalid: bool = False) -> None:
        challenge = 'Bearer realm="pushforward"'
        if is_invalid:
            challenge += ', error="invalid_token"'
        super().__init__(detail, headers=[("WWW-Authenticate", challenge)])


class NotFound(ServiceError):
    """Nothing stands at this path."""

    status = 404
    code = "not_found"
    title = "Not found"


class ModelNotFound(NotFound):
    """No such model, or none named where several are served."""

    code = "model_not_found"
    title = "Model not found"


class MethodNotAllowed(ServiceError):
    """The path exists, but not for this method."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class NotAcceptable(ServiceError):
    """Accept names no media type this call can answer with."""

    status = 406
    code = "not_acceptable"
    title = "Not acceptable"


class BodyTimeout(ServiceError):
    """The client did not send its body in time (so 408, not 504: the wait was for the client)."""

    status = 408
    code = "body_timeout"
    title = "Body timeout"


class TooLarge(ServiceError):
    """More bytes, rows or values than the limits allow, in the request or in its answer."""

    status = 413
    code = "too_large"
    title = "Too large"


class TooLargeForKey(TooLarge):
    """More rows than a limit of the API key ever allows."""

    code = "too_large_for_key"
    title = "Too large for this key"


class UnsupportedMediaType(ServiceError):
    """Content-Type, Content-Encoding or the kind of picture is not taken here."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class InvalidRequest(ServiceError):
    """The body could be read but is not a request this call can answer."""

    status = 422
    code = "invalid_request"
    title = "Invalid request"

    def name_columns(self, names: Sequence[str] | None) -> None:
        """Say of each value of x that is wrong which column of the model's table it is.

        Called once a request is refused, so that a good one pays nothing for it; the first names
        that are known stay.

        Args:
            names: of the columns, in the order of x; None where they are not known.
        """
        if names is None:
            return
        columns = [_column_in(names, fault) for fault in self.faults]
        self.detail += next(filter(None, columns), "")
        self.faults = tuple(
            replace(fault, detail=fault.detail + column, column=None)
            for fault, column in zip(self.faults, columns, strict=True)
        )


class MissingField(InvalidRequest):
    """A field that this call or this model needs is not there."""

    code = "missing_field"
    title = "Missing field"


class UnknownField(InvalidRequest):
    """A field or query parameter that this call does not have."""

    code = "unknown_field"
    title = "Unknown field"


class InvalidParameter(InvalidRequest):
    """A field has the wrong type, or stands where it may not."""

    code = "invalid_parameter"
    title = "Invalid parameter"


class OutOfRange(InvalidRequest):
    """A number of the right type outside its bounds."""

    code = "out_of_range"
    title = "Out of range"


class ShapeMismatch(InvalidRequest):
    """A tensor with the wrong rank, row count or event shape, or with ragged rows."""

    code = "shape_mismatch"
    title = "Shape mismatch"


class BadDtype(InvalidRequest):
    """A tensor of something that is not a real number."""

    code = "bad_dtype"
    title = "Bad dtype"


class NonFinite(InvalidRequest):
    """A tensor that holds NaN, an infinity, or a number too large for the model's dtype."""

    code = "non_finite"
    title = "Non-finite value"


class NotCalibrated(InvalidRequest):
    """A rate of false alarms was asked of a model that has no calibration."""

    code = "not_calibrated"
    title = "Not calibrated"


class BackgroundNotServed(InvalidRequest):
    """Scores of this model are ratios to another one, which is not served, or in other weights."""

    code = "background_not_served"
    title = "Background not served"


class ModelRefused(ServiceError):
    """What lies in a model's folder cannot be served; the version before, if any, still is."""

    status = 422
    code = "model_refused"
    title = "Model refused"


class HeadTooLarge(ServiceError):
    """Path and headers are longer than any client needs."""

    status = 431
    code = "head_too_large"
    title = "Head too large"


class Overloaded(ServiceError):
    """The queue is full, or too slow; send it again after `retry_after` seconds.

    Args:
        is_counted: whether the queue that refused it has counted it.
    """

    status = 429
    code = "overloaded"
    title = "Overloaded"

    def __init__(self, detail: str, *, retry_after: int = 1, is_counted: bool = False) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.is_counted = is_counted


class KeyLimitExceeded(ServiceError):
    """A limit of the API key is used up; send it again after `retry_after` seconds."""

    status = 429
    code = "key_limit_exceeded"
    title = "Key limit exceeded"


class InternalError(ServiceError):
    """A fault of ours. The log has all of it under the request id; the client gets no more."""


class EngineError(InternalError):
    """The engine failed on these rows."""

    code = "engine_error"
    title = "Engine error"


class NotReady(ServiceError):
    """Models are loading, the service is draining, or the model cannot be served.

    Args:
        model: the name of one that was refused, where that is the reason.
    """

    status = 503
    code = "not_ready"
    title = "Not ready"

    def __init__(
        self,
        detail: str,
        *,
        retry_after: int = 1,
        members: dict[str, Any] | None = None,
        model: str = "",
    ) -> None:
        super().__init__(detail, retry_after=retry_after, members=members)
        self.model = model


class TooManyConnections(ServiceError):
    """As many connections are open as the machine allows."""

    status = 503
    code = "too_many_connections"
    title = "Too many connections"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail, retry_after=retry_after)


class DeadlineExceeded(ServiceError):
    """No answer before the request's deadline."""

    status = 504
    code = "deadline_exceeded"
    title = "Deadline exceeded"


def _column_in(names: Sequence[str], fault: Fault) -> str:
    # Only rows of x are those of the table: z and context have other columns.
    if fault.column is None or not fault.pointer.startswith("/x/") or fault.column >= len(names):
        return ""
    return f" in column {fault.column} {names[fault.column]!r:.80}"
