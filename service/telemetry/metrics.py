"""The metrics of the service, in Prometheus' form: every number it counts about itself.

Counting happens in two places only: the batchers (through `QueueMetrics`) and the request
recorder (through `Metrics.request`). Names follow prometheus.io/docs/practices/naming: one
prefix, base units, the unit as suffix, few labels.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.utils import floatToGoString

from pushforward.version import package_version
from service.telemetry.aggregation import Peers
from service.telemetry.collectors import Counter, CounterSeries, Histogram, HistogramSeries
from service.telemetry.drift import DriftMetrics
from service.telemetry.gpu import GpuMetrics

# A second series beside every counter, with the time it was made: nobody asked for it.
disable_created_metrics()

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# What a request is counted under when it named no model that is served: one series, not a
# series for every name a scanner thinks of.
NO_MODEL = ""

# From this status on an answer is an error.
_FAILED = 400
_Buckets = tuple[float, ...]
_SECONDS: _Buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Passes of networks are few, evaluations of a field many.
_EVALUATIONS: _Buckets = tuple(2.0**power for power in range(14))
_ROWS: _Buckets = tuple(2.0**power for power in range(15))
# By which sizes of batches are told apart, and their labels: each holds those above the one before.
BATCH_SIZES = {int(size): floatToGoString(size) for size in _ROWS} | {2 ** len(_ROWS): "+Inf"}


class QueueMetrics:
    """The metrics of one batcher; the labels are looked up once."""

    def __init__(self, metrics: "Metrics", model: str, op: str, engine: str) -> None:
        self._metrics = metrics
        self._model = model
        self._op = op
        self._rows = metrics.rows.labels(model, op)
        self._batches = metrics.batches.labels(model, op)
        self._batch_rows = metrics.batch_rows.labels(model, op)
        self._queue_seconds = metrics.queue_seconds.labels(model, op)
        self._compute_seconds = metrics.compute_seconds.labels(model, op, engine)
        self._non_finite = metrics.non_finite_rows.labels(model, op)
        self._out_of_memory = metrics.out_of_memory.labels(model, op)
        self._seconds_by_size: list[CounterSeries | None] = [None] * len(BATCH_SIZES)
        self._last_batch = 0.0
        # A counter that begins with its first event has no increase that tells of it.
        for reason in ("overloaded", "cancelled", "deadline"):
            metrics.dropped.labels(model, reason)

    def batch(self, rows: int, seconds: float, non_finite_rows: int) -> None:
        """Count a computed batch."""
        self._rows.inc(rows)
        self._batches.inc()
        self._batch_rows.observe(rows)
        self._compute_seconds.observe(seconds)
        self._last_batch = time.time()
        size = bisect_left(_ROWS, rows)
        series = self._seconds_by_size[size]
        if series is None:
            series = self._seconds_by_size[size] = self._metrics.batch_compute_seconds.labels(
                self._model, self._op, list(BATCH_SIZES.values())[size]
            )
        series.inc(seconds)
        if non_finite_rows:
            self._non_finite.inc(non_finite_rows)

    def solved(self, evaluations: Sequence[int]) -> None:
        """Count what the rows of a continuous flow took."""
        observe = self._metrics.ode_evaluations.labels(self._model, self._op).observe
        for count in evaluations:
            observe(count)

    def queued(self, seconds: float, requests: int = 1) -> None:
        """Count how long requests waited for their first batch."""
        self._queue_seconds.observe(seconds, requests)

    def drop(self, reason: str, requests: int = 1) -> None:
        """Count requests that got no answer: "overloaded", "cancelled" or "deadline"."""
        self._metrics.dropped.labels(self._model, reason).inc(requests)

    def out_of_memory(self) -> None:
        """Count a batch for which memory ran out."""
        self._out_of_memory.inc()

    def watch(
        self,
        waiting_rows: Callable[[], int],
        running: Callable[[], int],
        max_rows: Callable[[], int],
    ) -> None:
        """Read the gauges from the batcher when they are asked for."""
        self._metrics.queue_rows.labels(self._model, self._op).set_function(waiting_rows)
        self._metrics.max_batch_rows.labels(self._model, self._op).set_function(max_rows)
        last = self._metrics.last_batch.labels(self._model, self._op)
        last.set_function(lambda: self._last_batch)
        self._metrics.watch_running(self._model, self._op, running)


class Metrics:
    """The registry of a process' metrics; `scrape` is what /metrics answers.

    Args:
        peers: the other processes of the service, if there are any.
    """

    def __init__(self, peers: Peers | None = None) -> None:
        self._peers = peers
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered", "model op code")
        self.request_seconds = self._histogram(
            "request_duration_seconds", "Arrival to last byte", "model op", _SECONDS
        )
        self.rows = self._counter("rows", "Rows computed", "model op")
        self.batches = self._counter("batches", "Batches computed", "model op")
        self.batch_rows = self._histogram("batch_rows", "Rows a batch", "model op", _ROWS)
        self.queue_seconds = self._histogram(
            "queue_duration_seconds", "Wait for the first batch", "model op", _SECONDS
        )
        self.compute_seconds = self._histogram(
            "compute_duration_seconds", "Engine time", "model op engine", _SECONDS
        )
        self.batch_compute_seconds = self._counter(
            "batch_compute_seconds",
            "Engine time, by the size of batches rounded up to a power of two",
            "model op rows",
        )
        self.last_batch = self._gauge(
            "last_batch_timestamp_seconds", "When a batch was computed last", "model op"
        )
        self.failed_request_seconds = self._counter(
            "failed_request_seconds", "Arrival to last byte of requests that failed", "model op"
        )
        self.queue_rows = self._gauge("queue_rows", "Rows waiting for a batch", "model op")
        self.max_batch_rows = self._gauge(
            "max_batch_rows", "Rows a batch has at most, halved when memory ran out", "model op"
        )
        self.out_of_memory = self._counter(
            "out_of_memory", "Batches for which memory ran out", "model op"
        )
        self.running = self._gauge("requests_running", "Requests not answered yet", "model")
        self.dropped = self._counter("dropped", "Requests without answer", "model reason")
        self.connections_cut_off = self._counter(
            "connections_cut_off", "Connections ended for what their client did not do", "reason"
        )
        self.log_lines_dropped = self._counter(
            "log_lines_dropped", "Log lines not written: their reader was too slow", ""
        )
        self.log_lines_dropped.labels()  # 0 is exposed too
        self.worker_restarts = self._counter(
            "worker_restarts", "Workers started anew in the place of a lost one", ""
        )
        self.worker_restarts.labels()
        self.non_finite_rows = self._counter(
            "nonfinite_rows", "Rows with a result that is not finite", "model op"
        )
        self.failed_rows = self._counter(
            "failed_rows", "Rows answered without numbers", "model op status"
        )
        self.anomalies = self._counter("anomalies", "Rows that POST /score flagged", "model")
        self.ode_evaluations = self._histogram(
            "ode_evaluations",
            "Evaluations of a field, or of networks, a row",
            "model op",
            _EVALUATIONS,
        )
        self.model_info = self._gauge(
            "model_info", "Facts of a served model", "model version family engine device"
        )
        self.model_ready = self._gauge("model_ready", "1 when requests are taken", "model")
        build = self._gauge("build_info", "Version of the service", "version")
        build.labels(package_version()).set(1)
        self.drift = DriftMetrics(self.registry)
        self.gpu = GpuMetrics(self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._watched: defaultdict[str, dict[str, Callable[[], int]]] = defaultdict(dict)
        self._served: dict[str, tuple[str, str, str, str]] = {}
        self._request_children: dict[
            tuple[str, str, int], tuple[CounterSeries, HistogramSeries, CounterSeries | None]
        ] = {}

    def queue(self, model: str, op: str, engine: str) -> QueueMetrics:
        """Make the counters of one batcher."""
        return QueueMetrics(self, model, op, engine)

    def serve(self, model: str, *, version: str, family: str, engine: str, device: str) -> None:
        """Note that a model takes requests, in place of the version before."""
        labels = (version, family, engine, device)
        former = self._served.get(model)
        if former is not None and former != labels:
            self.model_info.remove(model, *former)
        self._served[model] = labels
        self.model_info.labels(model, *labels).set(1)
        self.model_ready.labels(model).set(1)

    def retire(self, model: str) -> None:
        """Remove the version of a model that was served, and its gauges: nobody misses it."""
        self.drift.forget(model)
        self.gpu.retire(model)
        labels = self._served.pop(model, None)
        if labels is not None:
            self.model_info.remove(model, *labels)
        self.model_ready.remove(model)
        for op in self._watched.pop(model, ()):
            self.queue_rows.remove(model, op)
            self.max_batch_rows.remove(model, op)
            self.last_batch.remove(model, op)
        self.running.remove(model)

    def request(self, model: str, op: str, code: int, seconds: float) -> None:
        """Count an answered request; `model` is one that is served, or `NO_MODEL`."""
        self.request_batch(model, op, code, (seconds,))

    def request_batch(self, model: str, op: str, code: int, seconds: Sequence[float]) -> None:
        """Count requests that were answered alike, each after so many seconds."""
        key = (model, op, code)
        children = self._request_children.get(key)
        if children is None:
            children = (
                self.requests.labels(model, op, str(code)),
                self.request_seconds.labels(model, op),
                self.failed_request_seconds.labels(model, op) if code >= _FAILED else None,
            )
            self._request_children[key] = children
        children[0].inc(len(seconds))
        children[1].observe_all(seconds)
        if children[2] is not None:
            children[2].inc(sum(seconds))

    def failed(self, model: str, op: str, rows: Mapping[str, int]) -> None:
        """Count rows of an answer that have no numbers, by what `failures` says of them."""
        for status, count in rows.items():
            self.failed_rows.labels(model, op, status).inc(count)

    def cut_off(self, reason: str) -> None:
        """Count a connection that was ended: its client was "not_reading"."""
        self.connections_cut_off.labels(reason).inc()

    def watch_running(self, model: str, op: str, running: Callable[[], int]) -> None:
        """Let the gauge of a model's running requests be the sum over its operations."""
        watched = self._watched[model]
        watched[op] = running
        self.running.labels(model).set_function(lambda: sum(read() for read in watched.values()))

    def render(self) -> bytes:
        """All metrics of this process as Prometheus text."""
        return generate_latest(self.registry)

    async def workers(self) -> tuple[int, int]:
        """Count the processes of the service that answer, this one among them, and all of them."""
        return (
            (1, 1) if self._peers is None else (await self._peers.count_alive(), self._peers.count)
        )

    async def scrape(self) -> bytes:
        """All metrics of the service as Prometheus text.

        Raises:
            OSError, TimeoutError: one of its processes does not answer.
        """
        own = self.render()
        return own if self._peers is None else await self._peers.collect(own)

    def _counter(self, name: str, text: str, labels: str) -> Counter:
        return Counter(f"pushforward_{name}", text, labels.split(), registry=self.registry)

    def _gauge(self, name: str, text: str, labels: str) -> Gauge:
        return Gauge(f"pushforward_{name}", text, labels.split(), registry=self.registry)

    def _histogram(self, name: str, text: str, labels: str, buckets: _Buckets) -> Histogram:
        names = labels.split()
        return Histogram(f"pushforward_{name}", text, names, bounds=buckets, registry=self.registry)
