"""Traces by OpenTelemetry, where the extra `otel` is installed and `traces` is set.

    POST /encode        of kind server; its parent is what the client's traceparent names
    ├── decode          from arrival until its rows were queued
    ├── queue           the wait for the first batch, as in Server-Timing
    ├── compute         the engine's time, as in Server-Timing
    └── encode          from the engine's answer until the reply was written

A request's spans are made once it is answered, from the times taken on its way, in the same place
where it is counted and logged. The standard OTEL_* variables say where
they go, and which are kept. Nothing of OpenTelemetry is imported before `start`.

Reference: OpenTelemetry semantic conventions, HTTP server spans.
"""

import os
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.extras import install_command
from pushforward.version import package_version
from service.contracts import InferenceResult
from service.launch.exits import StartupError
from service.settings import flag_name
from service.telemetry.access_log import AccessRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_NAME = "pushforward"
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_METHODS = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")
)
# How long the end of the service waits for a collector that does not answer.
CLOSE_SECONDS = 2.0


class Stages:
    """The stages of a request: when its rows were queued and came back, by `time.monotonic()`.

    Args:
        route: the template of the request's path.
    """

    __slots__ = ("answered", "compute_seconds", "queue_seconds", "queued", "route")

    def __init__(self, route: str) -> None:
        self.route = route
        self.queued: float | None = None
        self.answered: float | None = None
        self.queue_seconds = 0.0
        self.compute_seconds = 0.0

    def enter_queue(self) -> None:
        """The rows are prepared."""
        self.queued = time.monotonic()

    def leave_queue(self, result: InferenceResult) -> None:
        """The rows are computed."""
        self.answered = time.monotonic()
        self.queue_seconds, self.compute_seconds = result.queue_seconds, result.compute_seconds

    def spans(self, began: float, ended: float) -> list[tuple[str, float, float]]:
        """Name each stage that was begun, with its begin and end."""
        if self.queued is None:
            return [("decode", began, ended)]
        decode = ("decode", began, self.queued)
        if self.answered is None:
            return [decode, ("queue", self.queued, ended)]
        # Of a request in several batches, the engine's time is the sum: others ran between them.
        batched = min(self.queued + self.queue_seconds, self.answered)
        computed = min(batched + self.compute_seconds, self.answered)
        return [
            decode,
            ("queue", self.queued, batched),
            ("compute", batched, computed),
            ("encode", self.answered, ended),
        ]


class Tracer:
    """Makes the spans of answered requests.

    Args:
        provider: where they go.
        exporter: what sends them, where `close` must be able to end that.
        close_seconds: how long `close` waits for whoever they are sent to.
    """

    def __init__(
        self,
        provider: "TracerProvider",
        exporter: "SpanExporter | None" = None,
        *,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._exporter = exporter
        self._close_seconds = close_seconds
        self._tracer = provider.get_tracer(_NAME, package_version())
        self._parent_of = TraceContextTextMapPropagator().extract
        self._context_with = set_span_in_context
        self._kind = SpanKind.SERVER
        self._failed = Status(StatusCode.ERROR)

    def record(
        self, access: AccessRecord, headers: Mapping[bytes, bytes], stages: Stages | None
    ) -> str | None:
        """Make the spans of a request that was just answered.

        Args:
            access: what is logged of it; `op` is the route where there are no stages.
            headers: of the request.
            stages: of what computes.

        Returns:
            The id of its trace.
        """
        clock, now = time.time_ns(), time.monotonic()
        began = now - access.duration_seconds
        route = stages.route if stages is not None else access.op
        method = access.method if access.method in _METHODS else "_OTHER"
        shown = "HTTP" if method == "_OTHER" else method
        span = self._tracer.start_span(
            f"{shown} {route}" if route.startswith("/") else shown,
            context=self._parent_of(_carrier(headers)),
            kind=self._kind,
            attributes=_attributes(access, method, route, headers),
            start_time=clock - _nanoseconds(now - began),
        )
        if span.is_recording():
            self._record_stages(span, stages, began, now, clock)
            if access.status >= 500:
                span.set_status(self._failed)
        span.end(clock)
        identity = span.get_span_context().trace_id
        return f"{identity:032x}" if identity else access.trace_id

    def close(self) -> None:
        """Send what waits, for a short while."""
        timer = None
        if self._exporter is not None:
            # Else a collector that is gone is tried again for half a minute.
            timer = threading.Timer(self._close_seconds, self._exporter.shutdown)
            timer.daemon = True
            timer.start()
        self._provider.shutdown()
        if timer is not None:
            timer.cancel()

    def _record_stages(
        self, span: "Span", stages: Stages | None, began: float, now: float, clock: int
    ) -> None:
        if stages is None:
            return
        parent = self._context_with(span)
        for name, start, end in stages.spans(began, now):
            child = self._tracer.start_span(
                name, context=parent, start_time=clock - _nanoseconds(now - start)
            )
            child.end(clock - _nanoseconds(now - end))


def trace_id(headers: Mapping[bytes, bytes]) -> str | None:
    """Take the trace's id from a W3C traceparent; a malformed one counts as none."""
    parent = headers.get(b"traceparent")
    if parent is None:
        return None
    match = _TRACEPARENT.fullmatch(parent)
    return match[1].decode() if match is not None and int(match[1], 16) else None


def start(*, close_seconds: float = CLOSE_SECONDS) -> Tracer:
    """Make a tracer that sends as the OTEL_* variables say.

    Args:
        close_seconds: as for `Tracer`.

    Raises:
        StartupError: the extra is not installed, or a variable cannot be used.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise StartupError(
            f"{flag_name('traces')}: OpenTelemetry is not installed: it needs the extra otel: "
            f"{install_command('otel')}"
        ) from None
    facts = {"service.version": package_version()}
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in given:
        facts["service.name"] = _NAME
    try:
        exporter = OTLPSpanExporter()
        provider = TracerProvider(resource=Resource.create(facts), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        raise StartupError(
            f"{flag_name('traces')}: an OTEL_* variable cannot be used: {error}"
        ) from None
    return Tracer(provider, exporter, close_seconds=close_seconds)


def _carrier(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    names = (b"traceparent", b"tracestate")
    return {name.decode(): headers[name].decode("latin-1") for name in names if name in headers}


def _attributes(
    access: AccessRecord, method: str, route: str, headers: Mapping[bytes, bytes]
) -> dict[str, Any]:
    """What is known of a request, by its conventional names; never tensors, never keys."""
    known: dict[str, Any] = {
        "http.request.method": method,
        "url.path": access.path,
        "url.scheme": "http",
        "http.response.status_code": access.status,
        f"{_NAME}.request_id": access.request_id,
    }
    if route.startswith("/"):
        known["http.route"] = route
    if b"user-agent" in headers:
        known["user_agent.original"] = headers[b"user-agent"].decode("latin-1")
    if access.status >= 500:
        known["error.type"] = str(access.status)
    if access.model:
        known[f"{_NAME}.model"] = access.model
    if access.version:
        known[f"{_NAME}.version"] = access.version
    if access.key:
        known[f"{_NAME}.key"] = access.key
    if access.rows is not None:
        known[f"{_NAME}.op"] = access.op
        known[f"{_NAME}.rows"] = access.rows
    return known


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
