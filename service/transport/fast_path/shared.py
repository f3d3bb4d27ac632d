"""What the connections of one process share."""

from collections.abc import Mapping

from service.operations.response import Headers, write_headers
from service.settings import Settings
from service.telemetry import Metrics
from service.transport.asgi import OperationEndpoint
from service.transport.fast_path.coalescer import RequestCoalescer
from service.transport.fast_path.connection_limit import ConnectionLimit
from service.transport.fast_path.head_cache import RequestHeadCache


class SharedState:
    """The endpoints and the head cache, the coalescer, the limits and the counters.

    Args:
        settings: of the service.
        endpoints: of the operations, by path.
        metrics: where connections that are cut off are counted.

    headers, lines: of all answers, as uvicorn made them last, and as they are written.
    is_open: false sends all requests through ASGI, for good.
    """

    def __init__(
        self, settings: Settings, endpoints: Mapping[str, OperationEndpoint], metrics: Metrics
    ) -> None:
        self.timeout_seconds = settings.request_timeout_seconds
        self.write_timeout_seconds = settings.write_timeout_seconds
        self.max_body_bytes = settings.max_body_bytes
        self.metrics = metrics
        self.heads = RequestHeadCache(endpoints, settings.max_body_bytes)
        self.coalescer = RequestCoalescer()
        self.connection_limit = ConnectionLimit()
        self.is_open = True
        self.headers: Headers = []
        self.lines = b""

    def common_lines(self, headers: Headers) -> bytes:
        """The headers of all answers: uvicorn makes them anew every second, they are written once.

        Args:
            headers: uvicorn's, the same list until it makes another.
        """
        if headers is not self.headers:
            self.headers, self.lines = headers, write_headers(headers)
        return self.lines
