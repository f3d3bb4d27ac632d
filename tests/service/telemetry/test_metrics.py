"""The metrics' names are a promise to dashboards; their number is bounded."""

import re

import pytest

from service.telemetry import NO_MODEL, Metrics
from service.telemetry.collectors import HistogramSeries
from service.telemetry.metrics import RETIRED_VERSIONS

# name -> labels, as ECOSYSTEM's users expect them.
PROMISED = {
    "requests_total": {"model", "version", "op", "code"},
    "rows_total": {"model", "version", "op"},
    "batches_total": {"model", "version", "op"},
    "batch_rows_bucket": {"model", "version", "op", "le"},
    "request_duration_seconds_bucket": {"model", "version", "op", "le"},
    "failed_request_seconds_total": {"model", "version", "op"},
    "batch_compute_seconds_total": {"model", "version", "op", "rows"},
    "last_batch_timestamp_seconds": {"model", "version", "op"},
    "queue_duration_seconds_bucket": {"model", "version", "op", "le"},
    "compute_duration_seconds_bucket": {"model", "version", "op", "engine", "le"},
    "queue_rows": {"model", "version", "op"},
    "max_batch_rows": {"model", "version", "op"},
    "out_of_memory_total": {"model", "version", "op"},
    "requests_running": {"model", "version"},
    "dropped_total": {"model", "version", "reason"},
    "connections_refused_total": set(),
    "key_file_ok": set(),
    "log_lines_dropped_total": set(),
    "worker_restarts_total": set(),
    "nonfinite_rows_total": {"model", "version", "op"},
    "failed_rows_total": {"model", "version", "op", "status"},
    "ode_evaluations_bucket": {"model", "version", "op", "le"},
    "model_info": {"model", "version", "family", "engine", "device"},
    "model_ready": {"model"},
    "build_info": {"version"},
}


@pytest.fixture
def used() -> Metrics:
    metrics = Metrics()
    metrics.serve("moons", version="1", family="glow", engine="torch", device="cpu")
    for op in ("encode", "decode"):
        queue = metrics.queue("moons", op, "torch", version="1")
        queue.watch(lambda: 7, lambda: 2, lambda: 64)
        queue.out_of_memory()
        queue.batch(rows=4, seconds=0.01, non_finite_rows=1)
        queue.queued(0.002)
        queue.drop("cancelled")
        queue.solved([31, 37])
    metrics.request("moons", "encode", 200, 0.1, version="1")
    metrics.request("moons", "encode", 200, 0.2, version="1")
    metrics.request("moons", "decode", 422, 0.2, version="1")
    metrics.failed("moons", "score", {"solver_failed": 1}, version="1")
    metrics.request(NO_MODEL, "/models", 404, 0.1)
    return metrics


@pytest.mark.parametrize("name", PROMISED)
def test_each_promised_metric_is_there_with_its_labels(used: Metrics, name: str) -> None:
    text = used.render().decode()
    found = re.findall(rf"^pushforward_{name}(?:\{{(.*)\}})? ", text, re.M)
    assert found
    assert {part.split("=")[0] for part in found[0].split(",") if part} == PROMISED[name]


def test_no_other_metric_of_ours_is_there(used: Metrics) -> None:
    names = set(re.findall(r"^pushforward_(\w+)", used.render().decode(), re.M))
    histograms = re.compile(r"_(sum|count)$")
    assert {name for name in names if not histograms.search(name)} == set(PROMISED)


def test_counts_are_what_was_counted(used: Metrics) -> None:
    def value(name: str, **labels: str) -> float | None:
        found = {"version": "1", **labels}
        return used.registry.get_sample_value(f"pushforward_{name}", found)

    assert value("requests_total", model="moons", op="encode", code="200") == 2
    assert value("request_duration_seconds_count", model="moons", op="encode") == 2
    assert value("rows_total", model="moons", op="decode") == 4
    assert value("nonfinite_rows_total", model="moons", op="decode") == 1
    assert value("queue_rows", model="moons", op="encode") == 7
    assert value("max_batch_rows", model="moons", op="encode") == 64
    assert value("out_of_memory_total", model="moons", op="encode") == 1
    assert value("requests_running", model="moons") == 4  # of both operations
    assert value("dropped_total", model="moons", reason="cancelled") == 2


def test_what_alerts_take_the_increase_of_begins_at_0() -> None:
    metrics = Metrics()
    metrics.queue("moons", "encode", "torch", version="1")
    value = metrics.registry.get_sample_value
    assert (
        value("pushforward_out_of_memory_total", {"model": "moons", "version": "1", "op": "encode"})
        == 0
    )
    assert (
        value(
            "pushforward_dropped_total", {"model": "moons", "version": "1", "reason": "overloaded"}
        )
        == 0
    )


def test_a_request_whose_body_found_no_room_is_counted_from_0_on() -> None:
    metrics = Metrics()
    labels = {"model": "", "version": "", "reason": "overloaded"}
    assert metrics.registry.get_sample_value("pushforward_dropped_total", labels) == 0
    metrics.overloaded("", "")
    assert metrics.registry.get_sample_value("pushforward_dropped_total", labels) == 1


def test_a_model_served_again_is_read_from_its_new_queue(used: Metrics) -> None:
    used.queue("moons", "encode", "torch", version="1").watch(lambda: 1, lambda: 10, lambda: 64)
    labels = {"model": "moons", "version": "1"}
    assert used.registry.get_sample_value("pushforward_requests_running", labels) == 12


@pytest.mark.parametrize("values", [(0.5,), (0.5, 1.0, 0.7), (0.5, 3.0, 1.5, 9.0)])
def test_several_values_are_counted_as_one_after_the_other(values: tuple[float, ...]) -> None:
    together, alone = HistogramSeries((1.0, 2.0, 4.0)), HistogramSeries((1.0, 2.0, 4.0))
    together.observe_all(values)
    for value in values:
        alone.observe(value)
    assert together.counts == alone.counts
    assert together.total == pytest.approx(alone.total)


def test_a_retired_version_leaves_its_counts_for_a_while_and_its_gauges_at_once() -> None:
    metrics = Metrics()

    def live(version: str) -> None:
        metrics.serve("moons", version=version, family="glow", engine="torch", device="cpu")
        queue = metrics.queue("moons", "encode", "torch", version=version)
        queue.watch(lambda: 7, lambda: 2, lambda: 64)
        queue.batch(rows=4, seconds=0.01, non_finite_rows=1)
        metrics.request("moons", "encode", 400, 0.1, version=version)

    def series(version: str) -> set[str]:
        text = metrics.render().decode()
        return set(re.findall(rf'^(pushforward_\w+){{.*version="{version}".*}}', text, re.M))

    live("0")
    live("1")
    gauges = {
        f"pushforward_{name}"
        for name in (
            *("queue_rows", "max_batch_rows", "requests_running", "model_info"),
            "last_batch_timestamp_seconds",
        )
    }
    kept = series("0") - gauges
    assert series("1") == kept | gauges
    assert "pushforward_rows_total" in kept
    metrics.retire("moons", "0")
    assert (series("0"), series("1")) == (kept, kept | gauges)
    for number in range(RETIRED_VERSIONS):
        live(f"2{number}")
        metrics.retire("moons", f"2{number}")
    assert not series("0")
    assert series("20") == kept
    # What is served again counts on, and is not the next to be removed.
    live("20")
    metrics.retire("moons", "1")
    live("3")
    metrics.retire("moons", "3")
    assert series("20") == kept | gauges
    metrics.request("moons", "encode", 400, 0.1, version="20")
    labels = {"model": "moons", "version": "20", "op": "encode", "code": "400"}
    assert metrics.registry.get_sample_value("pushforward_requests_total", labels) == 3
