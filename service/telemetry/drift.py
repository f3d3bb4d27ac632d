"""The drift tests of a process: fed with answered rows, worked out when there are some hundreds.

To note a row costs one addition to a list. The test itself, some half a microsecond a row, waits
until enough rows are there to be ranked together and their answers are on the way, or until
somebody asks for the metrics.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.collectors import Histogram, HistogramSeries

Array = NDArray[Any]

LOG_MARTINGALE = "pushforward_drift_log_martingale"
LOG_MARTINGALE_MAX = "pushforward_drift_log_martingale_max"

_WAITING_ROWS = 1024
_TENTHS = tuple(tenth / 10 for tenth in range(1, 11))


class DriftTest(Protocol):
    """A test that takes scores row after row; `models.scoring.martingale` has one."""

    windows: int
    crossings: int

    @property
    def log_value(self) -> float:
        """Ln of its value after the last row."""

    @property
    def log_max(self) -> float:
        """Its largest value in this window and the one before."""

    def update(self, scores: Array) -> None:
        """Take the scores of the next rows, in their order; none of them NaN."""


@dataclass(slots=True)
class _Stream:
    """What comes of one model: the test for its calibration, and rows that wait for it."""

    calibration: str
    test: DriftTest
    p_values: HistogramSeries
    # What tests for other calibrations counted before: counters never fall.
    windows_before: int = 0
    crossings_before: int = 0
    waiting: list[tuple[Array, Array]] = field(default_factory=list)
    waiting_rows: int = 0

    def flush(self) -> None:
        """Give the test what waits."""
        if not self.waiting:
            return
        scores, p_values = (np.concatenate(parts) for parts in zip(*self.waiting, strict=True))
        self.waiting.clear()
        self.waiting_rows = 0
        # Rows that were rejected, or have no result.
        is_known = ~np.isnan(scores)
        if not is_known.all():
            scores, p_values = scores[is_known], p_values[is_known]
        self.test.update(scores)
        places = np.searchsorted(_TENTHS, p_values)
        counts = np.bincount(places, minlength=len(_TENTHS) + 1)
        self.p_values.add(counts.tolist(), float(p_values.sum()))


class DriftMetrics(Collector):
    """The drift tests of a process by model, and their metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._streams: dict[str, _Stream] = {}
        # Before the histogram, so that rows which wait are in it when it is collected.
        registry.register(self)
        self._p_values = Histogram(
            "pushforward_score_p_value",
            "p-values of rows that POST /score answered",
            ["model"],
            bounds=_TENTHS,
            registry=registry,
        )

    def watch(self, model: str, calibration: str, make_test: Callable[[], DriftTest]) -> None:
        """Test what comes of a model against this calibration; the same one goes on as it was."""
        former = self._streams.get(model)
        if former is not None and former.calibration == calibration:
            return
        stream = _Stream(calibration, make_test(), self._p_values.labels(model))
        if former is not None:
            former.flush()
            stream.windows_before = former.windows_before + former.test.windows
            stream.crossings_before = former.crossings_before + former.test.crossings
        self._streams[model] = stream

    def forget(self, model: str) -> None:
        """Test a model no longer: it is not served, or has no calibration."""
        stream = self._streams.pop(model, None)
        if stream is not None:
            stream.flush()

    def observe(self, model: str, calibration: str, scores: Array, p_values: Array) -> None:
        """Note answered rows in their order, (B,) each; those with NaN do not count.

        Rows of another calibration than the one that is tested now are left out.
        """
        stream = self._streams.get(model)
        if stream is None or stream.calibration != calibration:
            return
        stream.waiting.append((scores, p_values))
        stream.waiting_rows += len(scores)
        if stream.waiting_rows >= _WAITING_ROWS:
            _run_after_answers(stream.flush)

    def collect(self) -> Iterator[Metric]:
        """Give the families as Prometheus reads them."""
        value = GaugeMetricFamily(
            LOG_MARTINGALE, "ln of the drift test's martingale", labels=["model"]
        )
        largest = GaugeMetricFamily(
            LOG_MARTINGALE_MAX,
            "The largest it was in this window of rows and the one before",
            labels=["model"],
        )
        windows = CounterMetricFamily(
            "pushforward_drift_windows", "Windows of the drift test that ended", labels=["model"]
        )
        crossings = CounterMetricFamily(
            "pushforward_drift_crossings",
            "Windows whose martingale exceeded 1/0.01",
            labels=["model"],
        )
        for model, stream in list(self._streams.items()):
            stream.flush()
            test = stream.test
            value.add_metric([model], test.log_value)
            largest.add_metric([model], test.log_max)
            windows.add_metric([model], stream.windows_before + test.windows)
            crossings.add_metric([model], stream.crossings_before + test.crossings)
        yield from (value, largest, windows, crossings)


def _run_after_answers(work: Callable[[], None]) -> None:
    """Let the event loop do it in its next turn, where there is one."""
    with suppress(RuntimeError):
        asyncio.get_running_loop().call_soon(work)
        return
    work()
