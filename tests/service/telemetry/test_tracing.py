"""Traces: the spans of each kind of request, and where they hang."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from benchmarks.process import serving
from service.app import Application, create_app
from service.errors import DeadlineExceeded
from service.launch.exits import StartupError
from service.settings import Settings
from service.telemetry import Metrics
from service.telemetry.access_log import ACCESS_LOGGER, AccessLog
from service.telemetry.tracing import Stages, Tracer, start
from tests.service.fake_repository import FakeRepository, ask, post

ROOT = Path(__file__).resolve().parents[3]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
ROWS = {"model": "line", "x": [[2, 4, 6], [0, 0, 0]]}
STAGES = ["decode", "queue", "compute", "encode"]
INFER = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [2, 4, 6]}]}


class TracedApplication:
    """An application whose spans and log lines are kept."""

    def __init__(self, **options: Any) -> None:
        self.repository = FakeRepository()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False, **options)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = Tracer(provider)
        self.log = io.StringIO()
        self.access = AccessLog("json", self.log)
        self.app = self.build()

    def build(self) -> Application:
        return create_app(Settings(), self.repository, Metrics(), self.access, self.tracer)

    def spans(self) -> tuple[ReadableSpan, list[ReadableSpan]]:
        """The one request's span, and those in it in order of their beginning."""
        found = self.exporter.get_finished_spans()
        (server,) = (span for span in found if span.kind is SpanKind.SERVER)
        stages = [span for span in found if span is not server]
        return server, sorted(stages, key=lambda span: span.start_time or 0)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_has_its_stages_below_the_clients_span() -> None:
    traced = TracedApplication()
    headers = {"traceparent": PARENT, "X-Request-Id": "mine", "User-Agent": "test"}
    assert post(traced.app, "/encode", json=ROWS, headers=headers).status_code == 200
    server, stages = traced.spans()
    assert server.name == "POST /encode"
    assert server.parent is not None
    assert f"{server.parent.trace_id:032x}-{server.parent.span_id:016x}" in PARENT
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/encode",
        "url.path": "/encode",
        "url.scheme": "http",
        "user_agent.original": "test",
        "pushforward.model": "line",
        "pushforward.op": "encode",
        "pushforward.request_id": "mine",
        "pushforward.rows": 2,
        "pushforward.version": "3",
    }
    assert [span.name for span in stages] == STAGES
    assert {span.parent.span_id for span in stages if span.parent} == {server.context.span_id}
    times = [time for span in stages for time in (span.start_time, span.end_time)]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (server.start_time, server.end_time)


def test_queue_and_compute_are_the_times_of_server_timing() -> None:
    stages = Stages("/encode")
    stages.queued, stages.answered = 10.0, 15.0
    stages.queue_seconds, stages.compute_seconds = 1.0, 2.0
    assert stages.spans(9.0, 16.0) == [
        ("decode", 9.0, 10.0),
        ("queue", 10.0, 11.0),
        ("compute", 11.0, 13.0),
        ("encode", 15.0, 16.0),
    ]


@pytest.mark.parametrize(
    ("path", "body", "route"),
    [
        ("/log_prob", ROWS, "/log_prob"),
        ("/sample", {"model": "line"}, "/sample"),
        ("/v2/models/line/infer", INFER, "/v2/models/{name}/infer"),
        (
            "/v2/models/line/versions/3/infer",
            INFER,
            "/v2/models/{name}/versions/{version}/infer",
        ),
    ],
)
def test_spans_are_named_by_route(path: str, body: Any, route: str) -> None:
    traced = TracedApplication()
    assert post(traced.app, path, json=body).status_code == 200
    server, stages = traced.spans()
    assert server.parent is None
    assert server.name == f"POST {route}"
    assert attributes(server)["url.path"] == path
    assert [span.name for span in stages] == STAGES


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/models/line", "GET /models/{name}"),
        ("GET", "/nowhere", "GET"),
        ("BREW", "/models", "HTTP /models"),
    ],
)
def test_other_calls_have_a_span_too(method: str, path: str, name: str) -> None:
    traced = TracedApplication()
    ask(traced.app, method, path)
    server, stages = traced.spans()
    assert (server.name, stages) == (name, [])


def test_health_and_metrics_have_none() -> None:
    traced = TracedApplication()
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert ask(traced.app, "GET", path).status_code == 200
    assert traced.exporter.get_finished_spans() == ()


def test_a_refused_request_ends_in_the_stage_it_came_to() -> None:
    traced = TracedApplication()
    assert post(traced.app, "/encode", content=b"{").status_code == 400
    server, stages = traced.spans()
    assert [span.name for span in stages] == ["decode"]
    assert server.status.status_code is StatusCode.UNSET, "the client's fault is none of ours"
    traced.exporter.clear()
    traced.repository.queue("line", "encode").failure = DeadlineExceeded("too late")
    assert post(traced.app, "/encode", json=ROWS).status_code == 504
    server, stages = traced.spans()
    assert [span.name for span in stages] == ["decode", "queue"]
    assert server.status.status_code is StatusCode.ERROR
    assert attributes(server)["error.type"] == "504"


@pytest.mark.parametrize("parent", [None, PARENT, "00-0-0-0"])
def test_the_log_has_the_id_of_the_trace(
    parent: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, ACCESS_LOGGER)
    traced = TracedApplication()
    post(
        traced.app, "/encode", json=ROWS, headers={} if parent is None else {"traceparent": parent}
    )
    traced.access.flush()
    server, _ = traced.spans()
    shown = json.loads(traced.log.getvalue())["trace_id"]
    assert shown == f"{server.context.trace_id:032x}"
    assert (shown == TRACE) is (parent == PARENT)


@pytest.mark.parametrize("flag", ["00", "01"])
def test_the_client_decides_what_is_kept(flag: str) -> None:
    traced = TracedApplication(sampler=ParentBased(ALWAYS_OFF))
    post(traced.app, "/encode", json=ROWS, headers={"traceparent": f"{PARENT[:-2]}{flag}"})
    assert len(traced.exporter.get_finished_spans()) == (0 if flag == "00" else 5)


def test_without_a_tracer_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.transport.asgi.Stages", None)
    app = create_app(Settings(), FakeRepository())
    assert post(app, "/encode", json=ROWS).status_code == 200


def test_the_end_of_the_service_sends_what_waits() -> None:
    traced = TracedApplication()
    ended = []

    async def live() -> None:
        async with traced.app.router.lifespan_context(traced.app):
            pass

    traced.tracer.close = lambda: ended.append(True)  # type: ignore[method-assign]
    asyncio.run(live())
    assert ended == [True]


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP collector on loopback: its address and what it was sent."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


def test_the_server_sends_traces_where_the_variables_say(tmp_path: Path) -> None:
    with collector() as (url, received):
        variables = {
            "PUSHFORWARD_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
        }
        moons = str(ROOT / "models" / "zoo" / "moons")
        flags = ("--engine", "torch", "--log-format", "json")
        with serving(tmp_path / "log", moons, *flags, env=variables) as server:
            with server.client() as client:
                body = {"x": [[0.0, 1.0]]}
                answer = client.post("/log_prob", json=body, headers={"traceparent": PARENT})
                assert answer.status_code == 200
            assert server.terminate() == 0
    sent = [ExportTraceServiceRequest.FromString(body) for body in received]
    resources = [resource for message in sent for resource in message.resource_spans]
    names = {fact.key: fact.value.string_value for fact in resources[0].resource.attributes}
    assert names["service.name"] == "pushforward"
    spans = [
        span for resource in resources for scope in resource.scope_spans for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == sorted(["POST /log_prob", *STAGES])
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    lines = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert [line["trace_id"] for line in lines if line.get("op") == "log_prob"] == [TRACE]


def test_without_the_extra_it_is_one_line_and_exit_3() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from pushforward.cli.main import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "serve", "--traces", "true", "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert result.returncode == 3
    (line,) = result.stderr.splitlines()
    assert line.startswith("pushforward: --traces: OpenTelemetry is not installed")
    assert "[otel]" in line


def test_a_variable_that_cannot_be_used_keeps_it_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000000")
    with pytest.raises(StartupError, match=r"^--traces: an OTEL_"):
        start()


def test_a_collector_that_is_gone_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracer = start(close_seconds=0.1)
    app = create_app(Settings(), FakeRepository(), tracer=tracer)
    assert post(app, "/encode", json=ROWS).status_code == 200
    closing = threading.Thread(target=tracer.close)
    closing.start()
    closing.join(timeout=5)
    assert not closing.is_alive()
