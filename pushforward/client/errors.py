"""Everything that can go wrong for a client.

ClientError
├── ConnectionFailed       no connection, or it broke
│   └── TimedOut           no answer within the client's timeout
├── UnreadableAnswer       what came is not what a pushforward server sends
├── VersionChanged         the model was replaced between the pieces of one call
├── RowsFailed             rows have no answer, and the caller chose failed="raise"
└── ResponseError          the server answered with an error: status_code, code, request_id
    ├── RequestRefused     4xx: the request is wrong, sending it again does not help
    │   ├── AccessDenied   401, 403
    │   └── NotFound       404: no such model, or no such path
    ├── Overloaded         429, after all retries
    └── ServerFailed       5xx, after all retries
        ├── NotReady          503
        └── DeadlineExceeded  504

Each names the method and the URL that it is about.
"""

import re

import httpx


class ClientError(Exception):
    """Any failure of a call."""


class ConnectionFailed(ClientError):
    """The server could not be reached, or the connection broke before the answer."""


class TimedOut(ConnectionFailed):
    """The answer did not come within the client's timeout."""


class UnreadableAnswer(ClientError):
    """The answer is not what a pushforward server sends; is the base URL right?"""


class VersionChanged(ClientError):
    """The model was replaced between the pieces of one call: its answer would be of two models.

    Args:
        model: its name.
        versions: that of the first piece, and the other.
    """

    def __init__(self, model: str, *versions: str) -> None:
        super().__init__(
            f"{model}: version {versions[0]} became {versions[1]} between the pieces of this "
            "call, whose answer would be of both: call again"
        )
        self.model = model
        self.versions = versions


class ResponseError(ClientError):
    """The server answered with an error.

    Args:
        detail: the server's sentence: what was expected, what came, what to do.
        status_code: the HTTP status.
        code: the server's stable name of the error, as "shape_mismatch"; "" if it gave none.
        request_id: what the server's log has the request under; "" if it gave none.
        method: of the request.
        url: of the request, without its query; "" where not known.

    Attributes:
        first_row: of a call in pieces, where the refused piece begins: `detail` counts from there.
    """

    def __init__(
        self,
        detail: str,
        *,
        status_code: int,
        code: str,
        request_id: str,
        method: str = "",
        url: str = "",
    ) -> None:
        self.detail = detail
        self.status_code = status_code
        self.code = code
        self.request_id = request_id
        self.method = method
        self.url = url
        self.first_row = 0
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.method} {self.url}: " if self.url else ""
        named = f"{self.status_code} {self.code}".rstrip()
        request = f" (request {self.request_id})" if self.request_id else ""
        rows = f" (counted from row {self.first_row} of the call)" if self.first_row else ""
        return f"{where}{named}: {self.detail}{rows}{request}"


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


_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)


def from_response(response: httpx.Response) -> ResponseError:
    """Make of an error's response the exception that tells it."""
    status = response.status_code
    problem = _read_problem(response)
    kind = _BY_STATUS.get(status, RequestRefused if status < 500 else ServerFailed)
    return kind(
        str(problem.get("detail") or problem.get("error") or _describe(response)),
        status_code=status,
        code=str(problem.get("code", "")),
        request_id=str(problem.get("request_id") or response.headers.get("x-request-id", "")),
        method=response.request.method,
        url=plain_url(response.request.url),
    )


def from_transport(error: httpx.RequestError) -> ConnectionFailed:
    """Make of httpx's exception ours."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = f"{error.request.method} {plain_url(error.request.url)}: {text}"
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return TimedOut(text)
    return ConnectionFailed(text)


def unreadable(response: httpx.Response, problem: str) -> UnreadableAnswer:
    """Say what is wrong with an answer, and whose it is."""
    request = response.request
    return UnreadableAnswer(
        f"{request.method} {plain_url(request.url)}: {response.status_code}: {problem}"
    )


def plain_url(url: httpx.URL) -> str:
    """A URL as messages show it: without its query, and without a password."""
    return str(url.copy_with(query=None, fragment=None, username=None, password=None))


def _describe(response: httpx.Response) -> str:
    """What an answer says that is none of ours: a proxy's page, a redirection, or nothing."""
    to = response.headers.get("location")
    if response.is_redirect and to:
        return f"redirected to {to}: give the base URL that this leads to"
    title = _TITLE.search(response.text)
    text = title.group(1) if title else response.text[:200]
    return " ".join(text.split()) or response.reason_phrase or "no reason given"


def _read_problem(response: httpx.Response) -> dict[str, object]:
    try:
        problem = response.json()
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
