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
from service.telemetry.keys import KeyMetrics

# A second series beside every counter, with the time it was made: nobody asked for it.
disable_created_metrics()

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# What a request is counted under when it named no model that is there, or was refused before it was
# read: one series, not a series for every name a scanner thinks of.
NO_MODEL = ""
# Of so many versions of a model that are served no longer the counts are kept.
RETIRED_VERSIONS = 8

# From this status on an answer is an error.
_FAILED = 400
# A model's name and its version.
_Version = tuple[str, str]
_Buckets = tuple[float, ...]
_SECONDS: _Buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Passes of networks are few, evaluations of a field many.
_EVALUATIONS: _Buckets = tuple(2.0**power for power in range(14))
_ROWS: _Buckets = tuple(2.0**power for power in range(15))
# By which sizes of batches are told apart, and their labels: each holds those above the one before.
BATCH_SIZES = {int(size): floatToGoString(size) for size in _ROWS} | {2 ** len(_ROWS): "+Inf"}


class QueueMetrics:
    """The metrics of one batcher; the labels are looked up once."""

    def __init__(
        self, metrics: "Metrics", model: str, op: str, engine: str, *, version: str
    ) -> None:
        self._metrics = metrics
        self._version = (model, version)
        self._labels = labels = (model, version, op)
        self._rows = metrics.rows.labels(*labels)
        self._batches = metrics.batches.labels(*labels)
        self._batch_rows = metrics.batch_rows.labels(*labels)
        self._queue_seconds = metrics.queue_seconds.labels(*labels)
        self._compute_seconds = metrics.compute_seconds.labels(*labels, engine)
        self._non_finite = metrics.non_finite_rows.labels(*labels)
        self._out_of_memory = metrics.out_of_memory.labels(*labels)
        self._seconds_by_size: list[CounterSeries | None] = [None] * len(BATCH_SIZES)
        self._last_batch = 0.0
        # A counter that begins with its first event has no increase that tells of it.
        for reason in ("overloaded", "cancelled", "deadline"):
            metrics.dropped.labels(*self._version, reason)

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
                *self._labels, list(BATCH_SIZES.values())[size]
            )
        series.inc(seconds)
        if non_finite_rows:
            self._non_finite.inc(non_finite_rows)

    def solved(self, evaluations: Sequence[int]) -> None:
        """Count what the rows of a continuous flow took."""
        observe = self._metrics.ode_evaluations.labels(*self._labels).observe
        for count in evaluations:
            observe(count)

    def queued(self, seconds: float, requests: int = 1) -> None:
        """Count how long requests waited for their first batch."""
        self._queue_seconds.observe(seconds, requests)

    def drop(self, reason: str, requests: int = 1) -> None:
        """Count requests that got no answer: "overloaded", "cancelled" or "deadline"."""
        self._metrics.dropped.labels(*self._version, reason).inc(requests)

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
        self._metrics.queue_rows.labels(*self._labels).set_function(waiting_rows)
        self._metrics.max_batch_rows.labels(*self._labels).set_function(max_rows)
        last = self._metrics.last_batch.labels(*self._labels)
        last.set_function(lambda: self._last_batch)
        self._metrics.watch_running(*self._labels, running)


class Metrics:
    """The registry of a process' metrics; `scrape` is what /metrics answers.

    Args:
        peers: the other processes of the service, if there are any.
    """

    def __init__(self, peers: Peers | None = None) -> None:
        self._peers = peers
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered", "model version op code")
        self.request_seconds = self._histogram(
            "request_duration_seconds", "Arrival to last byte", "model version op", _SECONDS
        )
        self.rows = self._counter("rows", "Rows computed", "model version op")
        self.batches = self._counter("batches", "Batches computed", "model version op")
        self.batch_rows = self._histogram("batch_rows", "Rows a batch", "model version op", _ROWS)
        self.queue_seconds = self._histogram(
            "queue_duration_seconds", "Wait for the first batch", "model version op", _SECONDS
        )
        self.compute_seconds = self._histogram(
            "compute_duration_seconds", "Engine time", "model version op engine", _SECONDS
        )
        self.batch_compute_seconds = self._counter(
            "batch_compute_seconds",
            "Engine time, by the size of batches rounded up to a power of two",
            "model version op rows",
        )
        self.last_batch = self._gauge(
            "last_batch_timestamp_seconds", "When a batch was computed last", "model version op"
        )
        self.failed_request_seconds = self._counter(
            "failed_request_seconds",
            "Arrival to last byte of requests that failed",
            "model version op",
        )
        self.queue_rows = self._gauge("queue_rows", "Rows waiting for a batch", "model version op")
        self.max_batch_rows = self._gauge(
            "max_batch_rows",
            "Rows a batch has at most, halved when memory ran out",
            "model version op",
        )
        self.out_of_memory = self._counter(
            "out_of_memory", "Batches for which memory ran out", "model version op"
        )
        self.running = self._gauge("requests_running", "Requests not answered yet", "model version")
        self.dropped = self._counter("dropped", "Requests without answer", "model version reason")
        self.dropped.labels(NO_MODEL, "", "overloaded")
        self.connections_cut_off = self._counter(
            "connections_cut_off", "Connections ended for what their client did not do", "reason"
        )
        self.connections_refused = self._counter(
            "connections_refused", "HTTP connections beyond what descriptors allow", ""
        )
        self.connections_refused.labels()  # 0 is exposed too
        self.log_lines_dropped = self._counter(
            "log_lines_dropped", "Log lines not written: their reader was too slow", ""
        )
        self.log_lines_dropped.labels()
        self.worker_restarts = self._counter(
            "worker_restarts", "Workers started anew in the place of a lost one", ""
        )
        self.worker_restarts.labels()
        self.source_success = self._gauge(
            "source_last_success_timestamp_seconds",
            "When a URI was last fetched or found unchanged",
            "source",
        )
        self.source_failures = self._counter(
            "source_failures", "Looks at a URI of models that failed", "source"
        )
        self.non_finite_rows = self._counter(
            "nonfinite_rows", "Rows with a result that is not finite", "model version op"
        )
        self.failed_rows = self._counter(
            "failed_rows", "Rows answered without numbers", "model version op status"
        )
        self.anomalies = self._counter(
            "anomalies", "Rows that POST /score flagged", "model version"
        )
        self.ode_evaluations = self._histogram(
            "ode_evaluations",
            "Evaluations of a field, or of networks, a row",
            "model version op",
            _EVALUATIONS,
        )
        self.model_info = self._gauge(
            "model_info", "Facts of a served model", "model version family engine device"
        )
        self.model_ready = self._gauge("model_ready", "1 when requests are taken", "model")
        build = self._gauge("build_info", "Version of the service", "version")
        build.labels(package_version()).set(1)
        self._counted: tuple[Counter | Histogram, ...] = (
            *(self.requests, self.request_seconds, self.rows, self.batches, self.batch_rows),
            *(self.failed_request_seconds, self.batch_compute_seconds),
            *(self.queue_seconds, self.compute_seconds, self.out_of_memory, self.dropped),
            *(self.non_finite_rows, self.failed_rows, self.anomalies, self.ode_evaluations),
        )
        self.drift = DriftMetrics(self.registry)
        self.gpu = GpuMetrics(self.registry)
        self.keys = KeyMetrics(self.registry)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._watched: defaultdict[_Version, dict[str, Callable[[], int]]] = defaultdict(dict)
        self._served: dict[_Version, tuple[str, str, str]] = {}
        # Of each model the versions that were retired, the last one at the end.
        self._retired: defaultdict[str, list[str]] = defaultdict(list)
        self._request_children: dict[
            tuple[str, str, str, int],
            tuple[CounterSeries, HistogramSeries, CounterSeries | None],
        ] = {}

    def queue(self, model: str, op: str, engine: str, *, version: str = "") -> QueueMetrics:
        """Make the counters of one batcher."""
        return QueueMetrics(self, model, op, engine, version=version)

    def serve(self, model: str, *, version: str, family: str, engine: str, device: str) -> None:
        """Note that a version of a model takes requests, whatever it was made of before."""
        key, facts = (model, version), (family, engine, device)
        former = self._served.get(key)
        if former is not None and former != facts:
            self.model_info.remove(*key, *former)
        self._served[key] = facts
        self.model_info.labels(*key, *facts).set(1)
        self.model_ready.labels(model).set(1)
        if version in self._retired[model]:
            self._retired[model].remove(version)

    def retire(self, model: str, version: str) -> None:
        """Remove the gauges of a version that is served no longer, and the counts of older ones.

        What it counted stays for a while: a rate over the last minutes still finds it.
        """
        key = (model, version)
        self.drift.forget(model, version=version)
        self.gpu.retire(model, version=version)
        facts = self._served.pop(key, None)
        if facts is not None:
            self.model_info.remove(*key, *facts)
        for op in self._watched.pop(key, ()):
            self.queue_rows.remove(*key, op)
            self.max_batch_rows.remove(*key, op)
            self.last_batch.remove(*key, op)
        self.running.remove(*key)
        retired = self._retired[model]
        if version not in retired:
            retired.append(version)
        if len(retired) > RETIRED_VERSIONS:
            self._forget(model, retired.pop(0))

    def _forget(self, model: str, version: str) -> None:
        """Remove what a version has counted: the number of series stays bounded."""
        for family in self._counted:
            family.remove(model, version)
        self.drift.forget_counts(model, version)
        for key in [key for key in self._request_children if key[:2] == (model, version)]:
            del self._request_children[key]

    def request(self, model: str, op: str, code: int, seconds: float, *, version: str = "") -> None:
        """Count an answered request.

        Args:
            model: one that is served or was refused, or `NO_MODEL`.
            op: an operation, or the template of a route.
            code: of the answer.
            seconds: from arrival to last byte.
            version: that answered, if any.
        """
        self.request_batch(model, op, code, (seconds,), version=version)

    def request_batch(
        self, model: str, op: str, code: int, seconds: Sequence[float], *, version: str = ""
    ) -> None:
        """Count requests that were answered alike, each after so many seconds."""
        key = (model, version, op, code)
        children = self._request_children.get(key)
        if children is None:
            children = (
                self.requests.labels(model, version, op, str(code)),
                self.request_seconds.labels(model, version, op),
                self.failed_request_seconds.labels(model, version, op) if code >= _FAILED else None,
            )
            self._request_children[key] = children
        children[0].inc(len(seconds))
        children[1].observe_all(seconds)
        if children[2] is not None:
            children[2].inc(sum(seconds))

    def failed(self, model: str, op: str, rows: Mapping[str, int], *, version: str = "") -> None:
        """Count rows of an answer that have no numbers, by what `failures` says of them."""
        for status, count in rows.items():
            self.failed_rows.labels(model, version, op, status).inc(count)

    def overloaded(self, model: str, version: str) -> None:
        """Count a request that no queue refused: its body, or what it asks for, found no room."""
        self.dropped.labels(model, version, "overloaded").inc()

    def cut_off(self, reason: str) -> None:
        """Count a connection that was ended: its client was "not_reading"."""
        self.connections_cut_off.labels(reason).inc()

    def watch_running(self, model: str, version: str, op: str, running: Callable[[], int]) -> None:
        """Let the gauge of a version's running requests be the sum over its operations."""
        watched = self._watched[model, version]
        watched[op] = running
        total = self.running.labels(model, version)
        total.set_function(lambda: sum(read() for read in watched.values()))

    def render(self) -> bytes:
        """All metrics of this process as Prometheus text."""
        return generate_latest(self.registry)

    @property
    def processes(self) -> int:
        """How many processes the service has."""
        return 1 if self._peers is None else self._peers.count

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
