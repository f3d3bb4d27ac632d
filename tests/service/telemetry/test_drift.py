"""The drift tests of a process: which rows they are given, and what the metrics show of them."""

import asyncio
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest

from service.telemetry import Metrics
from service.telemetry.aggregation import merge
from service.telemetry.drift import DriftMetrics
from tests.service.telemetry.test_aggregation import value

MODEL, CALIBRATION = "moons", "0123456789ab"


class FakeTest:
    """Keeps what it is given; a window is 10 rows, each of which is one nat."""

    crossings = 3

    def __init__(self) -> None:
        self.calls: list[list[float]] = []

    @property
    def seen(self) -> list[float]:
        return [score for call in self.calls for score in call]

    @property
    def windows(self) -> int:
        return len(self.seen) // 10

    @property
    def log_value(self) -> float:
        return len(self.seen)

    @property
    def log_max(self) -> float:
        return len(self.seen) + 1

    def update(self, scores: NDArray[np.float64]) -> None:
        self.calls.append(scores.tolist())


def watching(test: FakeTest, rows_per_second: float = 1e9) -> Metrics:
    metrics = Metrics()
    metrics.drift.watch(MODEL, CALIBRATION, lambda: test, rows_per_second, version="1")
    return metrics


def observe(
    metrics: Metrics, *scores: float, p: float = 0.5, calibration: str = CALIBRATION
) -> None:
    values = np.array(scores)
    p_values = np.where(np.isnan(values), np.nan, p)
    metrics.drift.observe(MODEL, calibration, values, p_values, version="1")


def shown(metrics: Metrics, name: str, **labels: str) -> float:
    return value(metrics.render(), f"pushforward_{name}", model=MODEL, **labels)


def test_rows_wait_until_the_metrics_are_asked_for() -> None:
    test = FakeTest()
    metrics = watching(test)
    assert shown(metrics, "drift_log_martingale") == 0
    observe(metrics, 1.0, 2.0)
    observe(metrics, 3.0)
    assert test.calls == []
    assert shown(metrics, "drift_log_martingale") == 3
    assert test.calls == [[1.0, 2.0, 3.0]]
    assert shown(metrics, "drift_log_martingale_max") == 4
    assert shown(metrics, "drift_windows_total") == 0
    assert shown(metrics, "drift_crossings_total") == 3


def test_no_more_than_a_thousand_rows_wait() -> None:
    test = FakeTest()
    metrics = watching(test)
    for row in range(1023):
        observe(metrics, float(row))
    assert test.calls == []
    observe(metrics, 1023.0, 1024.0)
    assert test.seen == [float(row) for row in range(1025)]


def test_answers_do_not_wait_for_the_test() -> None:
    test = FakeTest()
    metrics = watching(test)

    async def answer() -> None:
        observe(metrics, *([1.0] * 2000))
        assert test.calls == []
        await asyncio.sleep(0)
        assert len(test.seen) == 1024
        await asyncio.sleep(0)
        assert len(test.seen) == 2000

    asyncio.run(answer())


def test_of_a_stream_that_is_too_fast_whole_requests_are_left_out() -> None:
    now, test = [0.0], FakeTest()
    registry = CollectorRegistry()
    drift = DriftMetrics(registry, clock=lambda: now[0])
    drift.watch(MODEL, CALIBRATION, lambda: test, rows_per_second=2)

    def feed(score: float, rows: int) -> None:
        drift.observe(MODEL, CALIBRATION, np.full(rows, score), np.full(rows, 0.5))

    # Ten seconds' worth may come at once, and what it exceeds is made up for.
    feed(1.0, 19)
    feed(2.0, 5)
    feed(3.0, 1)
    now[0] = 2.0
    feed(4.0, 1)
    now[0] = 2.5
    feed(5.0, 30)
    now[0] = 1000.0
    feed(6.0, 20)
    feed(7.0, 1)
    text = generate_latest(registry)
    assert test.seen == [1.0] * 19 + [2.0] * 5 + [5.0] * 30 + [6.0] * 20
    # All are counted.
    assert value(text, "pushforward_score_p_value_count", model=MODEL) == 77


def test_rows_without_a_score_do_not_count() -> None:
    test = FakeTest()
    metrics = watching(test)
    observe(metrics, 1.0, math.nan, math.inf)
    assert shown(metrics, "score_p_value_count") == 2
    assert test.seen == [1.0, math.inf]


def test_p_values_are_counted_by_tenths() -> None:
    metrics = watching(FakeTest())
    for p in (0.05, 0.1, 0.11, 1.0):
        observe(metrics, 1.0, p=p)
    assert [
        shown(metrics, "score_p_value_bucket", le=str(tenth / 10)) for tenth in range(1, 11)
    ] == [2, 3, 3, 3, 3, 3, 3, 3, 3, 4]
    assert shown(metrics, "score_p_value_sum") == pytest.approx(1.26)


def test_the_same_calibration_goes_on_and_another_begins_anew() -> None:
    first, never, second = FakeTest(), FakeTest(), FakeTest()
    metrics = watching(first)
    observe(metrics, *([1.0] * 25))
    metrics.drift.watch(MODEL, CALIBRATION, lambda: never, 1e9, version="1")
    assert shown(metrics, "drift_log_martingale") == 25
    observe(metrics, 1.0)
    metrics.drift.watch(MODEL, "another", lambda: second, 1e9, version="1")
    # What waited belongs to the one before.
    assert (len(first.seen), second.seen) == (26, [])
    assert shown(metrics, "drift_log_martingale") == 0
    observe(metrics, 2.0)  # of the model that was replaced, as it finishes
    observe(metrics, 3.0, calibration="another")
    assert shown(metrics, "drift_log_martingale") == 1
    assert second.seen == [3.0]
    # Counters do not fall.
    assert shown(metrics, "drift_windows_total") == 2
    assert shown(metrics, "drift_crossings_total") == 6


def test_a_model_that_is_served_no_longer_has_no_test() -> None:
    metrics = watching(FakeTest())
    metrics.serve(MODEL, version="1", family="glow", engine="torch", device="cpu")
    metrics.queue(MODEL, "encode", "torch", version="1").watch(lambda: 0, lambda: 0, lambda: 8)
    observe(metrics, 1.0)
    metrics.retire(MODEL, "1")
    observe(metrics, 1.0)
    text = metrics.render()
    assert b"pushforward_drift_log_martingale{" not in text
    assert value(text, "pushforward_score_p_value_count", model=MODEL) == 1


def test_processes_are_one_test_by_the_mean_of_their_martingales() -> None:
    processes = [watching(FakeTest()) for _ in range(3)]
    for rows, metrics in zip((2, 0, 5), processes, strict=True):
        observe(metrics, *([1.0] * rows))
    text = merge([metrics.render() for metrics in processes])
    mean = math.log((math.exp(2) + 1 + math.exp(5)) / 3)
    assert value(text, "pushforward_drift_log_martingale", model=MODEL) == pytest.approx(mean)
    # The largest alone makes the mean at least this.
    largest = value(text, "pushforward_drift_log_martingale_max", model=MODEL)
    assert largest == pytest.approx(6 - math.log(3))
    assert value(text, "pushforward_drift_crossings_total", model=MODEL) == 9
    assert value(text, "pushforward_score_p_value_count", model=MODEL) == 7


def test_a_large_martingale_does_not_overflow() -> None:
    processes = [watching(FakeTest()) for _ in range(2)]
    observe(processes[0], *([1.0] * 2000))
    text = merge([metrics.render() for metrics in processes])
    found = value(text, "pushforward_drift_log_martingale", model=MODEL)
    assert found == pytest.approx(2000 - math.log(2))
