"""Prometheus collectors that cost next to nothing to count; the scraper pays.

prometheus_client's own take a lock and walk the buckets at every observation: five of them cost as
much as parsing a one-row request. Here an observation is one addition or two; the families that
Prometheus reads are made when it asks. Counting belongs to one thread, the event loop's; reading
may happen in any.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class CounterSeries:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add."""
        self.value += amount


class HistogramSeries:
    """One series of a histogram: how many observations fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value; a bucket holds its upper bound."""
        self.counts[bisect_left(self._bounds, value)] += times
        self.total += value * times

    def add(self, counts: Sequence[int], total: float) -> None:
        """Count many values at once: how many fell into each bucket, and their sum."""
        self.counts = [old + new for old, new in zip(self.counts, counts, strict=True)]
        self.total += total

    def observe_all(self, values: Sequence[float]) -> None:
        """Count several values, at least one: those of one batch are mostly in one bucket."""
        first, last = bisect_left(self._bounds, min(values)), bisect_left(self._bounds, max(values))
        if first == last:
            self.counts[first] += len(values)
        else:
            for value in values:
                self.counts[bisect_left(self._bounds, value)] += 1
        self.total += sum(values)


_Series = TypeVar("_Series", CounterSeries, HistogramSeries)


class Counter(Collector):
    """A family of counters, one a combination of label values.

    Args:
        name: without the suffix `_total`.
        text: what it counts.
        labels: names of the labels.
        registry: where it is found.
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._about = (name, text)
        self._labels = labels
        self._series: dict[tuple[str, ...], CounterSeries] = {}
        registry.register(self)

    def labels(self, *values: str) -> CounterSeries:
        """The series of these label values, made where there is none."""
        return self._series.setdefault(values, CounterSeries())

    def remove(self, *first: str) -> None:
        """Remove the series whose label values begin with these."""
        _remove(self._series, first)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Give the family as Prometheus reads it."""
        family = CounterMetricFamily(*self._about, labels=self._labels)
        for values, series in list(self._series.items()):
            family.add_metric(values, series.value)
        yield family


class Histogram(Collector):
    """A family of histograms, one a combination of label values.

    Args:
        name: of the family.
        text: what it observes.
        labels: names of the labels.
        bounds: upper bounds of the buckets, in order; a last one without bound is added.
        registry: where it is found.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        *,
        bounds: tuple[float, ...],
        registry: CollectorRegistry,
    ) -> None:
        self._about = (name, text)
        self._labels = labels
        self._bounds = bounds
        self._names = [floatToGoString(bound) for bound in (*bounds, float("inf"))]
        self._series: dict[tuple[str, ...], HistogramSeries] = {}
        registry.register(self)

    def labels(self, *values: str) -> HistogramSeries:
        """The series of these label values, made where there is none."""
        return self._series.setdefault(values, HistogramSeries(self._bounds))

    def remove(self, *first: str) -> None:
        """Remove the series whose label values begin with these."""
        _remove(self._series, first)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Give the family as Prometheus reads it: every bucket counts those below it too."""
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        for values, series in list(self._series.items()):
            buckets = zip(self._names, accumulate(series.counts), strict=True)
            family.add_metric(values, list(buckets), series.total)
        yield family


def _remove(series: dict[tuple[str, ...], _Series], first: tuple[str, ...]) -> None:
    for values in [values for values in series if values[: len(first)] == first]:
        del series[values]
