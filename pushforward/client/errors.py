"""Everything that can go wrong for a client.

ClientError
├── ConnectionFailed       no connection, or it broke
│   └── TimedOut           no answer within the client's timeout
├── UnreadableAnswer       what came is not what a pushforward server sends
└── ResponseError          the server answered with an error: status_code, code, request_id
    ├── RequestRefused     4xx: the request is wrong, sending it again does not help
    │   ├── AccessDenied   401, 403
    │   └── NotFound       404: no such model, or no such path
    ├── Overloaded         429, after all retries
    └── ServerFailed       5xx, after all retries
        ├── NotReady          503
        └── DeadlineExceeded  504
"""

import httpx


class ClientError(Exception):
    """Any failure of a call."""


class ConnectionFailed(ClientError):
    """The server could not be reached, or the connection broke before the answer."""


class TimedOut(ConnectionFailed):
    """The answer did not come within the client's timeout."""


class UnreadableAnswer(ClientError):
    """The answer is not what a pushforward server sends; is the base URL right?"""


class ResponseError(ClientError):
    """The server answered with an error.

    Args:
        detail: the server's sentence: what was expected, what came, what to do.
        status_code: the HTTP status.
        code: the server's stable name of the error, as "shape_mismatch"; "" if it gave none.
        request_id: what the server's log has the request under; "" if it gave none.
    """

    def __init__(self, detail: str, *, status_code: int, code: str, request_id: str) -> None:
        super().__init__(f"{status_code} {code}: {detail} (request {request_id})")
        self.detail = detail
        self.status_code = status_code
        self.code = code
        self.request_id = request_id


class RequestRefused(ResponseError):
    """The request is wrong: sending it again does not help."""


class AccessDenied(RequestRefused):
    """No API key, or one that is not taken."""


class NotFound(RequestRefused):
    """No such model, or no such path."""


class Overloaded(ResponseError):
    """The server's queue is full, after all retries."""


class ServerFailed(ResponseError):
    """The server failed, after all retries."""


class NotReady(ServerFailed):
    """The server is loading or shutting down."""


class DeadlineExceeded(ServerFailed):
    """The server had no answer within the timeout it was told."""


_BY_STATUS = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    429: Overloaded,
    503: NotReady,
    504: DeadlineExceeded,
}


def from_response(response: httpx.Response) -> ResponseError:
    """Make of an error's response the exception that tells it."""
    status = response.status_code
    problem = _read_problem(response)
    detail = str(problem.get("detail") or problem.get("error") or response.text[:200])
    kind = _BY_STATUS.get(status, RequestRefused if status < 500 else ServerFailed)
    return kind(
        detail,
        status_code=status,
        code=str(problem.get("code", "")),
        request_id=str(problem.get("request_id") or response.headers.get("x-request-id", "")),
    )


def from_transport(error: httpx.RequestError) -> ConnectionFailed:
    """Make of httpx's exception ours."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOut(text)
    return ConnectionFailed(text)


def _read_problem(response: httpx.Response) -> dict[str, object]:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
