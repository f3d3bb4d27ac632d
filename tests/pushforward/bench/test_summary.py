"""Schedules and figures: percentiles that were measured, and who set the limit."""

from dataclasses import replace

import numpy as np
import pytest

from pushforward.bench.arrivals import due_times
from pushforward.bench.processes import merge
from pushforward.bench.recording import Recorder, join, read_timing
from pushforward.bench.report import warnings
from pushforward.bench.summary import milliseconds, percentile, summarize
from tests.pushforward.bench.fake_loads import LOAD, measurement, recorded


def test_constant_arrivals_are_equally_far_apart() -> None:
    due = due_times(50.0, 2.0, "constant", 0)
    assert len(due) == 100
    np.testing.assert_allclose(np.diff(due), 0.02)


def test_poisson_arrivals_have_the_rate_and_are_those_of_the_seed() -> None:
    due = due_times(1000.0, 20.0, "poisson", 3)
    assert len(due) == pytest.approx(20_000, abs=5 * np.sqrt(20_000))
    gaps = np.diff(due)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential
    assert due.max() < 20
    np.testing.assert_array_equal(due, due_times(1000.0, 20.0, "poisson", 3))
    assert not np.array_equal(due[:10], due_times(1000.0, 20.0, "poisson", 4)[:10])


def test_the_number_of_poisson_arrivals_varies_to_both_sides() -> None:
    numbers = [len(due_times(100.0, 1.0, "poisson", seed)) for seed in range(100)]
    assert np.mean(numbers) == pytest.approx(100, abs=4)
    assert np.std(numbers) == pytest.approx(10, abs=3)


def test_a_rate_is_positive() -> None:
    with pytest.raises(ValueError, match="expected more than 0"):
        due_times(0.0, 1.0, "poisson", 0)


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50), (90, 90), (99, 99), (99.9, 100), (100, 100)]
)
def test_a_percentile_is_a_value_that_was_measured(percent: float, expected: float) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert percentile(values, percent) == expected


def test_milliseconds_of_nothing_are_none() -> None:
    assert milliseconds(np.array([])) is None
    assert milliseconds(np.array([np.nan])) is None
    assert milliseconds(np.array([0.001, 0.003])) == {
        "mean": 2.0, "p50": 1.0, "p90": 3.0, "p99": 3.0, "p99.9": 3.0, "max": 3.0
    }  # fmt: skip


def test_a_rate_is_what_is_answered_in_the_window() -> None:
    """A queue that grows answers later and later: as many are due as before, fewer are done."""
    due = np.arange(1000) / 100
    figures = summarize(LOAD, measurement(recorded(due, due * 1.0)), rows=5)
    assert figures["offered_per_second"] == pytest.approx(100)
    assert figures["requests_per_second"] == pytest.approx(50, rel=0.01)
    assert figures["rows_per_second"] == pytest.approx(250, rel=0.01)
    assert figures["requests"] == 1000
    assert figures["limited_by"] == "server"


def test_a_rate_counts_answers_to_what_was_due_before_the_window() -> None:
    recording = recorded(np.arange(-100, 1000) / 100, 0.495)
    figures = summarize(LOAD, measurement(recording), rows=1)
    assert (figures["requests"], figures["requests_per_second"]) == (1000, 100.0)


@pytest.mark.parametrize(
    ("changes", "late", "limit"),
    [
        ({}, 0.0, None),
        ({"cpu_seconds": 8.6}, 0.0, "generator"),
        ({"cpu_seconds": 8.4}, 0.0, None),
        ({"cpu_seconds": 5.0, "waited_seconds": 4.5}, 0.0, "generator"),
        ({"cpu_seconds": 5.0, "waited_seconds": float("nan")}, 0.0, None),
        ({}, 0.004, "generator"),
        ({}, 0.0009, None),
    ],
)
def test_who_set_the_limit(changes: dict[str, float], late: float, limit: str | None) -> None:
    recording = recorded(np.arange(1000) / 100, 0.005, late=late)
    figures = summarize(LOAD, measurement(recording, **changes), rows=1)
    assert figures["limited_by"] == limit
    said = [line for line in warnings(figures) if line.startswith("the generator is the limit")]
    assert len(said) == (limit == "generator")


@pytest.mark.parametrize(
    ("late", "refused", "limit"),
    [
        (2, 0, None),  # an accident, and the p99 of a hundred requests
        (9, 0, None),
        (10, 0, "generator"),
        (10, 76, "server"),  # what was refused cannot have been kept
        (2, 76, "server"),
    ],
)
def test_lateness_is_judged_of_ten_requests_where_they_were_answered(
    late: int, refused: int, limit: str | None
) -> None:
    due = np.arange(100) / 10
    parts = [
        recorded(due[:late], 0.02, late=0.015),
        recorded(due[late : 100 - refused], 0.005),
        recorded(due[100 - refused :], 0.005, status=429),
    ]
    figures = summarize(LOAD, measurement(join(parts)), rows=1)
    assert figures["generator"]["late_requests"] == late
    assert figures["generator"]["late_bound_ms"] == pytest.approx(5)  # a quarter of p99
    assert figures["limited_by"] == limit
    said = [line for line in warnings(figures) if "is the limit" in line]
    assert said == (
        ["the generator is the limit: it came to 10 of 100 requests more than 5 ms late; "
         "the latencies hold that"] if limit == "generator" else []
    )  # fmt: skip


def test_what_waited_when_a_load_was_ended_is_said() -> None:
    recorder = Recorder()
    for due in np.arange(100) / 10:
        recorder.add((due, due, due, 10.0), 0, "interrupted")
    parts = [recorder.finish(), recorded(np.arange(100) / 10, 0.005)]
    figures = summarize(LOAD, measurement(join(parts), is_stopped=True), rows=1)
    assert figures["still_waiting"] == {"requests": 100, "longest_ms": 10_000.0}
    assert (figures["offered_per_second"], figures["limited_by"]) == (20.0, "server")
    said = "100 requests had no answer when it ended, the first of them for 10 s"
    assert said in warnings(figures)
    assert summarize(LOAD, measurement(parts[1]), rows=1)["still_waiting"] is None


def test_a_closed_loop_is_limited_by_the_server_unless_it_is_busy_itself() -> None:
    recording = recorded(np.arange(1000) / 100, 0.005)
    load = replace(LOAD, rate=None)
    assert summarize(load, measurement(recording), rows=1)["limited_by"] == "server"
    busy = measurement(recording, cpu_seconds=9.5)
    assert summarize(load, busy, rows=1)["limited_by"] == "generator"


@pytest.mark.parametrize(
    ("rate", "cpu_seconds", "is_said"), [(None, 3.3, True), (None, 0.4, False), (100.0, 3.3, False)]
)
def test_a_closed_loop_says_that_its_own_work_is_in_the_rate(
    rate: float | None, cpu_seconds: float, is_said: bool
) -> None:
    recording = recorded(np.arange(1000) / 100, 0.005)
    measured = measurement(recording, cpu_seconds=cpu_seconds)
    said = warnings(summarize(replace(LOAD, rate=rate), measured, rows=1))
    assert any(line.startswith("a closed loop sends") for line in said) == is_said


def test_measurements_of_several_processes_are_put_together() -> None:
    due = np.arange(100) / 10
    refused = recorded(due, 0.5, status=429)
    late = Recorder()
    late.add((1.0, 1.0, 1.0, 2.0), 0, "timeout")
    first = measurement(
        join([recorded(due, 0.1), late.finish()]), cpu_seconds=2.0, waited_seconds=1.0
    )
    second = measurement(
        refused, cpu_seconds=2.5, waited_seconds=float("nan"), start=0.45, end=9.45
    )
    second = replace(second, is_stopped=True, given_up="it is gone")
    merged = merge([first, second])
    assert (merged.is_stopped, merged.given_up) == (True, "it is gone")
    figures = summarize(LOAD, merged, rows=1)
    assert figures["requests"] == 90
    assert figures["errors"]["by_reason"] == {"overloaded": 90, "timeout": 1}
    assert (figures["sent_bytes"], figures["received_bytes"]) == (200, 400)
    assert figures["generator"]["cpu_share"] == pytest.approx(2.0 / 9)
    assert figures["seconds"] == 9.0


def test_what_a_reader_must_know_is_said() -> None:
    recording = recorded(np.arange(20) / 2, 0.005, status=429)
    figures = summarize(LOAD, measurement(recording, is_stopped=True), rows=1)
    text = " ".join(warnings(figures))
    assert "20 requests without numbers (overloaded: 20)" in text
    assert "ended early: 10 s were measured" in text
    few = summarize(LOAD, measurement(recorded(np.arange(20) / 2, 0.005)), rows=1)
    assert warnings(few) == ["20 requests are few for a p99: measure for longer"]


@pytest.mark.parametrize(
    ("header", "queue", "compute"),
    [
        (b"queue;dur=0.210, compute;dur=0.480", 0.21, 0.48),
        (b"compute;dur=3;desc=7,queue;dur=1", 1, 3),
        (b"cache;dur=9", np.nan, np.nan),
        (b"queue;dur=soon", np.nan, np.nan),
        (b"", np.nan, np.nan),
    ],
)
def test_server_timing_is_read(header: bytes, queue: float, compute: float) -> None:
    np.testing.assert_equal(read_timing(header), (queue, compute))
