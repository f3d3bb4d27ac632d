"""The drift tests of a process: fed with answered rows, worked out when there are some hundreds.

To note a row costs one addition to a list. The test itself, some half a microsecond a row, waits
until enough rows are there to be ranked together and their answers are on the way, or until
somebody asks for the metrics. Of a stream of more rows a second than drift could ever need it is
given a part: which, is decided by when a request came and never by its scores, so that what the
test promises holds for it as for the whole.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
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

# Ranked together, in one turn of the event loop.
_WAITING_ROWS = 1024
# So many seconds without rows may be made up for.
_SAVED_SECONDS = 10.0
_LABELS = ("model", "version")
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
class _Allowance:
    """How many rows a second the test is given: requests are taken whole, or not at all."""

    rows_per_second: float
    clock: Callable[[], float]
    rows: float = field(init=False)
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.rows, self.since = _SAVED_SECONDS * self.rows_per_second, self.clock()

    def take(self, rows: int) -> bool:
        """Whether the test is given these rows."""
        now, rate = self.clock(), self.rows_per_second
        self.rows = min(self.rows + (now - self.since) * rate, _SAVED_SECONDS * rate)
        self.since = now
        if self.rows <= 0:
            return False
        self.rows -= rows
        return True


@dataclass(slots=True)
class _Stream:
    """What comes of one model: the test for its calibration, and rows that wait for it.

    windows_before, crossings_before: what tests for other calibrations counted before: counters
    never fall.
    """

    calibration: str
    test: DriftTest
    p_values: HistogramSeries
    allowance: _Allowance
    windows_before: int = 0
    crossings_before: int = 0
    uncounted: list[Array] = field(default_factory=list)
    untested: list[Array] = field(default_factory=list)
    waiting_rows: int = 0

    def add(self, scores: Array, p_values: Array) -> None:
        """Note answered rows."""
        self.uncounted.append(p_values)
        if self.allowance.take(len(scores)):
            self.untested.append(scores)
        self.waiting_rows += len(scores)

    def flush(self) -> None:
        """Count and test what waits."""
        while self.advance():
            pass

    def advance(self) -> bool:
        """Count what waits, and test some hundreds of rows of it.

        Returns:
            Whether there are more.
        """
        self._count()
        scores = _known(self.untested)
        if len(scores):
            self.test.update(scores[:_WAITING_ROWS])
        if len(scores) > _WAITING_ROWS:
            self.untested.append(scores[_WAITING_ROWS:])
        return bool(self.untested)

    def _count(self) -> None:
        self.waiting_rows = 0
        p_values = _known(self.uncounted)
        places = np.searchsorted(_TENTHS, p_values)
        counts = np.bincount(places, minlength=len(_TENTHS) + 1)
        self.p_values.add(counts.tolist(), float(p_values.sum()))


def _known(parts: list[Array]) -> Array:
    """Take out of a list what waits, without rows that were rejected or have no result."""
    values = np.concatenate(parts) if parts else np.empty(0)
    parts.clear()
    is_known = ~np.isnan(values)
    return values if is_known.all() else values[is_known]


class DriftMetrics(Collector):
    """The drift tests of a process by model, and their metrics."""

    def __init__(
        self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._streams: dict[tuple[str, str], _Stream] = {}
        # Before the histogram, so that rows which wait are in it when it is collected.
        registry.register(self)
        self._p_values = Histogram(
            "pushforward_score_p_value",
            "p-values of rows that POST /score answered",
            _LABELS,
            bounds=_TENTHS,
            registry=registry,
        )

    def watch(
        self,
        model: str,
        calibration: str,
        make_test: Callable[[], DriftTest],
        rows_per_second: float,
        *,
        version: str = "",
    ) -> None:
        """Test what comes of a model against this calibration; the same one goes on as it was.

        Args:
            model: its name.
            version: which of those that are served: each has a test of its own.
            calibration: its id.
            make_test: makes a test that has seen nothing.
            rows_per_second: how many rows it is given; of more, whole requests are left out.
        """
        former = self._streams.get((model, version))
        if former is not None and former.calibration == calibration:
            return
        allowance = _Allowance(rows_per_second, self._clock)
        stream = _Stream(calibration, make_test(), self._p_values.labels(model, version), allowance)
        if former is not None:
            former.flush()
            stream.windows_before = former.windows_before + former.test.windows
            stream.crossings_before = former.crossings_before + former.test.crossings
        self._streams[model, version] = stream

    def move(self, model: str, former: str, version: str) -> None:
        """Let the test of a version go on as that of the one in its place.

        `watch` begins anew where that has another calibration.
        """
        stream = self._streams.pop((model, former), None)
        if stream is not None:
            stream.flush()
            stream.p_values = self._p_values.labels(model, version)
            self._streams[model, version] = stream

    def forget(self, model: str, *, version: str = "") -> None:
        """Test a version no longer: it is not served, or has no calibration."""
        stream = self._streams.pop((model, version), None)
        if stream is not None:
            stream.flush()

    def forget_counts(self, model: str, version: str) -> None:
        """Remove what was counted of a version that is tested no longer."""
        self._p_values.remove(model, version)

    def observe(
        self,
        model: str,
        calibration: str,
        scores: Array,
        p_values: Array,
        *,
        version: str = "",
    ) -> None:
        """Note answered rows in their order, (B,) each; those with NaN do not count.

        Rows of another calibration than the one that is tested now are left out.
        """
        stream = self._streams.get((model, version))
        if stream is None or stream.calibration != calibration:
            return
        stream.add(scores, p_values)
        if stream.waiting_rows >= _WAITING_ROWS:
            _advance_after_answers(stream)

    def collect(self) -> Iterator[Metric]:
        """Give the families as Prometheus reads them."""
        value = GaugeMetricFamily(
            LOG_MARTINGALE, "ln of the drift test's martingale", labels=_LABELS
        )
        largest = GaugeMetricFamily(
            LOG_MARTINGALE_MAX,
            "The largest it was in this window of rows and the one before",
            labels=_LABELS,
        )
        windows = CounterMetricFamily(
            "pushforward_drift_windows", "Windows of the drift test that ended", labels=_LABELS
        )
        crossings = CounterMetricFamily(
            "pushforward_drift_crossings",
            "Windows whose martingale exceeded 1/0.01",
            labels=_LABELS,
        )
        for version, stream in list(self._streams.items()):
            stream.flush()
            test = stream.test
            value.add_metric(version, test.log_value)
            largest.add_metric(version, test.log_max)
            windows.add_metric(version, stream.windows_before + test.windows)
            crossings.add_metric(version, stream.crossings_before + test.crossings)
        yield from (value, largest, windows, crossings)


def _advance_after_answers(stream: _Stream) -> None:
    """Let the event loop do it in its next turns, some rows in each, where there is one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        stream.flush()
        return

    def advance() -> None:
        if stream.advance():
            loop.call_soon(advance)

    loop.call_soon(advance)
