"""Statistics of the models as Triton's protocol has them, read off the metrics of all processes.

What Triton calls an inference is a row here, and what it calls an execution a batch.

Reference: Triton, extension_statistics.md.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from service.telemetry.metrics import BATCH_SIZES, Metrics

_PREFIX = "pushforward_"
_REQUESTS = f"{_PREFIX}requests_total"
_REQUEST_SECONDS = f"{_PREFIX}request_duration_seconds_sum"
_FAILED_SECONDS = f"{_PREFIX}failed_request_seconds_total"
_ROWS = f"{_PREFIX}rows_total"
_BATCHES = f"{_PREFIX}batches_total"
_QUEUED = f"{_PREFIX}queue_duration_seconds_count"
_QUEUE_SECONDS = f"{_PREFIX}queue_duration_seconds_sum"
_COMPUTE_SECONDS = f"{_PREFIX}compute_duration_seconds_sum"
_SIZED = f"{_PREFIX}batch_rows_bucket"
_SIZED_SECONDS = f"{_PREFIX}batch_compute_seconds_total"
_LAST = f"{_PREFIX}last_batch_timestamp_seconds"
# Of all metrics these alone are parsed: the others are many times as many.
_READ = tuple(
    name + "{"
    for name in (
        *(_REQUESTS, _REQUEST_SECONDS, _FAILED_SECONDS, _ROWS, _BATCHES, _QUEUED),
        *(_QUEUE_SECONDS, _COMPUTE_SECONDS, _SIZED, _SIZED_SECONDS, _LAST),
    )
)


@dataclass(frozen=True, slots=True)
class Spent:
    """How often something was done, and the nanoseconds that all of it took."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """What was asked of a model, and computed for it, since its server started.

    last_inference: when its last batch was computed, in milliseconds since 1970; 0 where none was.
    rows, batches: computed.
    success, fail: requests by their answer, from arrival to last byte.
    queue: requests, and how long they waited for their first batch.
    compute: batches, and the engine's time.
    by_size: the same by the size of batches, rounded up to a power of two.
    """

    last_inference: int = 0
    rows: int = 0
    batches: int = 0
    success: Spent = Spent()
    fail: Spent = Spent()
    queue: Spent = Spent()
    compute: Spent = Spent()
    by_size: Mapping[int, Spent] = field(default_factory=dict)


class StatisticsTable:
    """The statistics of all models at one moment.

    Args:
        samples: of the metrics.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    def find(self, model: str, version: str) -> ModelStatistics:
        """Add up what is known of one version; nothing is known of what was never asked for."""
        totals: defaultdict[tuple[str, str], float] = defaultdict(float)
        last = 0.0
        for name, labels, value, *_ in self._samples:
            # Metrics without a version are those of the only one.
            if labels.get("model") != model or labels.get("version", version) != version:
                continue
            if name == _LAST:
                last = max(last, value)
            else:
                totals[name, _detail(name, labels)] += value
        failed = int(totals[_REQUESTS, "failed"])
        failed_ns = _nanoseconds(totals[_FAILED_SECONDS, ""])
        batches = int(totals[_BATCHES, ""])
        return ModelStatistics(
            last_inference=int(1e3 * last),
            rows=int(totals[_ROWS, ""]),
            batches=batches,
            success=Spent(
                int(totals[_REQUESTS, ""]),
                max(0, _nanoseconds(totals[_REQUEST_SECONDS, ""]) - failed_ns),
            ),
            fail=Spent(failed, failed_ns),
            queue=Spent(int(totals[_QUEUED, ""]), _nanoseconds(totals[_QUEUE_SECONDS, ""])),
            compute=Spent(batches, _nanoseconds(totals[_COMPUTE_SECONDS, ""])),
            by_size=_by_size(totals),
        )


async def read_statistics(metrics: Metrics) -> StatisticsTable:
    """Read the statistics of all models, summed over the processes of the service.

    Raises:
        OSError, TimeoutError: one of the processes does not answer.
    """
    text = await metrics.scrape()
    # In a thread: with many models it takes longer than others are to wait.
    return await asyncio.to_thread(lambda: StatisticsTable(_parse(text.decode())))


def _parse(text: str) -> list[Sample]:
    lines = [line for line in text.splitlines() if line.startswith(_READ)]
    families = text_string_to_metric_families("\n".join(lines) + "\n")
    return [sample for family in families for sample in family.samples]


def _detail(name: str, labels: Mapping[str, str]) -> str:
    """What is kept of the labels of a sample beside its model."""
    if name == _REQUESTS:
        return "" if labels["code"] < "400" else "failed"
    return labels.get("le" if name == _SIZED else "rows", "")


def _by_size(totals: Mapping[tuple[str, str], float]) -> dict[int, Spent]:
    found: dict[int, Spent] = {}
    below = 0
    for size, label in BATCH_SIZES.items():
        until = int(totals.get((_SIZED, label), below))
        if until > below:
            found[size] = Spent(
                until - below, _nanoseconds(totals.get((_SIZED_SECONDS, label), 0.0))
            )
        below = until
    return found


def _nanoseconds(seconds: float) -> int:
    return round(1e9 * seconds)
